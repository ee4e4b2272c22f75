"""What becomes of a command whose reader goes away, as in `splitpoint run --json | head -1`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

READER_GONE = 141  # what a shell says of a command that ended by SIGPIPE


class ReaderGone(Exception):
    """Nobody reads the results any more: the command ends what it began, and says nothing."""


@contextmanager
def readers_may_leave() -> Iterator[None]:
    """While it is entered, stdout and stderr may lose their readers.

    Results are what a command is for: without a reader of stdout it ends with `READER_GONE`. A line
    on stderr that nobody reads is dropped, and the work goes on. Where the shell has closed one of
    the two (`>&-`), it is as if nobody ever wanted to read it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(nowhere, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Results(sys.stdout), _Stream(sys.stderr)
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except ReaderGone:
        raise SystemExit(READER_GONE) from None
    finally:
        sys.stdout, sys.stderr = before


class _Stream:
    """Text for which nobody need be there: without a reader it is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._broken()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._broken()

    def _broken(self) -> None:
        """What is still to be written, at the process's end too, goes nowhere."""
        with suppress(OSError, ValueError):  # a stream without a file needs no other
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Results(_Stream):
    """One whose reader is what the command works for."""

    def _broken(self) -> None:
        super()._broken()
        raise ReaderGone
