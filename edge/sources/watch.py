"""Frames from a folder into which others write: each file once it is complete."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path

from splitpoint.partition.bundle.samples import PICTURE_SUFFIXES

from ..errors import SourceError
from ..given import Given
from .source import InputFeed

log = logging.getLogger("splitpoint.edge")

POLL_S, SETTLE_S = 0.2, 0.5
COST_FACTOR = 10  # at most a tenth of the time goes into looking
# Clocks of file systems and of this machine may differ, and a copied file may bear its old time.
# So only a file much older than this counts as moved in whole.
OLD_S = 10.0


@dataclass(frozen=True, slots=True)
class _State:
    """A file as it was found: another one under the same name differs in it."""

    nbytes: int
    modified_ns: int
    inode: int


class NewFiles:
    """Which files of a folder with such `suffixes` are complete and have not been told yet.

    A file is complete when it has not changed for `SETTLE_S`, or is old when it is first seen (it
    was moved in). A file that is written anew is new. Only what is in the folder is remembered.
    """

    def __init__(
        self, folder: Path, suffixes: frozenset[str], clock: Callable[[], float] = time.time
    ) -> None:
        self._folder, self._suffixes, self._clock = folder, suffixes, clock
        self._seen: dict[str, tuple[_State, float]] = {}  # and since when it is as it is
        self._told: dict[str, _State] = {}

    def scan(self) -> list[Path]:
        """Those that are complete by now, in the order of their last change; raises `OSError`."""
        now = self._clock()
        found: dict[str, tuple[_State, float]] = {}
        ready: list[tuple[int, str]] = []
        for path in self._folder.iterdir():
            if path.suffix.lower() not in self._suffixes or path.name.startswith("."):
                continue
            try:
                if not path.is_file():
                    continue
                stat = path.stat()
            except OSError:  # it was there a moment ago
                continue
            state = _State(stat.st_size, stat.st_mtime_ns, stat.st_ino)
            before, since = self._seen.get(path.name, (None, now))
            found[path.name] = state, (since if state == before else now)
            if self._told.get(path.name) == state:
                continue
            old = before is None and now - stat.st_mtime > OLD_S
            if stat.st_size and (old or now - found[path.name][1] >= SETTLE_S):
                ready.append((stat.st_mtime_ns, path.name))
        self._seen = found
        self._told = {name: state for name, state in self._told.items() if name in found}
        self._told |= {name: found[name][0] for _, name in ready}
        return [self._folder / name for _, name in sorted(ready)]


class WatchSource:
    """The inputs that are in a folder, and then each new one; it does not end by itself.

    It waits for its reader: files stay where they are until it is their turn. Raises `SourceError`
    where there is no such folder.
    """

    live = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            found = sorted(folder.iterdir())
        except OSError as error:
            why = error.strerror or str(error)
            raise SourceError(f"cannot watch {folder}: {why}", "give a folder") from error
        self.examples = tuple(path for path in found if path.suffix.lower() in PICTURE_SUFFIXES)

    async def open(self) -> None:
        """It was looked for already."""

    async def close(self) -> None:
        """There is nothing left open."""

    async def frames(self, feed: InputFeed) -> AsyncGenerator[Given, None]:
        """A frame each; a folder that is gone for a while is waited for."""
        files, gone = NewFiles(self._folder, feed.suffixes), False
        while True:
            began = time.monotonic()
            try:
                ready = await asyncio.to_thread(files.scan)
                gone = False
            except OSError as error:
                ready = []
                if not gone:
                    log.warning("cannot look into %s: %s", self._folder, error.strerror or error)
                gone = True
            for path in ready:
                yield await asyncio.to_thread(feed.of_file, path)
            if not ready:  # a folder of many thousand files takes a while to look through
                took_s = time.monotonic() - began
                await asyncio.sleep(max(POLL_S, COST_FACTOR * took_s))
