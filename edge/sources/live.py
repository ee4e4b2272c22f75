"""Frames from a camera or a network stream, which may stall, break off and come back."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path

from splitpoint.codec import Array
from splitpoint.proto.backoff import Backoff

from ..errors import SourceError
from ..given import Given
from .opencv import TIMEOUT_S, Capture
from .own_thread import OwnThread
from .paced import Pace
from .source import InputFeed

log = logging.getLogger("splitpoint.edge")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
# A stream that has ended fails at once, again and again; one that is damaged only for a while.
LOST_AFTER = 30
# What a camera or a network stream sends while nobody reads is kept on the way, and comes first.
STALE_S = 1.0


class LiveSource:
    """Reads one frame at a time, whenever one is asked for, and holds none back.

    Of those that come faster than `fps`, some are left out before anything is done with them. A
    frame that cannot be decoded is a failed frame. A source that stalls for `stall_s`, or gives
    nothing any more, is warned of in one line and opened again, with pauses that double. Nothing
    in it ever waits on the event loop.
    """

    live = True
    examples: tuple[Path, ...] = ()

    def __init__(
        self,
        name: str,
        opener: Callable[[], Capture],
        *,
        fps: float = math.inf,
        stall_s: float = TIMEOUT_S,
        first_pause_s: float = FIRST_PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._opener, self._pace = name, opener, Pace(fps)
        # Who asks for a frame now and then does not miss it earlier.
        self._stall_s, self._first_pause_s = stall_s + 1 / fps, first_pause_s
        self._thread: OwnThread | None = None
        self._capture: Capture | None = None  # touched in the thread only
        self._given = 0
        self._clock, self._opened_s = clock, 0.0

    async def open(self) -> None:
        """Opens it for the first time; `SourceError` where that fails."""
        self._thread = OwnThread("splitpoint-capture")
        await self._thread.call(self._open_again)
        self._opened_s = self._clock()

    async def frames(self, feed: InputFeed) -> AsyncGenerator[Given, None]:
        """Frames called `NAME#0` and so on; it does not end by itself.

        Where it was opened long before, it is opened again: a device that measured itself in
        between would begin with a backlog of frames that are all too old.
        """
        feed.need_pictures()
        assert self._thread is not None, "open it first"
        broken = 0
        if self._clock() - self._opened_s > STALE_S:
            try:
                await self._thread.call(self._open_again)
            except SourceError:
                await self._come_back(self._thread)
        while True:
            asked = time.monotonic()
            try:
                rgb = await self._read(self._thread)
            except SourceError:
                broken = 0
                await self._come_back(self._thread)
                continue
            if rgb is not None:
                for _ in range(broken):
                    yield feed.of_array(None, self._next_name())
                broken = 0
                if self._pace.wait_s(time.monotonic()):
                    continue
                self._pace.took(time.monotonic())
                yield await self._thread.call(partial(feed.of_array, rgb, self._next_name()))
                continue
            broken += 1
            if broken == LOST_AFTER or time.monotonic() - asked > self._stall_s / 2:
                broken = 0
                await self._come_back(self._thread)

    async def close(self) -> None:
        """Gives the camera or the connection back."""
        if self._thread is not None:
            await self._thread.end(self._close)

    async def _read(self, thread: OwnThread) -> Array | None:
        """The next frame; says so when it is long in coming."""
        reading = asyncio.ensure_future(thread.call(self._read_here))
        try:
            done, _ = await asyncio.wait((reading,), timeout=self._stall_s)
            if not done:
                log.warning("%s: no frame for %.3g s", self._name, self._stall_s)
            return await reading
        finally:
            reading.cancel()

    async def _come_back(self, thread: OwnThread) -> None:
        log.warning("%s is lost; opening it again", self._name)
        lost, pauses = time.monotonic(), Backoff(self._first_pause_s, LONGEST_PAUSE_S)
        while True:
            try:
                await thread.call(self._open_again)
            except SourceError:
                await asyncio.sleep(pauses.next_s())
            else:
                log.warning("%s is back after %.1f s", self._name, time.monotonic() - lost)
                return

    def _next_name(self) -> str:
        self._given += 1
        return f"{self._name}#{self._given - 1}"

    def _open_again(self) -> None:
        self._close()
        self._capture = self._opener()

    def _read_here(self) -> Array | None:
        return None if self._capture is None else self._capture.read()

    def _close(self) -> None:
        if self._capture is not None:
            self._capture.close()
            self._capture = None
