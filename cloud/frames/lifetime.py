"""How long a stream may be silent, and how old it may become."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Protocol

from ..options import StreamLimits

_POLL_S = 0.05


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
