"""Functions that wait for the compute thread, beside the frames."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, TypeVar

from ..errors import Interrupted

_T = TypeVar("_T")


class CallQueue:
    """A queue of them. Whoever waits for one gets its result, its error, or the one of `close`."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._running: Future[Any] | None = None
        self._thread = 0  # in which that runs
        self._gave_way_s = self._further_s = 0.0
        self._closed: Exception | None = None
        self.doing = ""  # what the one that runs has said last of what it does

    def __bool__(self) -> bool:
        """Whether any waits."""
        return bool(self._waiting)

    def add(self, function: Callable[[], _T]) -> Future[_T]:
        """Has `function` called in its turn."""
        future: Future[_T] = Future()
        with self._lock:
            if self._closed is not None:
                raise self._closed
            self._waiting.append((function, future))
        return future

    def run_next(self) -> bool:
        """Makes the next call in this thread; False where none waits."""
        with self._lock:
            if not self._waiting:
                return False
            function, future = self._waiting.popleft()
            if not future.set_running_or_notify_cancel():
                return True  # its caller has gone
            self._thread, self.doing = threading.get_ident(), "a call"
            self._gave_way_s = self._further_s = self._clock()
            self._running = future
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            with suppress(InvalidStateError):  # or nobody waits any more
                future.set_exception(error)
        else:
            with suppress(InvalidStateError):
                future.set_result(result)
        with self._lock:
            if self._running is future:  # and was not given up
                self._running = None
        return True

    def came_further(self, doing: str = "") -> None:
        """What runs in this thread does not hang; it may say what it is `doing` now.

        Raises `Interrupted` where it was given up: nobody waits for it any more.
        """
        if self._running is None or self._thread != threading.get_ident():
            raise Interrupted("it was given up")
        self._further_s = self._clock()
        self.doing = doing or self.doing

    def goes_on(self, doing: str) -> None:
        """What runs has just looked whether it is to give way to somebody: it keeps nobody out."""
        self.came_further(doing)
        self._gave_way_s = self._clock()

    def stood_still(self, seconds: float) -> None:
        """All of the process did, so that it was not what runs that came no further."""
        self._gave_way_s += seconds
        self._further_s += seconds

    def has_run_for(self, seconds: float) -> bool:
        """Whether one has been running for that long, or since it last looked."""
        return self._running is not None and self._clock() - self._gave_way_s > seconds

    def hangs_for(self, seconds: float) -> bool:
        """Whether one is running that came no further for so long."""
        return self._running is not None and self._clock() - self._further_s > seconds

    def give_up(self, seconds: float, error: Exception) -> bool:
        """Whoever waits for what hangs for so long gets `error`; False where nothing does."""
        with self._lock:
            future = self._running
            if future is None or not self.hangs_for(seconds):
                return False
            self._running = None
        with suppress(InvalidStateError):
            future.set_exception(error)
        return True

    def close(self, error: Exception) -> None:
        """Whoever waits gets `error`, and so does whoever comes; what runs goes on for nobody."""
        with self._lock:
            self._closed = error
            futures = [future for _, future in self._waiting]
            if self._running is not None:
                futures.append(self._running)
            self._waiting.clear()
        for future in futures:
            with suppress(InvalidStateError):
                future.set_exception(error)
