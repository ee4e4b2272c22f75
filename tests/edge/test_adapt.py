"""An agent chooses a way for each frame: by its link, by what is loaded, by what the user says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from patience import until
from splitpoint.edge import EdgeAgent, FakeWorker, Given, Outcome, Result
from splitpoint.edge.dispatch.auto_plan import AutoPlan
from splitpoint.edge.dispatch.regime import FEWEST
from splitpoint.partition.plan.link import parse_link
from splitpoint.partition.plan.plan import NO_CODEC, Plan

FAST = parse_link("100mbps,1ms")
SLOW_MBPS, FAST_MBPS = 0.01, 100.0
SLOWDOWN = 300.0  # the net takes a fraction of a millisecond here: the worker is to be worth it
PATIENCE = 400  # frames


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: the device is profiled once."""
    return tmp_path_factory.mktemp("cache")


@asynccontextmanager
async def choosing(
    worker: FakeWorker, cache: Path, lines: list[str], **options: object
) -> AsyncIterator[EdgeAgent]:
    worker.link.uplink_mbps, worker.link.round_trip_ms = FAST_MBPS, 1.0
    fields: dict[str, object] = {"slowdown": SLOWDOWN, "budget_ms": 20_000.0} | options
    fields = {"auto": AutoPlan(link=FAST)} | fields
    async with EdgeAgent(worker.address, connect=worker.connect, cache=cache, **fields) as agent:
        agent.on_switch = lines.append
        await agent.settled()
        yield agent


async def infer_until(
    agent: EdgeAgent, done: Callable[[Result], bool], pixels: np.ndarray
) -> Result:
    for _ in range(PATIENCE):
        result = await agent.infer({"pixels": pixels[:1]})
        assert result.outcome in (Outcome.ANSWERED, Outcome.LOCAL), result.why
        if done(result):
            return result
        await asyncio.sleep(0.02)
    pytest.fail(f"still {result.boundary} as {result.codec}")


@pytest.mark.slow
async def test_frames_follow_the_link_there_and_back(
    worker: FakeWorker, pixels: np.ndarray, cache: Path
) -> None:
    lines: list[str] = []
    async with choosing(worker, cache, lines) as agent:
        first = await infer_until(agent, lambda result: result.bytes_up > 0, pixels)
        worker.link.uplink_mbps = SLOW_MBPS
        slow = await infer_until(agent, lambda r: r.bytes_up < first.bytes_up, pixels)
        assert slow.boundary > first.boundary
        worker.link.uplink_mbps = FAST_MBPS
        await infer_until(agent, lambda r: r.bytes_up == first.bytes_up, pixels)
        assert agent.uplink_mbps is not None
        assert agent.outcomes[Outcome.FAILED] == agent.outcomes[Outcome.EXPIRED] == 0
        for _ in range(FEWEST):
            await agent.infer({"pixels": pixels[:1]})
    assert lines
    assert all(line.startswith("uplink ") for line in lines)


async def test_who_does_not_adapt_keeps_the_plan(
    worker: FakeWorker, pixels: np.ndarray, cache: Path
) -> None:
    lines: list[str] = []
    async with choosing(worker, cache, lines, adapt=False) as agent:
        first = agent.plan
        worker.link.uplink_mbps = 0.05
        for _ in range(8):
            assert (await agent.infer({"pixels": pixels[:1]})).boundary == first.boundary
        assert (agent.plan, lines) == (first, [])
        assert agent.uplink_mbps is None


async def test_what_the_user_switches_to_stays(
    worker: FakeWorker, pixels: np.ndarray, cache: Path
) -> None:
    async with choosing(worker, cache, []) as agent:
        last = len(agent.manifest.segments)
        await agent.switch(Plan(boundary=last, codec=NO_CODEC))
        for _ in range(5):
            result = await agent.infer({"pixels": pixels[:1]})
            assert (result.outcome, result.boundary) == (Outcome.LOCAL, last)
        assert agent.is_local


async def test_a_live_source_is_answered_whatever_the_link_does(
    worker: FakeWorker, pixels: np.ndarray, cache: Path
) -> None:
    """Every frame has one outcome, and those that are let go say so."""

    async def camera(count: int) -> AsyncIterator[Given]:
        for number in range(count):
            await asyncio.sleep(0.03)
            if number == count // 3:
                worker.link.uplink_mbps = SLOW_MBPS
            if number == 2 * count // 3:
                worker.link.uplink_mbps = FAST_MBPS
            yield Given(inputs={"pixels": pixels[:1]}, metadata=number)

    async with choosing(worker, cache, [], budget_ms=600.0) as agent:
        results = [result async for result in agent.stream(camera(90), live=True)]
        assert sorted(result.metadata for result in results) == list(range(90))
        assert sum(agent.outcomes.values()) == 90
        assert agent.outcomes[Outcome.FAILED] == 0
        good = [r for r in results if r.outputs and r.total_ms <= 600]
        assert len(good) > 30
        for result in results:
            assert result.outputs or result.why


async def test_a_worker_that_dies_leaves_all_to_the_device_and_is_used_again(
    worker: FakeWorker, pixels: np.ndarray, cache: Path
) -> None:
    async with choosing(worker, cache, [], budget_ms=2000.0) as agent:
        await infer_until(agent, lambda result: result.outcome is Outcome.ANSWERED, pixels)
        worker.cut()
        for _ in range(3):
            result = await agent.infer({"pixels": pixels[:1]})
            assert result.outcome is Outcome.LOCAL, result.why
        assert agent.uplink_mbps == 0
        worker.mend()
        await infer_until(agent, lambda result: result.outcome is Outcome.ANSWERED, pixels)
        assert agent.uplink_mbps


async def test_a_stream_that_breaks_while_all_runs_here_is_opened_again(
    worker: FakeWorker, pixels: np.ndarray, cache: Path
) -> None:
    """No frame would do it: without, the device would never hear of a better link again."""
    async with choosing(worker, cache, [], budget_ms=1000.0) as agent:
        worker.link.uplink_mbps = SLOW_MBPS
        await infer_until(agent, lambda result: not result.bytes_up, pixels)
        stream = agent.session.workers.stream
        assert stream is not None
        await stream.close()
        worker.link.uplink_mbps = FAST_MBPS
        await infer_until(
            agent, lambda result: agent.session.workers.stream not in (None, stream), pixels
        )
        await until(lambda: agent.session.workers.stream is not stream)
