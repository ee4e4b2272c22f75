"""Places for calls: a newcomer finds one, and who fills them fills his own."""

from __future__ import annotations

import asyncio

import pytest
from splitpoint.cloud.access.waiting_room import Displaced, WaitingRoom


async def forever() -> None:
    await asyncio.Event().wait()


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def test_who_has_most_loses_the_one_that_waited_longest() -> None:
    room = WaitingRoom(4)
    crowd = [asyncio.create_task(room.stay("crowd", forever())) for _ in range(3)]
    await settle()
    one = asyncio.create_task(room.stay("one", forever()))
    await settle()
    assert len(room) == 4
    assert not any(task.done() for task in (*crowd, one))
    others = [asyncio.create_task(room.stay(f"other-{i}", forever())) for i in range(2)]
    await settle()
    assert [task.done() for task in crowd] == [True, True, False]
    assert not any(task.done() for task in (one, *others))
    for task in crowd[:2]:
        with pytest.raises(Displaced):
            await task
    more = [asyncio.create_task(room.stay("crowd", forever())) for _ in range(9)]
    await settle()
    assert sum(not task.done() for task in (*crowd, *more)) == 1
    assert not any(task.done() for task in (one, *others))
    assert len(room) == 4
    for task in (*crowd, one, *others, *more):
        task.cancel()
    await asyncio.gather(*crowd, one, *others, *more, return_exceptions=True)
    assert len(room) == 0


async def test_what_work_comes_to_is_handed_on_and_its_place_is_free_again() -> None:
    room = WaitingRoom(1)

    async def answer() -> int:
        return 7

    async def fail() -> int:
        raise ValueError("its own")

    assert await room.stay("a", answer()) == 7
    with pytest.raises(ValueError, match="its own"):
        await room.stay("a", fail())
    with pytest.raises(asyncio.TimeoutError):
        await room.stay("a", forever(), 0.01)
    assert len(room) == 0


async def test_work_is_ended_with_its_place() -> None:
    room, ended = WaitingRoom(1), asyncio.Event()

    async def work() -> None:
        try:
            await forever()
        finally:
            ended.set()

    first = asyncio.create_task(room.stay("a", work()))
    await settle()
    second = asyncio.create_task(room.stay("a", forever()))
    await asyncio.wait((first,), timeout=10)
    assert ended.is_set()
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
