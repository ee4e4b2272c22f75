"""What a finish on the device is expected to take, and what keeps its thread busy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest
from split_tables import codec_time, manifest_of, profile_of
from splitpoint.edge.dispatch.arms import finish_ms
from splitpoint.edge.frames.arrivals import Arrivals
from splitpoint.edge.frames.local_finish import LocalFinish
from splitpoint.edge.frames.order import Newest
from splitpoint.partition.bundle.segment_files import ONNX, TORCH
from splitpoint.partition.energy.radio import RADIOS
from splitpoint.partition.plan.costs import cost_table
from splitpoint.partition.profile.cloud_times import CloudTimes

SEGMENTS = 4
FOREVER_MS = 1e9  # so that nothing depends on how long the test takes


class Runner:
    """Segments that run until they are let go."""

    def __init__(self) -> None:
        self.loaded = 0
        self.ran: list[int] = []
        self.reached = [threading.Event() for _ in range(SEGMENTS)]
        self.let = [threading.Event() for _ in range(SEGMENTS)]

    def load(self, count: int) -> None:
        self.loaded = count

    def run(
        self,
        values: Mapping[str, Any],
        boundary: int,
        start: int,
        begins: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        for index in range(start, boundary):
            begins()
            self.ran.append(index)
            self.reached[index].set()
            assert self.let[index].wait(20)
        return dict(values)


class Prepared:
    def __init__(self) -> None:
        boundary = SimpleNamespace(tensors=())
        self.manifest = SimpleNamespace(
            stand_ins={}, segments=[None] * SEGMENTS, boundaries=[boundary] * (SEGMENTS + 1)
        )

    async def fetch_segments(self, count: int, runtime: str) -> None:
        pass


@pytest.fixture
def runner() -> Runner:
    return Runner()


@pytest.fixture
async def pool() -> AsyncIterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def finish_of(
    runner: Runner, pool: ThreadPoolExecutor, expected_ms: Mapping[int, float] | None = None
) -> LocalFinish:
    return LocalFinish(cast(Any, Prepared()), cast(Any, runner), pool, expected_ms or {})


async def until(event: threading.Event) -> None:
    for _ in range(20_000):
        if event.is_set():
            return
        await asyncio.sleep(0.001)
    pytest.fail("it does not happen")


async def test_a_finish_that_nobody_waits_for_ends_with_the_segment_that_it_is_in(
    runner: Runner, pool: ThreadPoolExecutor
) -> None:
    """Until then the thread is busy, whatever became of the frame; the rest never runs."""
    local = finish_of(runner, pool, {1: FOREVER_MS})
    runner.let[1].set()
    lost = asyncio.create_task(local.run({}, 1))
    await until(runner.reached[2])
    assert 0.9 * FOREVER_MS < local.backlog_ms <= FOREVER_MS
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)
    assert local.busy
    assert 0.3 * FOREVER_MS < local.backlog_ms <= FOREVER_MS / 3  # one of three segments
    runner.let[2].set()
    for _ in range(20_000):
        if not local.busy:
            break
        await asyncio.sleep(0.001)
    assert not local.busy
    assert local.backlog_ms == 0
    assert runner.ran == [1, 2]


async def test_a_finish_that_is_cancelled_before_it_begins_keeps_nothing_busy(
    runner: Runner, pool: ThreadPoolExecutor
) -> None:
    local = finish_of(runner, pool, {0: FOREVER_MS, 3: 5.0})
    first = asyncio.create_task(local.run({}, 3))
    await until(runner.reached[3])
    second = asyncio.create_task(local.run({}, 0))
    await asyncio.sleep(0)
    assert local.backlog_ms >= FOREVER_MS
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    await asyncio.sleep(0)
    assert local.backlog_ms <= 5.0
    runner.let[3].set()
    await first
    assert runner.ran == [3]
    assert not local.busy


async def test_a_live_frame_does_not_begin_behind_a_lost_finish(
    runner: Runner, pool: ThreadPoolExecutor
) -> None:
    """A newer one may come until the thread is free; what would wait for it may as well be new."""
    local = finish_of(runner, pool)
    lost = asyncio.create_task(local.run({}, 3))
    await until(runner.reached[3])
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)
    begun: list[bool] = []

    async def take(given: Any, taken_s: float, computed: Any) -> Any:
        begun.append(local.busy)
        computed()
        return given

    newest = Newest(take, lambda g, t: g, 4, busy=lambda: local.busy)
    arrivals = Arrivals([cast(Any, SimpleNamespace(metadata=0, still=False))])
    never = asyncio.get_running_loop().create_future()
    reading = asyncio.create_task(anext(newest.run(arrivals, never)))
    for _ in range(50):
        await asyncio.sleep(0)
    assert begun == []
    runner.let[3].set()
    await asyncio.wait_for(reading, 20)
    assert begun == [False]


async def test_a_finish_is_timed_where_no_profile_says_what_it_takes(
    runner: Runner, pool: ThreadPoolExecutor
) -> None:
    """As the segments are loaded: each once, in the runtime that finishes."""
    for event in runner.let:
        event.set()
    local = finish_of(runner, pool)
    assert not local.predicted_ms
    local.start()
    await local.wait()
    assert local.ready
    assert runner.ran == list(range(SEGMENTS))
    times = [local.expected_ms(boundary) for boundary in range(SEGMENTS + 1)]
    assert times == sorted(times, reverse=True)
    assert times[-1] == 0 < times[0]
    assert local.predicted_ms == dict(enumerate(times))


async def test_a_finish_that_the_profile_knows_is_not_timed(
    runner: Runner, pool: ThreadPoolExecutor
) -> None:
    local = finish_of(runner, pool, {0: 70.0})
    local.start()
    await local.wait()
    assert local.ready
    assert runner.ran == []
    assert local.expected_ms(0) == 70.0


@pytest.mark.parametrize(
    ("runtimes", "expected"),
    [
        ((ONNX,), {0: 100.0, 1: 80.0, 2: 0.0}),
        ((ONNX, TORCH), {0: 100.0, 1: 80.0, 2: 0.0}),
        ((TORCH, ONNX), {0: 200.0, 1: 160.0, 2: 0.0}),  # the second profile's times
        ((TORCH,), {}),
    ],
)
def test_a_finish_is_predicted_in_the_runtime_that_it_runs_in(
    runtimes: tuple[str, ...], expected: dict[int, float]
) -> None:
    """Which is float32 onnxruntime, whatever the plan's, and in whichever order they were timed."""
    codecs = [codec_time(0, "raw", 1e5), codec_time(1, "raw", 2e4)]
    profiles = [
        profile_of([20.0 * factor, 80.0 * factor], codecs, runtime=runtime)
        for factor, runtime in enumerate(runtimes, 1)
    ]
    table = cost_table(
        manifest_of(2), profiles, CloudTimes(segment_ms=(1.0, 4.0)), radio=RADIOS["wifi"]
    )
    assert finish_ms(table) == expected
