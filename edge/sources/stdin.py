"""Frames from files whose paths arrive on standard input, one a line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path

from ..given import Given
from .own_thread import OwnThread
from .source import InputFeed

CHUNK_BYTES = 1 << 16


class PathLines:
    """The lines that arrive on a file descriptor; blank ones are left out.

    It reads the descriptor and not `sys.stdin`, whose lock a blocked reader would hold while the
    process ends.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._rest, self._ended = descriptor, b"", False

    def following(self) -> Path | None:
        """The next line's path, or None at the end; blocks until there is one."""
        while True:
            line, newline, rest = self._rest.partition(b"\n")
            if newline or self._ended:
                self._rest = rest
                if line.strip():
                    return Path(os.fsdecode(line.strip()))
                if not newline:
                    return None
                continue
            chunk = os.read(self._descriptor, CHUNK_BYTES)
            self._rest += chunk
            self._ended = not chunk


class StdinSource:
    """One frame for every path on standard input, until that ends."""

    live = False
    examples: tuple[Path, ...] = ()

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor

    async def open(self) -> None:
        """There is nothing to check: a path that leads nowhere is a failed frame."""

    async def close(self) -> None:
        """Leaves the descriptor as it is."""

    async def frames(self, feed: InputFeed) -> AsyncGenerator[Given, None]:
        """A frame a line, as the lines come."""
        lines, thread = PathLines(self._descriptor), OwnThread("splitpoint-stdin")
        try:
            while (path := await thread.call(lines.following)) is not None:
                yield await asyncio.to_thread(feed.of_file, path)
        finally:
            await thread.end(wait_s=0)  # it may wait for a line that never comes
