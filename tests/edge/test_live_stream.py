"""Streams of frames: the newest first from a live source, in order from any other."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from patience import until
from splitpoint.codec import SplitpointError
from splitpoint.edge import EdgeAgent, FakeWorker, Given, Outcome, Result
from splitpoint.edge.frames.arrivals import Arrivals
from splitpoint.edge.frames.frame_count import FrameCount
from splitpoint.edge.frames.intake import Intake
from splitpoint.edge.frames.order import MOST_UNREAD, Newest, in_order
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.plan.plan import Plan
from splitpoint.proto.status import FrameExpiredError


class Camera:
    """Frames that the test lets come, and an end or an error when it says so."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Given | Exception | None] = asyncio.Queue()
        self.given = 0
        self.closed = False

    def gives(self, *metadata: Any) -> None:
        for one in metadata:
            self._queue.put_nowait(Given(metadata=one))

    def ends(self, error: Exception | None = None) -> None:
        self._queue.put_nowait(error)

    async def frames(self) -> AsyncIterator[Given]:
        try:
            while (given := await self._queue.get()) is not None:
                if isinstance(given, Exception):
                    raise given
                self.given += 1
                yield given
        finally:
            self.closed = True


class Device:
    """Computes a frame until `computed` is called for it, and ends it when it is let go."""

    def __init__(self, window: int = 3) -> None:
        self.begun: list[Any] = []
        self.cancelled: list[Any] = []
        self.done: dict[Any, Callable[[], None]] = {}
        self._ends: dict[Any, asyncio.Event] = {}
        self.newest = Newest(self.take, self.expire, window)

    async def take(self, given: Given, taken_s: float, computed: Callable[[], None]) -> Result:
        name = given.metadata
        self.begun.append(name)
        self.done[name] = computed
        self._ends[name] = asyncio.Event()
        try:
            await self._ends[name].wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        finally:
            computed()
        return result(given, Outcome.ANSWERED)

    def expire(self, given: Given, taken_s: float) -> Result:
        return result(given, Outcome.EXPIRED)

    def end(self, name: Any) -> None:
        self._ends[name].set()


async def taken(newest: Newest, frames: Any) -> AsyncGenerator[Result, None]:
    """A result for each of the frames, as an agent's stream has them."""
    arrivals = Arrivals(frames)
    try:
        async with aclosing(newest.run(arrivals, never())) as results:
            async for one in results:
                yield one
    finally:
        await arrivals.close()


async def ordered(frames: Any, take: Any, window: int) -> AsyncGenerator[Result, None]:
    arrivals = Arrivals(frames)
    try:
        async with aclosing(in_order(arrivals, take, window, never())) as results:
            async for one in results:
                yield one
    finally:
        await arrivals.close()


def never() -> asyncio.Future[None]:
    """When it is time to leave."""
    return asyncio.get_running_loop().create_future()


def result(given: Given, outcome: Outcome) -> Result:
    return Result(id=0, outcome=outcome, boundary=0, codec="raw", metadata=given.metadata)


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def take_all(results: AsyncIterator[Result], into: list[tuple[Any, str]]) -> None:
    async for one in results:
        into.append((one.metadata, one.outcome.value))


async def test_the_newest_waits_and_older_ones_expire_at_once() -> None:
    camera, device = Camera(), Device()
    found: list[tuple[Any, str]] = []
    reading = asyncio.create_task(take_all(taken(device.newest, camera.frames()), found))
    camera.gives(0)
    await settled()
    camera.gives(1, 2, 3)
    await settled()
    assert device.begun == [0]  # the compute thread is taken
    assert found == [(1, "expired"), (2, "expired")]
    device.done[0]()
    assert device.begun == [0]
    await settled()
    assert device.begun == [0, 3]  # while 0 is still on its way
    device.done[3]()
    camera.gives(4)
    await settled()
    device.done[4]()
    camera.gives(5)
    await settled()
    assert device.begun == [0, 3, 4]  # three are under way
    device.end(4)
    await settled()
    assert device.begun == [0, 3, 4, 5]
    camera.ends()
    for name in (5, 0, 3):
        device.end(name)
        await settled()
    await asyncio.wait_for(reading, 10)
    assert found[2:] == [(4, "answered"), (5, "answered"), (0, "answered"), (3, "answered")]


async def test_the_last_frame_begins_although_the_source_has_ended() -> None:
    camera, device = Camera(), Device(window=1)
    found: list[tuple[Any, str]] = []
    reading = asyncio.create_task(take_all(taken(device.newest, camera.frames()), found))
    camera.gives(0)
    await settled()
    camera.gives(1)
    camera.ends()
    await settled()
    device.done[0]()
    await settled()
    assert device.begun == [0]
    device.end(0)
    await settled()
    device.end(1)
    await asyncio.wait_for(reading, 10)
    assert found == [(0, "answered"), (1, "answered")]


@pytest.mark.parametrize("ended", [True, False])
async def test_a_busy_device_holds_the_last_frame_up_and_loses_it_not(ended: bool) -> None:
    """Nothing of this stream runs whose end could begin it: another caller's frame is finished."""
    camera, device, busy = Camera(), Device(), True
    newest = Newest(device.take, device.expire, 3, busy=lambda: busy)
    found: list[tuple[Any, str]] = []
    reading = asyncio.create_task(take_all(taken(newest, camera.frames()), found))
    camera.gives(0)
    if ended:
        camera.ends()
    await settled()
    assert device.begun == []
    assert not reading.done()
    busy = False
    for _ in range(10_000):
        if device.begun:
            break
        await asyncio.sleep(0.001)
    assert device.begun == [0]
    device.end(0)
    camera.ends()
    await asyncio.wait_for(reading, 10)
    assert found == [(0, "answered")]


async def test_who_leaves_while_the_device_is_busy_leaves_nothing_running() -> None:
    camera, device = Camera(), Device()
    newest = Newest(device.take, device.expire, 3, busy=lambda: True)
    results = taken(newest, camera.frames())
    first = asyncio.create_task(anext(results))
    camera.gives(0, 1)
    assert (await asyncio.wait_for(first, 10)).outcome is Outcome.EXPIRED
    await results.aclose()
    assert device.begun == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_empty_source_ends() -> None:
    device = Device()
    assert [one async for one in taken(device.newest, [])] == []


async def test_a_source_that_raises_costs_no_frame_that_was_taken_in() -> None:
    camera, device = Camera(), Device()
    found: list[tuple[Any, str]] = []
    reading = asyncio.create_task(take_all(taken(device.newest, camera.frames()), found))
    camera.gives(0)
    await settled()
    camera.gives(1)
    camera.ends(OSError("the camera is gone"))
    await settled()
    device.end(0)
    await settled()
    device.end(1)
    with pytest.raises(OSError, match="the camera is gone"):
        await asyncio.wait_for(reading, 10)
    assert found == [(0, "answered"), (1, "answered")]
    assert camera.closed


async def test_nothing_begins_once_the_consumer_has_stopped() -> None:
    """What is ended frees the compute thread, but not for the frame that waits."""
    camera, device = Camera(), Device()
    results = taken(device.newest, camera.frames())
    first = asyncio.create_task(anext(results))
    camera.gives(0)
    await settled()
    camera.gives(1, 2)
    assert (await asyncio.wait_for(first, 10)).metadata == 1
    await results.aclose()
    await settled()
    assert device.begun == device.cancelled == [0]
    assert camera.closed
    left = {task.get_name() for task in asyncio.all_tasks()} - {asyncio.current_task().get_name()}  # type: ignore[union-attr]
    assert not left


@pytest.mark.parametrize("before", ["computed", "not computed"])
async def test_what_no_frame_may_raise_is_raised_to_the_consumer(before: str) -> None:
    """And is neither swallowed nor a reason to wait for ever."""

    async def take(given: Given, taken_s: float, computed: Callable[[], None]) -> Result:
        if before == "computed":
            computed()
        await asyncio.sleep(0)
        raise ZeroDivisionError("a defect")

    camera = Camera()
    camera.gives(0, 1)
    newest = Newest(take, Device().expire, 3)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(take_all(taken(newest, camera.frames()), []), 10)
    gc.collect()  # a task whose exception nobody took would say so now


async def test_a_consumer_that_does_not_read_bounds_what_is_kept() -> None:
    camera, device = Camera(), Device()
    camera.gives(*range(10 * MOST_UNREAD))
    results = taken(device.newest, camera.frames())
    assert (await asyncio.wait_for(anext(results), 10)).outcome is Outcome.EXPIRED
    await settled()
    for _ in range(100):
        await asyncio.sleep(0)
    assert camera.given <= MOST_UNREAD + 4
    for _ in range(MOST_UNREAD):
        await anext(results)
    await settled()
    assert MOST_UNREAD + 4 < camera.given <= 2 * MOST_UNREAD + 4
    await results.aclose()


async def test_in_order_keeps_the_order_and_the_window() -> None:
    ends = [asyncio.Event() for _ in range(6)]
    begun: list[int] = []

    async def take(given: Given) -> Result:
        begun.append(given.metadata)
        await ends[given.metadata].wait()
        return result(given, Outcome.ANSWERED)

    found: list[tuple[Any, str]] = []
    frames = [Given(metadata=i) for i in range(6)]
    reading = asyncio.create_task(take_all(ordered(frames, take, 3), found))
    await settled()
    assert begun == [0, 1, 2]
    ends[2].set()
    ends[1].set()
    await settled()
    assert found == []
    assert begun == [0, 1, 2]
    ends[0].set()
    await settled()
    assert [name for name, _ in found] == [0, 1, 2]
    assert begun == [0, 1, 2, 3, 4, 5]
    for end in ends:
        end.set()
    await asyncio.wait_for(reading, 10)
    assert [name for name, _ in found] == list(range(6))


async def test_in_order_gives_what_was_taken_in_before_the_source_raised() -> None:
    camera = Camera()
    camera.gives(0, 1)
    camera.ends(OSError("the file is gone"))

    async def take(given: Given) -> Result:
        await asyncio.sleep(0)
        return result(given, Outcome.ANSWERED)

    found: list[tuple[Any, str]] = []
    with pytest.raises(OSError, match="the file is gone"):
        await take_all(ordered(camera.frames(), take, 4), found)
    assert found == [(0, "answered"), (1, "answered")]


async def test_every_live_frame_of_an_agent_is_counted_once(
    worker: FakeWorker, pixels: np.ndarray, tmp_path: Path
) -> None:
    broken = SplitpointError("no picture")

    async def camera() -> AsyncIterator[Given]:
        """Three frames at once, and one that is not overtaken."""
        for number in range(40):
            answered = agent.outcomes[Outcome.ANSWERED]
            if number == 20:
                yield Given(error=broken, metadata=number)
                await asyncio.sleep(0.05)  # it is not overtaken
                continue
            yield Given(inputs={"pixels": pixels[:1]}, metadata=number)
            if number % 4 == 0:
                await until(lambda: agent.outcomes[Outcome.ANSWERED] > answered)  # noqa: B023
            await asyncio.sleep(0)

    async with EdgeAgent(
        worker.address, connect=worker.connect, split="1", codec="raw", cache=tmp_path, slowdown=20
    ) as agent:
        results = [one async for one in agent.stream(camera(), live=True)]
        by_name = {one.metadata: one for one in results}
        assert sorted(by_name) == list(range(40))
        assert len(results) == sum(agent.outcomes.values()) == 40
        assert by_name[20].error is broken or by_name[20].outcome is Outcome.EXPIRED
        for outcome, count in agent.outcomes.items():
            assert count == sum(one.outcome is outcome for one in results)
        assert agent.outcomes[Outcome.ANSWERED] >= 5
        assert agent.outcomes[Outcome.EXPIRED] >= 1
        assert by_name[39].outcome is not Outcome.EXPIRED  # none came after it
        late = next(one for one in results if one.outcome is Outcome.EXPIRED)
        assert isinstance(late.error, FrameExpiredError)
        assert "newer frame" in late.why
        assert len({one.id for one in results}) == 40


async def test_a_frame_that_is_let_go_does_not_hold_the_device(
    small_bundle: Bundle, pixels: np.ndarray
) -> None:
    """Else none would begin after it where frames wait for the device."""
    observer = SimpleNamespace(way=lambda *frame, **more: None, let_go=lambda number: True)
    present: Any = SimpleNamespace(observer=observer, plan=Plan(boundary=0, codec="raw"))
    nothing: Any = None
    prepared: Any = SimpleNamespace(manifest=small_bundle.manifest, labels=[])
    intake = Intake(
        prepared, nothing, present, local=nothing, budget_ms=100.0, count=FrameCount()
    )  # fmt: skip
    given, computed = Given(inputs={"pixels": pixels[:1]}), asyncio.Event()
    result = await intake.infer(given, time.perf_counter(), computed.set)
    assert result.outcome is Outcome.EXPIRED
    assert computed.is_set()


async def test_who_leaves_a_live_stream_early_leaves_nothing_running(
    worker: FakeWorker, pixels: np.ndarray, tmp_path: Path
) -> None:
    given = 0

    async def camera() -> AsyncIterator[Given]:
        nonlocal given
        while True:
            given += 1
            yield Given(inputs={"pixels": pixels[:1]})
            await asyncio.sleep(0.001)

    async with EdgeAgent(
        worker.address, connect=worker.connect, split="2", codec="raw", cache=tmp_path
    ) as agent:
        results = agent.stream(camera(), live=True)
        async for _ in results:
            if given > 5:
                break
        await results.aclose()
        seen = given
        await asyncio.sleep(0.05)
        assert given == seen
        assert not [t for t in asyncio.all_tasks() if t.get_name() == "live-source"]
        # The agent goes on, and its credits are all there.
        again = await asyncio.gather(*(agent.infer({"pixels": pixels}) for _ in range(8)))
        assert {one.outcome for one in again} == {Outcome.ANSWERED}
