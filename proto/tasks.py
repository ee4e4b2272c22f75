"""The event loop that a process runs in, a wait with an end, and the end of tasks."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_in_loop(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, in uvloop's loop where that is installed.

    It is not made for every platform. With it a frame takes a fifth less of a device's processor.
    """
    if importlib.util.find_spec("uvloop") is None:
        return asyncio.run(main)
    import uvloop

    return uvloop.run(main)


def start_task(
    work: Coroutine[Any, Any, None], name: str, log: logging.Logger
) -> asyncio.Task[None]:
    """A task that nobody waits for. Where it fails, which no task should, `log` has the error."""

    def tell(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed, and stays away until a restart", name, exc_info=error)

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(tell)
    return task


async def cancel_and_wait(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancels those that there are; returns once all have ended: see `until_ended`."""
    begun = [task for task in tasks if task is not None]
    for task in begun:
        task.cancel()
    await until_ended(*begun)


async def until_ended(*tasks: asyncio.Future[Any]) -> None:
    """Returns once all have ended, however they did.

    Who is cancelled meanwhile waits on, and is cancelled then: a client may leave while its stream
    ends, and what comes after must find the tasks ended. It belongs into a `finally` of its own.
    """
    cancelled: asyncio.CancelledError | None = None
    while running := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(running)
        except asyncio.CancelledError as error:
            cancelled = error
    for task in tasks:
        if not task.cancelled():
            task.exception()  # nobody misses it
    try:
        if cancelled is not None:
            raise cancelled
    finally:
        del cancelled  # as in `within`


async def within(seconds: float | None, work: Awaitable[T]) -> T:
    """What `work` returns; after `seconds` it is cancelled, and `asyncio.TimeoutError` raised.

    As `asyncio.wait_for`, which before Python 3.12 forgets a cancellation that comes in the moment
    when `work` ends (https://github.com/python/cpython/issues/86296). A stream whose client left
    just after its welcome then went on until it had been idle for too long.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait([task], timeout=seconds)
    except asyncio.CancelledError:
        await cancel_and_wait(task)
        raise
    try:
        if not done:
            await cancel_and_wait(task)
            if task.cancelled():
                raise asyncio.TimeoutError
        return task.result()
    finally:
        # Else this frame and what is raised would hold one another, and all who wait, with their
        # calls: connections would stay open until the garbage collector comes by.
        del task, done
