"""Results as lines of JSON in files that are never larger than a bound, all together."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

from splitpoint.partition.strict_json import to_json

from ..errors import AgentError
from ..result import Result

MOST_MB = 100.0
FILES = 10  # into which the bound is divided, at least: so much of it goes at once
_NAME = re.compile(r"(\d{4}-\d\d-\d\d)\.(\d+)\.jsonl")
_LAST_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, order=True)
class _Part:
    """Of the days of UTC; a day has as many parts as it needs."""

    day: date
    number: int

    def in_folder(self, folder: Path) -> Path:
        return folder / f"{self.day}.{self.number:03}.jsonl"


class EventFiles:
    """A sink that appends each result's document to DIR/DAY.NUMBER.jsonl, by days of UTC.

    Together the files take at most `most_mb`; the oldest go first. What the end of a process or the
    loss of power left of a line is cut off at the next start, and what a full disk left of one at
    once. A clock that is set back begins no older file. Raises `AgentError` for a folder that
    cannot be written, or that another agent writes.
    """

    def __init__(
        self,
        folder: Path,
        describe: Callable[[Result], Mapping[str, Any]],
        most_mb: float = MOST_MB,
        *,
        today: Callable[[], date] = lambda: datetime.now(timezone.utc).date(),
    ) -> None:
        self._folder, self._describe, self._today = folder, describe, today
        self._most_bytes = int(most_mb * 1e6)
        self._file_bytes = self._most_bytes // FILES
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                self._lock = _locked(folder)
                stack.callback(os.close, self._lock)
                self._sizes = dict(sorted(_parts_in(folder)))
                last = next(reversed(self._sizes), None)
                self._part = _Part(today(), 0) if last is None else last
                self._file = self._opened()
                _cut_torn_line(self._file)
                self._sizes[self._part] = os.fstat(self._file).st_size
                stack.pop_all()
        except OSError as error:
            raise AgentError(
                f"cannot write events to {folder}: {error.strerror or error}",
                "give another folder as --events",
            ) from error

    def add(self, result: Result) -> None:
        """One line. Raises `OSError` where it cannot be written: then nothing of it is."""
        line = f"{to_json(self._describe(result))}\n".encode()
        self._roll(len(line))
        size = self._sizes[self._part]
        try:
            written = os.write(self._file, line)
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError:
            os.ftruncate(self._file, size)
            raise
        self._sizes[self._part] = size + len(line)

    def close(self) -> None:
        """Each line is written already."""
        os.close(self._file)
        os.close(self._lock)

    def _roll(self, more_bytes: int) -> None:
        """Begins another file for `more_bytes` where it is time, and makes room for them."""
        day, size = max(self._today(), self._part.day), self._sizes[self._part]
        if day > self._part.day or (size and size + more_bytes > self._file_bytes):
            number = self._part.number + 1 if day == self._part.day else 0
            self._begin(_Part(day, number))
        elif os.fstat(self._file).st_nlink == 0:  # somebody has deleted it
            self._begin(self._part)
        while sum(self._sizes.values()) + more_bytes > self._most_bytes and len(self._sizes) > 1:
            oldest = next(iter(self._sizes))
            oldest.in_folder(self._folder).unlink(missing_ok=True)
            del self._sizes[oldest]

    def _begin(self, part: _Part) -> None:
        os.close(self._file)
        self._part = part
        self._file = self._opened()
        self._sizes[part] = os.fstat(self._file).st_size

    def _opened(self) -> int:
        path = self._part.in_folder(self._folder)
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _locked(folder: Path) -> int:
    """The folder itself, as long as it is open ours alone."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise AgentError(
            f"another agent writes its events to {folder}", "give each a folder of its own"
        ) from None
    return handle


def _parts_in(folder: Path) -> Iterator[tuple[_Part, int]]:
    """Those that are there, with their sizes; other files are left alone."""
    for path in folder.iterdir():
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        try:
            part = _Part(date.fromisoformat(match[1]), int(match[2]))
        except ValueError:  # no day of a calendar
            continue
        if part.in_folder(folder) == path:
            yield part, path.stat().st_size


def _cut_torn_line(file: int) -> None:
    """Ends the file behind its last whole line."""
    end = os.fstat(file).st_size
    while end:
        begin = max(end - _LAST_BYTES, 0)
        found = os.pread(file, end - begin, begin).rfind(b"\n")
        if found >= 0:
            end = begin + found + 1
            break
        end = begin
    os.ftruncate(file, end)
