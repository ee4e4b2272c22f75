"""What the cloud does not answer, the device finishes: at every boundary, after every fault."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from fake_faults import swallowed
from patience import PATIENCE_S, until
from splitpoint.edge import CacheError, EdgeAgent, FakeWorker, Outcome, Result
from splitpoint.edge.frames.local_finish import LocalFinish
from splitpoint.edge.link.breaker import FIRST_PAUSE_S, LONGEST_PAUSE_S, MOST_FAILURES, Breaker
from splitpoint.edge.link.connection import Connection
from splitpoint.edge.store.cache import BundleCache
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.relative_error import relative_error
from splitpoint.proto.backoff import Backoff
from splitpoint.proto.status import UnreachableError


@pytest.fixture
def expected(small: ModelSpec, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return small.module(torch.tensor(pixels)).numpy()


def agent_of(worker: FakeWorker, cache: Path, **options: object) -> EdgeAgent:
    given = {"split": "1", "codec": "raw", **options}
    return EdgeAgent(worker.address, connect=worker.connect, cache=cache, **given)


def assert_finished_here(result: Result, expected: np.ndarray, boundary: int) -> None:
    assert result.outcome is Outcome.LOCAL, result.why
    assert relative_error(result.outputs["output"], expected) < 1e-4
    assert result.boundary == boundary
    assert result.why.startswith("finished on the device: ")
    stages = result.stages_ms.to_json()
    assert 0.5 * result.total_ms < sum(stages.values()) <= result.total_ms + 0.01
    assert stages["cloud"] == stages["queue"] == 0


async def answered(agent: EdgeAgent, pixels: np.ndarray) -> None:
    """Frames go on until the cloud has answered one."""
    for _ in range(int(20 * PATIENCE_S)):
        if (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED:
            return
        await asyncio.sleep(0.05)
    pytest.fail("no frame goes to the cloud again")


async def loaded(agent: EdgeAgent) -> None:
    await agent.settled()
    assert agent.can_finish


@pytest.mark.parametrize("boundary", [0, 1, 2, 3])
async def test_a_lost_worker_costs_no_frame(
    worker: FakeWorker, pixels: np.ndarray, expected: np.ndarray, tmp_path: Path, boundary: int
) -> None:
    """Gone while frames are under way, and not back: all of them end with the model's answer."""
    async with agent_of(worker, tmp_path, split=str(boundary), budget_ms=20_000) as agent:
        first = await agent.infer({"pixels": pixels})
        assert first.outcome is Outcome.ANSWERED
        await loaded(agent)
        asking = [asyncio.create_task(agent.infer({"pixels": pixels})) for _ in range(3)]
        await asyncio.sleep(0)
        worker.cut()
        for result in [await task for task in asking]:
            assert relative_error(result.outputs["output"], expected) < 1e-4
        for _ in range(3):
            assert_finished_here(await agent.infer({"pixels": pixels}), expected, boundary)
        assert sum(agent.outcomes.values()) == 7
        assert agent.outcomes[Outcome.FAILED] == agent.outcomes[Outcome.EXPIRED] == 0


async def test_a_silent_worker_costs_the_budget_and_one_finish(
    worker: FakeWorker, pixels: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    async with agent_of(worker, tmp_path, budget_ms=300) as agent:
        await loaded(agent)
        with swallowed(worker):
            results = await asyncio.gather(*(agent.infer({"pixels": pixels}) for _ in range(3)))
            for result in results:  # although nothing ever comes back
                assert_finished_here(result, expected, 1)
                assert result.total_ms > 200
        await answered(agent, pixels)


async def test_frames_stop_waiting_for_a_worker_that_does_not_answer(
    worker: FakeWorker, pixels: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    """And go to the cloud again when it is back."""
    async with agent_of(worker, tmp_path, budget_ms=300) as agent:
        await loaded(agent)
        with swallowed(worker):
            results = [await agent.infer({"pixels": pixels}) for _ in range(12)]
            for result in results:
                assert_finished_here(result, expected, 1)
            assert all(result.total_ms > 200 for result in results[:MOST_FAILURES])
            for result in results[MOST_FAILURES:]:  # which waited for nobody
                assert "has not answered lately" in result.why
        await answered(agent, pixels)
        assert agent.outcomes[Outcome.FAILED] == agent.outcomes[Outcome.EXPIRED] == 0


async def test_time_for_the_finish_is_kept_within_the_budget(
    worker: FakeWorker, pixels: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    """Once a finish was timed, the cloud is given what the budget leaves beside one."""
    async with agent_of(worker, tmp_path, budget_ms=60_000) as agent:
        await loaded(agent)
        agent.session.finish.timed(1, 5 * 59_500.0)  # of which a fifth counts
        with swallowed(worker):
            result = await agent.infer({"pixels": pixels})
        assert_finished_here(result, expected, 1)
        assert 400 < result.total_ms < 30_000
        assert agent.session.finish.expected_ms(1) < 59_500


async def test_without_the_segments_a_frame_fails_and_says_why(
    worker: FakeWorker, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalFinish, "start", lambda self: None)
    async with agent_of(worker, tmp_path, budget_ms=500) as agent:
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
        worker.cut()
        result = await agent.infer({"pixels": pixels})
    assert result.outcome in (Outcome.FAILED, Outcome.EXPIRED)
    assert result.error is not None


async def test_what_is_missing_comes_with_the_next_stream(
    worker: FakeWorker, pixels: np.ndarray, tmp_path: Path
) -> None:
    async with agent_of(worker, tmp_path, budget_ms=500) as agent:
        await agent.session.finish.close()  # as if the link had been lost while they were fetched
        assert not agent.can_finish
        worker.cut()
        worker.mend()
        await answered(agent, pixels)
        await loaded(agent)


async def test_a_full_disk_costs_the_finish_and_not_the_agent(
    worker: FakeWorker,
    pixels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with agent_of(worker, tmp_path) as agent:
        await loaded(agent)
    shutil.rmtree(tmp_path)
    get, asked = BundleCache.get, []

    async def full(self: BundleCache, name: str, file: object) -> Path:
        asked.append(name)
        if "02" in name:
            raise CacheError("no space left")
        return await get(self, name, file)  # type: ignore[arg-type]

    monkeypatch.setattr(BundleCache, "get", full)
    async with agent_of(worker, tmp_path) as agent:
        await agent.settled()
        assert not agent.can_finish
        assert isinstance(agent.session.finish.error, CacheError)
        assert "cannot be finished on the device yet: no space left" in caplog.text
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED


async def test_who_does_not_want_it_fetches_nothing_more(
    worker: FakeWorker, small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    async with agent_of(worker, tmp_path, finish_locally=False) as agent:
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
        await asyncio.sleep(0.2)
    last = small_bundle.manifest.segments[-1].onnx
    assert not (tmp_path / small_bundle.digest / last).exists()


class Stream:
    """Echoes probes, unless told otherwise."""

    def __init__(self) -> None:
        self.echoes, self.probes = True, 0
        self.probed: Callable[[], None] = lambda: None
        self.broken, self.draining, self.heard_s = None, False, 0.0
        self.session = self

    async def probe(self, timeout_s: float) -> float:
        self.probes += 1
        self.probed()
        if not self.echoes:
            raise UnreachableError("lost")
        return 1.0

    async def live(self, timeout_s: float) -> Stream:
        return self

    @property
    def stream(self) -> Stream:
        return self


async def allowed(breaker: Breaker) -> None:
    await until(breaker.allows, "no frame was let through")


async def test_an_echo_alone_does_not_let_all_frames_wait_again() -> None:
    """A worker that echoes and answers nothing: one frame a second finds out."""
    stream = Stream()
    breaker = Breaker(cast(Connection, stream))
    assert all(breaker.allows() for _ in range(5))
    for _ in range(MOST_FAILURES):
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


class NotedPauses(Backoff):
    """Keeps what was waited for."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        super().__init__(first_s, longest_s)
        self.taken_s: list[float] = []

    def next_s(self) -> float:
        self.taken_s.append(super().next_s())
        return self.taken_s[-1]


async def test_probes_become_rare_and_end_with_the_agent() -> None:
    stream = Stream()
    stream.echoes = False
    pauses = NotedPauses(FIRST_PAUSE_S, LONGEST_PAUSE_S)
    breaker = Breaker(cast(Connection, stream), pauses)
    for _ in range(MOST_FAILURES):
        breaker.failed()
    await until(lambda: stream.probes >= 4)
    expected_s = [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S, LONGEST_PAUSE_S]
    assert pauses.taken_s[:4] == expected_s
    await breaker.close()
    assert "probe-worker" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_one_lost_frame_opens_nothing() -> None:
    breaker = Breaker(cast(Connection, Stream()))
    for _ in range(5):
        breaker.failed()
        assert breaker.allows()
        breaker.answered()
