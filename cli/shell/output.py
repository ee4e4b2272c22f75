"""What commands print: one JSON document on stdout or a table, everything else on stderr."""

from __future__ import annotations

import logging
import sys
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from splitpoint.partition.significant import significant
from splitpoint.partition.strict_json import to_json
from splitpoint.proto.printable import printable

# Where no terminal says how wide it is, a table may be as wide as it needs.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
err = Console(stderr=True, highlight=False)

MOST_LOGGED = 2000  # characters of a message or a line


def print_json(document: Any) -> None:
    """One JSON document on one line of stdout, at once (a pipe may be waiting for it).

    Numbers that are not finite are null.
    """
    sys.stdout.write(to_json(document) + "\n")
    sys.stdout.flush()


def say(line: str) -> None:
    """A line for the person at the terminal, on stderr, without control characters."""
    err.print(printable(line, MOST_LOGGED), markup=False, soft_wrap=True)


def setup_logging(verbose: bool) -> None:
    """splitpoint's own log lines on stderr; the libraries' only from warnings on.

    Only a terminal has columns for them: in files and journals each is one line, however long.
    """
    handler: logging.Handler
    if err.is_terminal:
        handler = RichHandler(console=err, show_path=False)
        handler.setFormatter(OneLine("%(message)s"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("splitpoint").setLevel(logging.INFO if verbose else logging.WARNING)


class OneLine(logging.Formatter):
    """A message as one line without control characters, whoever put what into it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The message alone."""
        return printable(super().formatMessage(record), MOST_LOGGED)

    def formatException(self, ei: Any) -> str:
        """The traceback behind it, indented: no line of it can be taken for one of the log."""
        lines = super().formatException(ei).splitlines()
        return "\n".join(f"    {printable(line, MOST_LOGGED)}" for line in lines)


class Steps:
    """Progress of long work: a bar on a terminal, elsewhere a line where something else begins.

    Use it as a context manager and call it with (what, done, total).
    """

    def __init__(self) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=err,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None)
        self._said = ""

    def __enter__(self) -> Steps:
        if err.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if err.is_terminal:
            self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Shows that `done` of `total` steps are done and `what` comes next."""
        if err.is_terminal:
            self._bar.update(self._task, description=what, completed=done, total=total)
        elif done < total and what != self._said:
            self._said = what
            say(f"[{done + 1}/{total}] {what}")


def human_bytes(nbytes: float) -> str:
    """`62.7 kB`; powers of 1,000."""
    for unit in ("B", "kB", "MB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} GB"


def human_count(count: float | None) -> str:
    """`1.82 G`; `?` for an unknown count."""
    if count is None:
        return "?"
    for unit in ("", " k", " M", " G"):
        if count < 1000:
            return f"{count:.0f}" if unit == "" else f"{significant(count)}{unit}"
        count /= 1000
    return f"{significant(count)} T"
