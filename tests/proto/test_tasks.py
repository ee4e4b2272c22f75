"""Waits that end."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from contextlib import suppress

import pytest
from patience import FOREVER_S
from splitpoint.proto.tasks import cancel_and_wait, start_task, until_ended, within


async def test_a_cancellation_is_not_lost_where_the_work_ends_at_that_moment() -> None:
    """As of a stream whose client leaves while its welcome goes out."""
    written = asyncio.get_running_loop().create_future()

    async def write() -> str:
        return await written

    waiting = asyncio.create_task(within(FOREVER_S, write()))
    await asyncio.sleep(0.01)
    written.set_result("sent")
    await asyncio.sleep(0)  # the work has ended, and who waits has not run yet
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("seconds", [FOREVER_S, None])
async def test_what_comes_in_time_is_returned(seconds: float | None) -> None:
    assert await within(seconds, asyncio.sleep(0, "done")) == "done"

    async def fail() -> None:
        raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        await within(seconds, fail())
    lost = asyncio.get_running_loop().create_future()
    lost.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(seconds, lost)


async def test_what_takes_too_long_is_cancelled_and_has_ended() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(FOREVER_S)
        finally:
            ended.set()

    with pytest.raises(asyncio.TimeoutError):
        await within(0.01, work())
    assert ended.is_set()
    ended.clear()
    waiting = asyncio.create_task(within(FOREVER_S, work()))
    await asyncio.sleep(0.01)
    await cancel_and_wait(waiting)
    assert waiting.cancelled()
    assert ended.is_set()


async def test_what_the_work_has_done_at_its_end_counts() -> None:
    async def work() -> str:
        try:
            await asyncio.sleep(FOREVER_S)
        except asyncio.CancelledError:
            return "in time after all"
        raise AssertionError

    assert await within(0.01, work()) == "in time after all"


async def test_who_is_cancelled_while_it_ends_tasks_ends_them_first() -> None:
    may_end, ended = asyncio.Event(), False

    async def work() -> None:
        nonlocal ended
        try:
            await asyncio.sleep(FOREVER_S)
        finally:
            await may_end.wait()
            ended = True

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    ending = asyncio.create_task(cancel_and_wait(task, None))
    for _ in range(3):
        await asyncio.sleep(0.01)
        ending.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert ended


async def test_what_was_waited_for_is_not_kept() -> None:
    """A call that was refused, say, whose connection would stay open until garbage is collected."""

    class Call:
        pass

    async def fail(call: Call) -> None:
        raise ValueError("refused")

    async def stuck(call: Call, may_end: asyncio.Event) -> None:
        try:
            await asyncio.sleep(FOREVER_S)
        finally:
            await may_end.wait()

    async def close(call: Call, may_end: asyncio.Event) -> None:
        task = asyncio.create_task(stuck(call, may_end))
        await asyncio.sleep(0)
        await cancel_and_wait(task)

    async def refused() -> weakref.ref[Call]:
        call = Call()
        with suppress(ValueError):
            await within(FOREVER_S, fail(call))
        return weakref.ref(call)

    async def cancelled() -> weakref.ref[Call]:
        call, may_end = Call(), asyncio.Event()
        closing = asyncio.create_task(close(call, may_end))
        await asyncio.sleep(0.01)
        closing.cancel()
        await asyncio.sleep(0)
        may_end.set()
        with suppress(asyncio.CancelledError):
            await closing
        return weakref.ref(call)

    gc.collect()
    gc.disable()
    try:
        kept = [await refused(), await cancelled()]
        await asyncio.sleep(0)
        assert [call() for call in kept] == [None, None]
    finally:
        gc.enable()


async def test_what_fails_in_the_background_is_told(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("splitpoint.test")

    async def fail() -> None:
        raise ValueError("a bug")

    failing = start_task(fail(), "look-around", log)
    await cancel_and_wait(start_task(asyncio.sleep(FOREVER_S), "wait", log))
    await until_ended(failing)
    assert caplog.messages == ["look-around failed, and stays away until a restart"]
    assert "a bug" in caplog.text
