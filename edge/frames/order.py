"""How many frames are under way, and in which order they begin and end."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from splitpoint.proto.tasks import cancel_and_wait

from ..given import Given
from ..result import Result
from .arrivals import Arrivals

# Results that the consumer has not taken, before a live source is read no further.
MOST_UNREAD = 64
MOST_AT_ONCE = 64  # frames under way, however many their budget has room for
# How often a frame that nothing but a busy device holds up looks whether that is over.
LOOK_S = 0.005


async def in_order(
    frames: Arrivals,
    take: Callable[[Given], Coroutine[Any, Any, Result]],
    window: int,
    leave: asyncio.Future[None],
) -> AsyncGenerator[Result, None]:
    """Every frame's result, in the order of `frames`; at most `window` are under way.

    Once it is time to `leave`, no other is taken. What `frames` raises is raised after the results
    of those before.
    """
    running: deque[asyncio.Task[Result]] = deque()
    try:
        while not leave.done():
            coming = frames.coming()
            await asyncio.sleep(0)  # most have one at once, and need no more
            # A source may be silent for hours: a result does not wait for the frame behind it.
            while not (coming.done() or leave.done()):
                awaited = (coming, leave, running[0]) if running else (coming, leave)
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                while running and running[0].done():
                    yield await running.popleft()
            if leave.done() or (given := frames.taken()) is None:
                break
            running.append(asyncio.create_task(take(given)))
            while running and (len(running) >= window or running[0].done()):
                yield await running.popleft()
        while running:
            yield await running.popleft()
        frames.raise_error()
    finally:
        await cancel_and_wait(*running)


@dataclass(slots=True)
class _Waiting:
    given: Given
    taken_s: float


class Newest:
    """The newest frame first, for a source that does not wait; results come as frames end.

    A frame begins when nothing waits for the compute thread, `busy` among it, and fewer are under
    way than `window`. One that still waits when the next arrives is given to `expire`; where there
    is nothing new in that next one, it is the next one. While `at_once`, frames begin as they come:
    `take` decides what becomes of them.
    """

    def __init__(
        self,
        take: Callable[[Given, float, Callable[[], None]], Coroutine[Any, Any, Result]],
        expire: Callable[[Given, float], Result],
        window: int,
        *,
        busy: Callable[[], bool] = lambda: False,
        at_once: Callable[[], bool] = lambda: False,
    ) -> None:
        self._take, self._expire, self._busy, self._at_once = take, expire, busy, at_once
        self._window = window
        self._results: asyncio.Queue[Result | None] = asyncio.Queue()
        self._waiting: _Waiting | None = None
        self._computing = False
        self._running: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None  # whether the device is busy still
        self._room = asyncio.Event()
        self._ending = False
        self._error: BaseException | None = None  # what no frame may raise, of one that did

    async def run(
        self, frames: Arrivals, leave: asyncio.Future[None]
    ) -> AsyncGenerator[Result, None]:
        """A result for each frame that comes before it is time to `leave`."""
        pump = asyncio.create_task(self._pump(frames, leave), name="live-source")
        try:
            while (result := await self._results.get()) is not None:
                self._room.set()
                yield result
            if self._error is not None:
                raise self._error
            await pump
        finally:
            self._ending = True  # what is ended makes room, which nothing may take
            try:
                await cancel_and_wait(pump)
            finally:
                await cancel_and_wait(self._looking, *self._running)

    async def _pump(self, frames: Arrivals, leave: asyncio.Future[None]) -> None:
        try:
            while (given := await frames.next(leave)) is not None:
                self._came(given)
                while self._results.qsize() >= MOST_UNREAD:
                    self._room.clear()
                    await self._room.wait()
            while self._error is None and (self._running or self._waiting is not None):
                self._begin()
                under_way = [*self._running, *([self._looking] if self._looking else [])]
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            frames.raise_error()
        finally:
            self._results.put_nowait(None)

    def _came(self, given: Given) -> None:
        if given.still:
            self._results.put_nowait(self._expire(given, time.perf_counter()))
            return
        if self._waiting is not None:
            self._results.put_nowait(self._expire(self._waiting.given, self._waiting.taken_s))
        self._waiting = _Waiting(given, time.perf_counter())
        self._begin()

    def _begin(self) -> None:
        if self._waiting is None or self._ending:
            return
        if self._at_once():
            if len(self._running) < MOST_AT_ONCE:
                self._begin_now(self._waiting)
            return
        if self._computing or len(self._running) >= self._window:
            return
        if self._busy():
            # No frame's end tells when that is over: it may be another caller's frame, or one that
            # has its answer already.
            if self._looking is None:
                self._looking = asyncio.create_task(self._until_free(), name="until-free")
            return
        self._begin_now(self._waiting)

    def _begin_now(self, waiting: _Waiting) -> None:
        self._waiting, self._computing = None, True
        task = asyncio.create_task(self._one(waiting))
        self._running.add(task)
        task.add_done_callback(self._ended)

    async def _one(self, waiting: _Waiting) -> None:
        result = await self._take(waiting.given, waiting.taken_s, self._computed)
        self._results.put_nowait(result)

    async def _until_free(self) -> None:
        while self._busy():  # noqa: ASYNC110 - whoever keeps it busy does not tell
            await asyncio.sleep(LOOK_S)
        self._looking = None
        self._begin()

    def _computed(self) -> None:
        self._computing = False
        self._begin()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        self._error = self._error or task.exception()
        if self._error is not None:
            self._results.put_nowait(None)
        self._begin()
