"""How long a stream may be silent, and how old it may become."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from ..errors import ServeError

_POLL_S = 0.05
SPREAD = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """What streams may be, on a worker. Times are seconds.

    `max_streams` are of all clients, `max_streams_per_client` of one; as many downloads may run.
    A stream without a message for `idle_s` is ended. One that is older than `max_age_s` (0: any
    age) is ended after `move_s` more, in which the client opens another.
    """

    max_streams: int = 4096
    max_streams_per_client: int = 1024
    idle_s: float = 600.0
    max_age_s: float = 0.0
    move_s: float = 5.0

    def spread(self) -> StreamLimits:
        """The same with some lower age: streams that began together shall not end together."""
        return replace(self, max_age_s=self.max_age_s * random.uniform(1 - SPREAD, 1))

    def __post_init__(self) -> None:
        if not (self.max_streams >= 1 and self.max_streams_per_client >= 1):
            raise ServeError("a worker that allows no stream", "allow 1 or more")
        if not (self.idle_s > 0 and self.max_age_s >= 0 and self.move_s >= 0):
            raise ServeError("the time that a stream may last is negative", "give 0 or more")


class Ending(Enum):
    """Why the worker ends a stream."""

    IDLE = "idle"
    AGE = "age"


class Living(Protocol):
    """What has to be known of a stream."""

    @property
    def unanswered(self) -> int:
        """Frames and answers that the client still waits for."""
        ...

    @property
    def computing(self) -> bool:
        """Whether it is the worker that is waited for."""
        ...

    def send_draining(self, grace_ms: int, *, reopen: bool = False) -> None:
        """Tells the client that the stream will end."""
        ...


class Lifetime:
    """Watches over one stream from its handshake on."""

    def __init__(
        self,
        limits: StreamLimits,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._limits, self._clock, self._sleep = limits, clock, sleep
        self._born_s = self._active_s = clock()
        self._leaves_s: float | None = None  # once the client was told

    def touch(self) -> None:
        """A message came, or an answer was taken."""
        self._active_s = self._clock()

    @property
    def is_over(self) -> bool:
        """Whether the client had the time to move, so that nothing new is taken."""
        return self._leaves_s is not None and self._clock() >= self._leaves_s

    async def end(self, stream: Living) -> Ending:
        """Returns when the stream is to end, and why; with old age, once all is answered.

        A client that does not read its answers is idle, whatever it sends: it is not read from.
        """
        while True:
            if stream.computing:
                self.touch()
            now_s = self._clock()
            if self.is_over and not stream.unanswered:
                return Ending.AGE
            if now_s >= self._active_s + self._limits.idle_s:
                return Ending.IDLE
            if self._is_old(now_s) and self._leaves_s is None:
                self._leaves_s = now_s + self._limits.move_s
                stream.send_draining(int(1e3 * self._limits.move_s), reopen=True)
            await self._sleep(max(self._next_s() - now_s, _POLL_S))

    def _is_old(self, now_s: float) -> bool:
        return bool(self._limits.max_age_s) and now_s >= self._born_s + self._limits.max_age_s

    def _next_s(self) -> float:
        """When something may be due; in the past while old answers are waited for."""
        due_s = self._active_s + self._limits.idle_s
        if self._leaves_s is not None:
            return min(due_s, self._leaves_s)
        if self._limits.max_age_s:
            return min(due_s, self._born_s + self._limits.max_age_s)
        return due_s
