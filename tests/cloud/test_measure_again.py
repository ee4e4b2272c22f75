"""A worker without frames measures again, and plans with that; frames go first."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from splitpoint.cloud import measure_again as module
from splitpoint.cloud.measure_batches import Measured
from splitpoint.cloud.request import Request, ServedModel
from splitpoint.cloud.timing import Timing
from splitpoint.cloud.worker import Worker
from splitpoint.partition.bundle import Bundle
from splitpoint.partition.costs import CloudTimes


@pytest.fixture
async def worker(small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Worker]:
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    monkeypatch.setattr(module, "QUIET_S", 0.01)
    async with Worker([small_bundle.folder], listen="127.0.0.1:0", device="cpu") as worker:
        (model,) = worker.models.values()
        model.measure_again = None
        yield worker


def timing(model: ServedModel, ms: float) -> Timing:
    segments = len(model.batch_times)
    return Timing(
        runtime="torch", precision="fp32", at_s=0.0,
        announced=CloudTimes(segment_ms=(ms,) * segments),
        batches=Measured(
            rows=[{1: ms, 2: ms}] * segments, limit=2, padded=False, round_s={1: ms}, steady=True
        ),
    )  # fmt: skip


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(4000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come about")


async def test_an_idle_worker_takes_what_it_measured_again(worker: Worker) -> None:
    (model,) = worker.models.values()
    threads: list[str] = []

    def measure(check: Callable[[], None]) -> Timing:
        threads.append(threading.current_thread().name)
        check()
        return timing(model, 7.0)

    model.measure_again = measure
    await until(lambda: model.measure_again is None)
    assert threads == ["splitpoint-compute"]
    assert set(model.times.segment_ms) == {7.0}
    assert model.batch_times.max_batch == 2
    assert isinstance(await _answer(worker, model), dict)


async def test_a_frame_ends_a_measurement_and_nothing_is_taken_from_it(worker: Worker) -> None:
    (model,) = worker.models.values()
    before = model.times, model.batch_times
    began, ended = threading.Event(), threading.Event()

    def measure(check: Callable[[], None]) -> Timing:
        began.set()
        try:
            while True:  # segments of a long measurement
                check()
        finally:
            ended.set()

    model.measure_again = measure
    await until(began.is_set)
    assert isinstance(await _answer(worker, model), dict)
    assert ended.is_set()
    assert (model.times, model.batch_times) == before


async def test_one_that_fails_is_logged_and_not_tried_again(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    (model,) = worker.models.values()

    def measure(check: Callable[[], None]) -> Timing:
        raise RuntimeError("a runtime's own words")

    model.measure_again = measure
    await until(lambda: model.measure_again is None)
    await until(lambda: any("could not be measured again" in line for line in caplog.messages))
    assert isinstance(await _answer(worker, model), dict)


async def _answer(worker: Worker, model: ServedModel) -> object:
    spec = model.bundle.manifest.boundaries[0].tensors[0]
    answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    request: Any = Request(
        model=model, boundary=0, samples=1, deadline_s=float("inf"), client="",
        values={spec.name: np.zeros(spec.shape_at(1), spec.numpy_dtype)},
        answer=lambda request, result: answer.set_result(result), broke=lambda: None,
    )  # fmt: skip
    worker._engine.submit(request)
    return await asyncio.wait_for(answer, 20)
