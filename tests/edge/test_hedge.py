"""With hedging the device finishes what the cloud answers late, and the first to be done counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_faults import stalled
from patience import PATIENCE_S, until
from splitpoint.codec import Array, SplitpointError
from splitpoint.edge import EdgeAgent, FakeWorker, Outcome, Result
from splitpoint.edge.frames.hedge import ANSWERS, FEWEST_ANSWERS
from splitpoint.edge.frames.local_finish import LocalFinish
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.relative_error import relative_error

BUDGET_MS = 30_000.0
Run = Callable[..., Awaitable[tuple[dict[str, Array], float]]]


@pytest.fixture
def expected(small: ModelSpec, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return small.module(torch.tensor(pixels)).numpy()


def takes_usually(agent: EdgeAgent, ms: float, answers: int = ANSWERS) -> None:
    """As if so many had come in that time."""
    for _ in range(answers):
        agent.session.path.usual.answered(ms)


@asynccontextmanager
async def hedging(
    worker: FakeWorker,
    cache: Path,
    usual_ms: float,
    budget_ms: float = BUDGET_MS,
    answers: int = ANSWERS,
) -> AsyncIterator[EdgeAgent]:
    """An agent that takes answers to come within `usual_ms`; nothing of it may run at the end."""
    async with EdgeAgent(
        worker.address, connect=worker.connect, split="1", codec="raw", cache=cache,
        budget_ms=budget_ms, hedge=True,
    ) as agent:  # fmt: skip
        await agent.settled()
        takes_usually(agent, usual_ms, answers)
        yield agent
        running = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]
        assert not {name for name in running if "FramePath" in name or "LocalFinish" in name}
        assert agent.session.finish.backlog_ms == 0


def assert_right(result: Result, expected: np.ndarray, outcome: Outcome) -> None:
    assert result.outcome is outcome, result.why
    assert relative_error(result.outputs["output"], expected) < 1e-4


async def assert_all_credits_are_there(agent: EdgeAgent, pixels: np.ndarray) -> None:
    takes_usually(agent, BUDGET_MS)  # the device is not to begin
    results = await asyncio.gather(*(agent.infer({"pixels": pixels}) for _ in range(8)))
    assert {one.outcome for one in results} == {Outcome.ANSWERED}


def replace_run(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setattr(LocalFinish, "run", run)


async def test_an_answer_in_the_usual_time_costs_no_finish(
    worker: FakeWorker,
    pixels: np.ndarray,
    expected: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(self: LocalFinish, values: Mapping[str, Array], boundary: int) -> object:
        pytest.fail("the device began to finish")

    async with hedging(worker, tmp_path, 20_000) as agent:
        replace_run(monkeypatch, never)  # type: ignore[arg-type]
        assert_right(await agent.infer({"pixels": pixels}), expected, Outcome.ANSWERED)


async def test_the_device_is_first(
    worker: FakeWorker, pixels: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    """Long before the budget's end, and what is left of the frame at the worker is ended."""
    async with hedging(worker, tmp_path, 50) as agent:
        stream = agent.session.workers.stream
        assert stream is not None
        with stalled(worker):
            result = await agent.infer({"pixels": pixels})
            assert_right(result, expected, Outcome.LOCAL)
            assert "no answer within 50 ms" in result.why
            assert 50 <= result.total_ms < BUDGET_MS
        await assert_all_credits_are_there(agent, pixels)
        assert agent.session.workers.stream is stream
        assert stream.session.idle
        assert sum(agent.outcomes.values()) == 9


async def test_the_cloud_is_first_although_the_device_has_begun(
    worker: FakeWorker,
    pixels: np.ndarray,
    expected: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, ended = asyncio.Event(), list[str]()

    async def slow(self: LocalFinish, values: Mapping[str, Array], boundary: int) -> object:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async with hedging(worker, tmp_path, 10) as agent:
        replace_run(monkeypatch, slow)  # type: ignore[arg-type]
        with stalled(worker):
            frame = asyncio.create_task(agent.infer({"pixels": pixels}))
            await asyncio.wait_for(begun.wait(), PATIENCE_S)
        assert_right(await frame, expected, Outcome.ANSWERED)
        assert ended == ["cancelled"]


async def test_a_device_that_cannot_finish_leaves_the_frame_to_the_cloud(
    worker: FakeWorker,
    pixels: np.ndarray,
    expected: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    async def broken(self: LocalFinish, values: Mapping[str, Array], boundary: int) -> object:
        asked.append(boundary)
        raise SplitpointError("no memory left")

    async with hedging(worker, tmp_path, 10) as agent:
        replace_run(monkeypatch, broken)  # type: ignore[arg-type]
        with stalled(worker):
            frame = asyncio.create_task(agent.infer({"pixels": pixels}))
            await until(lambda: asked == [1])
        assert_right(await frame, expected, Outcome.ANSWERED)
        assert asked == [1]


async def test_where_neither_can_the_frame_ends_with_the_devices_reason(
    worker: FakeWorker, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: LocalFinish, values: Mapping[str, Array], boundary: int) -> object:
        raise SplitpointError("no memory left")

    async with hedging(worker, tmp_path, 10, 700) as agent:
        replace_run(monkeypatch, broken)  # type: ignore[arg-type]
        with stalled(worker):
            result = await agent.infer({"pixels": pixels})
            assert result.outcome is Outcome.FAILED
            assert "no memory left" in result.why
            assert sum(agent.outcomes.values()) == 1


async def test_a_worker_that_is_gone_is_found_out_although_the_device_is_always_first(
    worker: FakeWorker, pixels: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    """Else every frame would be sent into the void and wait for what usually suffices."""
    async with hedging(worker, tmp_path, 30) as agent:
        worker.link.stall()
        for _ in range(600):
            result = await agent.infer({"pixels": pixels})
            assert_right(result, expected, Outcome.LOCAL)
            if "has not answered lately" in result.why:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("frames go on waiting")


async def test_without_answers_to_compare_with_there_is_no_hedge(
    worker: FakeWorker, pixels: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    async with hedging(worker, tmp_path, 1, answers=FEWEST_ANSWERS - 1) as agent:
        with stalled(worker):
            frame = asyncio.create_task(agent.infer({"pixels": pixels}))
            await asyncio.sleep(0.3)
        assert_right(await frame, expected, Outcome.ANSWERED)


async def test_a_frame_that_nobody_waits_for_ends_both(
    worker: FakeWorker, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def slow(self: LocalFinish, values: Mapping[str, Array], boundary: int) -> object:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async with hedging(worker, tmp_path, 10) as agent:
        replace_run(monkeypatch, slow)  # type: ignore[arg-type]
        with stalled(worker):
            frame = asyncio.create_task(agent.infer({"pixels": pixels}))
            await asyncio.wait_for(begun.wait(), PATIENCE_S)
            frame.cancel()
            await asyncio.gather(frame, return_exceptions=True)
            assert ended.is_set()
        await assert_all_credits_are_there(agent, pixels)
