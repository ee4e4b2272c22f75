"""Threads that decode frames: each client has its turn, and what came too late is not decoded."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError

from ..access.caller import Caller
from ..compute.values import Values
from ..schedule.schedule import SHARE
from .fair_queue import FairQueue

# Beside one for each thread, so that none waits for the event loop when it has finished.
_AT_HAND = 1


@dataclass(eq=False, slots=True, kw_only=True)
class Decoding:
    """A frame that is to be decoded.

    `nbytes` is what it holds until then, `device_s` what it will take of the device afterwards.
    `in_vain` says why it need not be decoded any more, None while it must. `decode` runs in a
    thread and may raise whatever it likes.
    """

    caller: Caller
    nbytes: int
    device_s: float
    in_vain: Callable[[], FrameError | None]
    decode: Callable[[], Values]
    result: asyncio.Future[Values] = field(init=False)


class DecoderDied(Exception):
    """A decoder raised what would have ended its thread."""


class Decoders:
    """Use it from one event loop. `max_bytes` may wait, shared out as the engine's time is."""

    def __init__(self, threads: int, max_bytes: int, pool: Executor | None = None) -> None:
        self.threads, self._max_bytes = threads, max_bytes
        self._pool = pool or ThreadPoolExecutor(threads, thread_name_prefix="splitpoint-decode")
        self._queue = FairQueue[Decoding]()
        self.running = 0
        self._nbytes: defaultdict[str, int] = defaultdict(int)  # by client
        self._device_s: defaultdict[str, float] = defaultdict(float)  # by share
        self.nbytes = 0

    @property
    def waiting(self) -> int:
        """How many wait for a thread."""
        return len(self._queue)

    def device_s(self, caller: Caller) -> float:
        """What the frames that are here will take of the caller's share of the device."""
        return self._device_s.get(caller.share, 0.0)

    def check(self, caller: Caller, nbytes: int) -> None:
        """`FrameError` (OVERLOADED) where so many bytes more leave too little for others."""
        has = self._nbytes.get(caller.client.name, 0)
        if self.nbytes and has + nbytes > SHARE * (self._max_bytes - self.nbytes):
            raise FrameError(
                pb.OVERLOADED, f"{has / 1e6:.0f} MB of this client wait to be decoded, its share"
            )

    async def run(self, decoding: Decoding) -> Values:
        """What `decode` returns or raises; `FrameError` where it is `in_vain` before its turn."""
        decoding.result = asyncio.get_running_loop().create_future()
        caller = decoding.caller
        self._hold(decoding, 1)
        try:
            self._queue.add(caller.client.name, caller.connection, decoding)
            self._go_on()
            return await decoding.result
        finally:
            self._queue.discard(caller.client.name, caller.connection, decoding)
            self._hold(decoding, -1)

    def shutdown(self) -> None:
        """Ends the threads, each after the frame that it decodes."""
        self._pool.shutdown()

    def _go_on(self) -> None:
        while self.running < self.threads + _AT_HAND and (turn := self._queue.next()):
            client, decoding = turn
            if not self._begin(client, decoding):
                self._queue.done(client, 0.0)

    def _begin(self, client: str, decoding: Decoding) -> bool:
        """Whether it is being decoded now."""
        result = decoding.result
        if result.done():  # nobody waits any more
            return False
        try:
            if (why := decoding.in_vain()) is not None:
                raise why
            work = self._pool.submit(_timed, decoding.decode)
        except Exception as error:  # noqa: BLE001 - its own frame answers for it
            result.set_exception(error)
            return False
        self.running += 1
        loop = result.get_loop()

        def ended(work: Future[tuple[Values | None, BaseException | None, float]]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._ended, client, decoding, work)

        work.add_done_callback(ended)
        return True

    def _ended(
        self,
        client: str,
        decoding: Decoding,
        work: Future[tuple[Values | None, BaseException | None, float]],
    ) -> None:
        self.running -= 1
        took_s = 0.0
        try:
            values, error, took_s = work.result()
        except BaseException as lost:  # noqa: BLE001 - the thread or the pool, then
            values, error = None, lost
        self._queue.done(client, took_s)
        if not decoding.result.done():
            if values is not None:
                decoding.result.set_result(values)
            elif isinstance(error, Exception):
                decoding.result.set_exception(error)
            else:  # in a task it would end the event loop
                decoding.result.set_exception(DecoderDied(repr(error)[:100]))
        self._go_on()

    def _hold(self, decoding: Decoding, sign: int) -> None:
        client, share = decoding.caller.client.name, decoding.caller.share
        self.nbytes += sign * decoding.nbytes
        self._nbytes[client] += sign * decoding.nbytes
        self._device_s[share] += sign * decoding.device_s
        if self._nbytes[client] <= 0:
            del self._nbytes[client]
        if self._device_s[share] <= 1e-9:
            del self._device_s[share]


def _timed(decode: Callable[[], Values]) -> tuple[Values | None, BaseException | None, float]:
    """What `decode` returned or raised, and what it took: nothing shall end the thread."""
    began_s = time.perf_counter()
    try:
        values, error = decode(), None
    except BaseException as raised:  # noqa: BLE001 - the frame's, and it is told
        values, error = None, raised
    return values, error, time.perf_counter() - began_s
