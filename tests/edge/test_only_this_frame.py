"""What goes wrong with one frame costs that frame, or not even that: the device finishes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from splitpoint.codec import CodecError, SplitpointError
from splitpoint.edge import EdgeAgent, FakeWorker, Given, Outcome, Result
from splitpoint.edge.dispatch.dispatcher import Dispatcher
from splitpoint.edge.errors import FrameLostError
from splitpoint.edge.frames import edge_half
from splitpoint.edge.frames import path as frame_path
from splitpoint.edge.frames.edge_half import EdgeHalf
from splitpoint.edge.frames.local_finish import LocalFinish
from splitpoint.edge.frames.segments import Segments
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.compile.verify import relative_error
from splitpoint.partition.model_spec import ModelSpec

REFUSAL = CodecError("tensor 'relu_1' holds NaN", "use the codec raw")
NO_MEMORY = MemoryError("Unable to allocate 3 GiB")
DEFECT = ZeroDivisionError("a defect")
SEAMS = {
    "computing": (EdgeHalf, "compute"),
    "encoding": (edge_half, "encode_tensors"),
    "sending": (frame_path, "build_frame"),
    "answering": (frame_path, "decode_reply"),
}


@pytest.fixture
def expected(small: ModelSpec, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return small.module(torch.tensor(pixels)).numpy()


def third_fails(monkeypatch: pytest.MonkeyPatch, seam: tuple[Any, str], error: Exception) -> None:
    """The third call of it does, and all others go on as they are."""
    where, name = seam
    real: Callable[..., Any] = getattr(where, name)
    calls = 0

    def fails(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(where, name, fails)


async def results_of(agent: EdgeAgent, pixels: np.ndarray, live: bool) -> list[Result]:
    async def frames() -> AsyncIterator[Given]:
        for number in range(5):
            yield Given(inputs={"pixels": pixels}, metadata=number)
            for _ in range(20_000):  # one at a time, or a live source's would expire
                if sum(agent.outcomes.values()) > number:
                    break
                await asyncio.sleep(0.001)

    found = [result async for result in agent.stream(frames(), live=live)]
    return sorted(found, key=lambda result: result.metadata)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    ("where", "error", "finish", "outcome"),
    [
        ("computing", NO_MEMORY, True, Outcome.FAILED),  # nobody has anything to go on with
        ("encoding", REFUSAL, True, Outcome.LOCAL),
        ("encoding", REFUSAL, False, Outcome.FAILED),
        ("encoding", NO_MEMORY, True, Outcome.LOCAL),
        ("encoding", NO_MEMORY, False, Outcome.FAILED),
        ("sending", DEFECT, True, Outcome.LOCAL),
        ("answering", DEFECT, True, Outcome.LOCAL),
        ("answering", DEFECT, False, Outcome.FAILED),
    ],
)
async def test_one_frame_of_five(
    worker: FakeWorker,
    pixels: np.ndarray,
    expected: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    error: Exception,
    finish: bool,
    outcome: Outcome,
    live: bool,
) -> None:
    async with EdgeAgent(
        worker.address,
        connect=worker.connect,
        split="2",
        codec="raw",
        cache=tmp_path,
        finish_locally=finish,
    ) as agent:
        await agent.settled()
        third_fails(monkeypatch, SEAMS[where], error)
        results = await results_of(agent, pixels, live)
        counts = {Outcome.ANSWERED: 4, outcome: 1}
        assert agent.outcomes == {one: counts.get(one, 0) for one in Outcome}
    assert [result.metadata for result in results] == [0, 1, 2, 3, 4]
    third = results.pop(2)
    assert third.outcome is outcome
    for result in [*results, *([third] if finish and outcome is Outcome.LOCAL else [])]:
        assert relative_error(result.outputs["output"], expected) < 1e-4
    assert {result.outcome for result in results} == {Outcome.ANSWERED}
    if isinstance(error, SplitpointError):
        assert str(error) in third.why
    else:
        assert f"{type(error).__name__}: {error}" in third.why
    if outcome is Outcome.LOCAL:
        assert third.why.startswith("finished on the device: ")
    else:
        assert isinstance(third.error, (CodecError, FrameLostError))
        assert not third.outputs


async def test_a_finish_that_fails_too_fails_the_frame_alone(
    worker: FakeWorker, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EdgeAgent(
        worker.address, connect=worker.connect, split="2", codec="raw", cache=tmp_path
    ) as agent:
        await agent.settled()
        third_fails(monkeypatch, SEAMS["encoding"], REFUSAL)

        def no_memory(*args: Any) -> None:
            raise NO_MEMORY

        monkeypatch.setattr(LocalFinish, "run", no_memory)
        results = await results_of(agent, pixels, live=False)
        assert not agent.session.finish.busy
        assert agent.outcomes[Outcome.ANSWERED] == 4
        assert agent.outcomes[Outcome.FAILED] == 1
    assert isinstance(results[2].error, FrameLostError)
    assert "MemoryError" in results[2].why


async def test_inputs_that_are_no_arrays_fail_alone(
    small_bundle: Bundle, pixels: np.ndarray
) -> None:
    given = [Given(inputs={"pixels": inputs}) for inputs in (pixels, [1, 2], None, pixels)]
    async with EdgeAgent(None, bundle=small_bundle.folder) as agent:
        results = [result async for result in agent.stream(given)]
        assert agent.outcomes[Outcome.LOCAL] == agent.outcomes[Outcome.FAILED] == 2
    assert [bool(result.outputs) for result in results] == [True, False, False, True]
    assert all(result.error is not None for result in results[1:3])


async def test_a_defect_in_deciding_costs_no_frame(
    worker: FakeWorker,
    pixels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def defect(self: Dispatcher, now_s: float, key: int, samples: int) -> None:
        raise DEFECT

    monkeypatch.setattr(Dispatcher, "choose_waiting", defect)
    async with EdgeAgent(worker.address, connect=worker.connect, cache=tmp_path) as agent:
        await agent.settled()
        results = await results_of(agent, pixels, live=False)
        assert sum(agent.outcomes.values()) == 5
    assert {result.outcome for result in results} <= {Outcome.ANSWERED, Outcome.LOCAL}
    assert caplog.text.count("cannot decide which way") == 1


async def test_no_memory_for_the_segments_costs_the_finish_and_not_the_agent(
    worker: FakeWorker, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Segments.load

    def load(self: Segments, count: int) -> None:
        if count > 2:
            raise NO_MEMORY
        real(self, count)

    monkeypatch.setattr(Segments, "load", load)
    async with EdgeAgent(
        worker.address, connect=worker.connect, split="2", codec="raw", cache=tmp_path
    ) as agent:
        await agent.settled()
        assert not agent.can_finish
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
