"""A worker without frames measures again, and plans with that; frames go first."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from local_worker import local_worker
from patience import until
from raw_client import RawClient
from slow_model import SlowModel
from splitpoint.cloud.compute.measure_batches import Measured
from splitpoint.cloud.compute.served_model import ServedModel
from splitpoint.cloud.compute.timing import Timing
from splitpoint.cloud.engine import measure_again as module
from splitpoint.cloud.engine.call_queue import CallQueue
from splitpoint.cloud.engine.engine import LOAD_EVERY_S, Engine
from splitpoint.cloud.engine.engines import Engines
from splitpoint.cloud.engine.request import Request
from splitpoint.cloud.gpu.weight_form import Form
from splitpoint.cloud.worker import Worker
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.proto import splitpoint_pb2 as pb


@pytest.fixture
async def worker(small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Worker]:
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    monkeypatch.setattr(module, "QUIET_S", 0.01)
    async with local_worker(small_bundle) as worker:
        (model,) = worker.models.values()
        model.measure_again = None
        yield worker


def timing(model: ServedModel, ms: float) -> Timing:
    segments = len(model.batch_times)
    return Timing(
        runtime="torch", form=Form(), at_s=0.0,
        announced=CloudTimes(segment_ms=(ms,) * segments),
        batches=Measured(
            rows=[{1: ms, 2: ms}] * segments, limit=2, padded=False, round_s={1: ms}, steady=True
        ),
    )  # fmt: skip


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


async def test_a_long_measurement_that_gives_way_keeps_nobody_out(worker: Worker) -> None:
    """It may take longer than a kernel may hang, and a frame still ends it at once."""
    (model,) = worker.models.values()
    (engine,) = worker.backend.engine.engines
    began, ahead_s = threading.Event(), 0.0
    engine.executor.calls = CallQueue(lambda: time.perf_counter() + ahead_s)

    def measure(check: Callable[[], None]) -> Timing:
        nonlocal ahead_s
        ahead_s = 1000.0  # that it is at it
        while True:
            check()
            began.set()

    model.measure_again = measure
    await until(began.is_set)
    assert engine.can_compute(model)
    assert isinstance(await _answer(worker, model), dict)


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


async def test_each_copy_of_a_model_is_measured_until_that_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of two devices was ready at once; the other one was disturbed, and has another try."""
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    monkeypatch.setattr(module, "QUIET_S", 0.01)
    copies: list[Any] = [SlowModel(2, ms=1), SlowModel(2, ms=1)]
    tries = [0, 0]

    def measuring(number: int) -> Callable[[Callable[[], None]], Timing | None]:
        def measure(check: Callable[[], None]) -> Timing | None:
            tries[number] += 1
            return timing(copies[number], 7.0) if tries[number] > number else None

        return measure

    for number, copy in enumerate(copies):
        copy.measure_again = measuring(number)
    engines = Engines([Engine(max_batch=8, max_queued_bytes=1 << 40) for _ in copies])
    model = await engines.load_model(lambda number: copies[number])
    engines.start()
    task = asyncio.create_task(module.measure_again({"digest": model}, engines))
    await until(lambda: all(copy.measure_again is None for copy in copies))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await engines.stop()
    assert tries == [1, 2]
    assert [set(copy.times.segment_ms) for copy in copies] == [{7.0}, {7.0}]


async def test_new_times_are_true_as_far_as_is_known(worker: Worker) -> None:
    """What was learned of the old ones, and of how wrong they were, says nothing of them."""
    (model,) = worker.models.values()
    (engine,) = worker.backend.engine.engines
    before = model.times
    rates = engine.schedule.rates
    async with RawClient(worker) as client:
        assert list((await client.hello()).segment_ms) == pytest.approx(before.segment_ms)
        rates.slowdown = 3.0
        model.measure_again = lambda check: timing(model, 7.0)
        await until(lambda: model.measure_again is None)
        assert rates.slowdown == 1.0
        await asyncio.sleep(LOAD_EVERY_S)
        await client.call.write(pb.ClientMessage(probe=pb.Probe(id=7)).SerializeToString())
        told = (await client.message()).probe.load
    # It goes by what it was told at first.
    assert told.slowdown * sum(before.segment_ms) == pytest.approx(7.0 * len(before.segment_ms))
    async with RawClient(worker) as client:
        welcome = await client.hello()
    assert welcome.load.slowdown == 1.0
    assert set(welcome.segment_ms) == {7.0}


async def _answer(worker: Worker, model: ServedModel) -> object:
    spec = model.bundle.manifest.boundaries[0].tensors[0]
    answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    request: Any = Request(
        model=model, boundary=0, samples=1, deadline_s=float("inf"), client="",
        values={spec.name: np.zeros(spec.shape_at(1), spec.numpy_dtype)},
        answer=lambda request, result: answer.set_result(result), broke=lambda: None,
    )  # fmt: skip
    worker.backend.engine.submit(request)
    return await asyncio.wait_for(answer, 20)
