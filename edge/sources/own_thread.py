"""Blocking calls that may never return, kept off the event loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class OwnThread:
    """Runs calls one after the other in a thread that does not keep the process from ending.

    A camera or a pipe may block for ever; asyncio's own threads would be waited for at exit.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]
        self._calls = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def call(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises. One that has begun goes on when nobody waits any more."""
        return await asyncio.wrap_future(self._submit(work))

    async def end(self, last: Callable[[], object] = lambda: None, wait_s: float = 1.0) -> None:
        """Runs `last` after the call that is under way, if any, and ends the thread.

        Waits for that `wait_s` at most.
        """
        done = asyncio.wrap_future(self._submit(last))
        self._calls.put(None)
        await asyncio.wait((done,), timeout=wait_s)
        if not done.done():
            done.cancel()
        elif not done.cancelled():
            done.exception()  # there is nobody left to tell

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        # Running from the start: what was cancelled by its waiter still runs, `last` above all.
        future.set_running_or_notify_cancel()
        self._calls.put((work, future))
        return future

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            work, future = item
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - it is raised where the call was made
                future.set_exception(error)
            else:
                future.set_result(result)
