"""What the cloud does not answer, the device finishes: at every boundary, after every fault."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from splitpoint.cli.relay import Relay
from splitpoint.cloud.worker import Worker
from splitpoint.edge import CacheError, EdgeAgent, Outcome, Result
from splitpoint.edge.breaker import FAILURES, Breaker
from splitpoint.edge.cache import BundleCache
from splitpoint.edge.connection import Connection
from splitpoint.edge.local_finish import LocalFinish
from splitpoint.partition.bundle import Bundle
from splitpoint.partition.link import parse_link
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.relative_error import relative_error
from splitpoint.proto.status import UnreachableError

FAST = parse_link("1000mbps,0ms")


@pytest.fixture
async def worker(small_bundle: Bundle) -> AsyncIterator[Worker]:
    async with Worker([small_bundle.folder], listen="127.0.0.1:0", device="cpu") as running:
        yield running


@pytest.fixture
def expected(small: ModelSpec, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return small.module(torch.tensor(pixels)).numpy()


def assert_finished_here(result: Result, expected: np.ndarray, boundary: int) -> None:
    assert result.outcome is Outcome.LOCAL, result.why
    assert relative_error(result.outputs["output"], expected) < 1e-4
    assert result.boundary == boundary
    assert result.why.startswith("finished on the device: ")
    stages = result.stages_ms.to_json()
    assert 0.5 * result.total_ms < sum(stages.values()) <= result.total_ms + 0.01
    assert stages["cloud"] == stages["queue"] == 0


async def loaded(agent: EdgeAgent) -> None:
    await agent.settled()
    assert agent.can_finish


@pytest.mark.parametrize("boundary", [0, 1, 2, 3])
async def test_a_lost_worker_costs_no_frame(
    small_bundle: Bundle, pixels: np.ndarray, expected: np.ndarray, tmp_path: Path, boundary: int
) -> None:
    """Gone while frames are under way, and not back: all of them end with the model's answer."""
    worker = Worker([small_bundle.folder], listen="127.0.0.1:0", grace_s=0.1)
    await worker.__aenter__()
    async with EdgeAgent(
        worker.address, split=str(boundary), codec="raw", cache=tmp_path, budget_ms=2000
    ) as agent:
        first = await agent.infer({"pixels": pixels})
        assert first.outcome is Outcome.ANSWERED
        await loaded(agent)
        asking = [asyncio.create_task(agent.infer({"pixels": pixels})) for _ in range(3)]
        await asyncio.sleep(0)
        await worker.__aexit__(None, None, None)
        for result in [await task for task in asking]:
            assert relative_error(result.outputs["output"], expected) < 1e-4
        for _ in range(3):
            assert_finished_here(await agent.infer({"pixels": pixels}), expected, boundary)
        assert sum(agent.outcomes.values()) == 7
        assert agent.outcomes[Outcome.FAILED] == agent.outcomes[Outcome.EXPIRED] == 0


async def test_a_silent_worker_costs_the_budget_and_one_finish(
    worker: Worker, pixels: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    async with (
        Relay(worker.address, FAST) as relay,
        EdgeAgent(relay.address, split="1", codec="raw", cache=tmp_path, budget_ms=300) as agent,
    ):
        await loaded(agent)
        swallowing = asyncio.create_task(relay.black_hole(1.2))
        await asyncio.sleep(0.05)
        results = await asyncio.gather(*(agent.infer({"pixels": pixels}) for _ in range(3)))
        for result in results:
            assert_finished_here(result, expected, 1)
            assert 200 < result.total_ms < 700
        await swallowing
        for _ in range(40):
            result = await agent.infer({"pixels": pixels})
            if result.outcome is Outcome.ANSWERED:
                break
            await asyncio.sleep(0.1)
        assert result.outcome is Outcome.ANSWERED


async def test_frames_stop_waiting_for_a_worker_that_does_not_answer(
    worker: Worker, pixels: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    """And go to the cloud again within two seconds of its return."""
    async with (
        Relay(worker.address, FAST) as relay,
        EdgeAgent(relay.address, split="1", codec="raw", cache=tmp_path, budget_ms=300) as agent,
    ):
        await loaded(agent)
        swallowing = asyncio.create_task(relay.black_hole(2.5))
        await asyncio.sleep(0.05)
        results = [await agent.infer({"pixels": pixels}) for _ in range(12)]
        for result in results:
            assert_finished_here(result, expected, 1)
        assert all(result.total_ms > 200 for result in results[:FAILURES])
        assert all(result.total_ms < 150 for result in results[FAILURES:])
        assert "has not answered lately" in results[-1].why
        await swallowing
        back = time.perf_counter()
        while (await agent.infer({"pixels": pixels})).outcome is not Outcome.ANSWERED:
            assert time.perf_counter() - back < 2
            await asyncio.sleep(0.02)
        assert agent.outcomes[Outcome.FAILED] == agent.outcomes[Outcome.EXPIRED] == 0


async def test_time_for_the_finish_is_kept_within_the_budget(
    worker: Worker, pixels: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    """Once a finish was timed, the cloud is given what the budget leaves beside one."""
    async with (
        Relay(worker.address, FAST) as relay,
        EdgeAgent(
            relay.address, split="1", codec="raw", cache=tmp_path, budget_ms=600, slowdown=1
        ) as agent,
    ):
        await loaded(agent)
        assert agent._local is not None
        agent._local._ms[1] = 250.0
        swallowing = asyncio.create_task(relay.black_hole(2))
        await asyncio.sleep(0.05)
        result = await agent.infer({"pixels": pixels})
        assert_finished_here(result, expected, 1)
        assert 300 < result.total_ms < 500
        assert agent._local.expected_ms(1) < 250
        swallowing.cancel()
        await asyncio.gather(swallowing, return_exceptions=True)


async def test_without_the_segments_a_frame_fails_and_says_why(
    small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalFinish, "start", lambda self: None)
    worker = Worker([small_bundle.folder], listen="127.0.0.1:0", grace_s=0.1)
    await worker.__aenter__()
    async with EdgeAgent(
        worker.address, split="1", codec="raw", cache=tmp_path, budget_ms=500
    ) as agent:
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
        await worker.__aexit__(None, None, None)
        result = await agent.infer({"pixels": pixels})
    assert result.outcome in (Outcome.FAILED, Outcome.EXPIRED)
    assert result.error is not None


async def test_what_is_missing_comes_with_the_next_stream(
    worker: Worker, pixels: np.ndarray, tmp_path: Path
) -> None:
    async with (
        Relay(worker.address, FAST) as relay,
        EdgeAgent(relay.address, split="1", codec="raw", cache=tmp_path, budget_ms=500) as agent,
    ):
        assert agent._local is not None
        await agent._local.close()  # as if the link had been lost while they were fetched
        assert not agent._local.ready
        await relay.cut(0)
        for _ in range(40):
            if (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED:
                break
            await asyncio.sleep(0.05)
        await loaded(agent)


async def test_a_full_disk_costs_the_finish_and_not_the_agent(
    worker: Worker,
    pixels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with EdgeAgent(worker.address, split="1", codec="raw", cache=tmp_path) as agent:
        await loaded(agent)
    shutil.rmtree(tmp_path)
    get, asked = BundleCache.get, []

    async def full(self: BundleCache, name: str, file: object) -> Path:
        asked.append(name)
        if "02" in name:
            raise CacheError("no space left")
        return await get(self, name, file)  # type: ignore[arg-type]

    monkeypatch.setattr(BundleCache, "get", full)
    async with EdgeAgent(worker.address, split="1", codec="raw", cache=tmp_path) as agent:
        assert agent._local is not None
        await agent._local.wait()
        assert not agent._local.ready
        assert isinstance(agent._local.error, CacheError)
        assert "cannot be finished on the device yet: no space left" in caplog.text
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED


async def test_who_does_not_want_it_fetches_nothing_more(
    worker: Worker, small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    async with EdgeAgent(
        worker.address, split="1", codec="raw", cache=tmp_path, finish_locally=False
    ) as agent:
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
        await asyncio.sleep(0.2)
    last = small_bundle.manifest.segments[-1].onnx
    assert not (tmp_path / small_bundle.digest / last).exists()


class Stream:
    """Echoes probes, unless told otherwise."""

    def __init__(self) -> None:
        self.echoes, self.probes = True, 0
        self.broken, self.draining, self.heard_s = None, False, 0.0

    async def probe(self, timeout_s: float) -> float:
        self.probes += 1
        if not self.echoes:
            raise UnreachableError("lost")
        return 1.0

    async def live(self, timeout_s: float) -> Stream:
        return self

    @property
    def stream(self) -> Stream:
        return self


async def allowed(breaker: Breaker) -> None:
    for _ in range(300):
        if breaker.allows():
            return
        await asyncio.sleep(0.01)
    pytest.fail("no frame was let through")


async def test_an_echo_alone_does_not_let_all_frames_wait_again() -> None:
    """A worker that echoes and answers nothing: one frame a second finds out."""
    stream = Stream()
    breaker = Breaker(cast(Connection, stream))
    assert all(breaker.allows() for _ in range(5))
    for _ in range(FAILURES):
        breaker.failed()
    assert not breaker.allows()
    await allowed(breaker)
    assert stream.probes == 1
    assert not any(breaker.allows() for _ in range(5))  # one is on its way
    breaker.failed()
    assert not breaker.allows()
    await allowed(breaker)
    assert stream.probes == 2
    breaker.answered()
    assert all(breaker.allows() for _ in range(5))
    await breaker.close()


async def test_probes_become_rare_and_end_with_the_agent() -> None:
    stream = Stream()
    stream.echoes = False
    breaker = Breaker(cast(Connection, stream))
    for _ in range(FAILURES):
        breaker.failed()
    await asyncio.sleep(1.5)
    assert 3 <= stream.probes <= 8
    await breaker.close()
    before = stream.probes
    await asyncio.sleep(0.3)
    assert stream.probes == before


async def test_one_lost_frame_opens_nothing() -> None:
    breaker = Breaker(cast(Connection, Stream()))
    for _ in range(5):
        breaker.failed()
        assert breaker.allows()
        breaker.answered()
