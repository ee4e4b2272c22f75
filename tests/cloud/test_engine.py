"""One engine: what runs together, what each request gets, and what one may do to the others."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from patience import until
from slow_model import SlowModel, answered, status
from splitpoint.cloud.engine.engine import Engine
from splitpoint.cloud.engine.request import Request
from splitpoint.cloud.schedule.outlook import Batching
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError

NEVER = 1 << 40


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    running = Engine(max_batch=64, max_queued_bytes=NEVER, hung_s=60)
    running.start()
    yield running
    await running.stop()


class Held:
    """A request whose first segment does not end before `go_on` is set."""

    def __init__(
        self, engine: Engine, model: SlowModel, answers: list[object], **over: Any
    ) -> None:
        self.go_on, self._began, self._step = threading.Event(), threading.Event(), None
        model.chain.on_step = self._wait
        engine.submit(model.request(0, answers, **over))

    def _wait(self, segment: int) -> None:
        self._began.set()
        self.go_on.wait(60)

    async def begun(self) -> Held:
        """Once it is being computed."""
        await asyncio.to_thread(self._began.wait, 60)
        return self


def statuses(answers: list[object]) -> list[int]:
    return [status(answer) for answer in answers]


async def test_frames_that_entered_apart_go_on_together(engine: Engine) -> None:
    model, answers = SlowModel(3, ms=30), []
    held = await Held(engine, model, answers).begun()
    for boundary in (1, 1, 2, 0):
        engine.submit(model.request(boundary, answers))
    held.go_on.set()
    await answered(answers, 5)
    assert model.chain.runs == [(0, 1), (1, 3), (2, 4), (0, 1), (1, 1), (2, 1)]


async def test_batching_by_boundary_keeps_them_apart() -> None:
    engine = Engine(max_batch=3, max_queued_bytes=NEVER, batching=Batching.BOUNDARY)
    engine.start()
    model, answers = SlowModel(2, ms=20), []
    held = await Held(engine, model, answers).begun()
    for boundary in (1, 0, 1, 1, 1, 0):
        engine.submit(model.request(boundary, answers))
    held.go_on.set()
    await answered(answers, 7)
    await engine.stop()
    assert model.chain.runs == [(0, 1), (1, 1), (1, 3), (0, 2), (1, 2), (1, 1)]


async def test_every_answer_is_its_own(engine: Engine) -> None:
    """Random arrivals at random boundaries, several samples in some: nobody's rows are swapped."""
    models = [SlowModel(5, ms=1), SlowModel(2, ms=2)]
    chance, results = random.Random(0), {}
    for number in range(300):
        model = chance.choice(models)
        boundary, samples = chance.randrange(len(model.chain)), chance.choice((1, 1, 3))

        def note(request: Request, result: object, number: int = number) -> None:
            results[number] = (request, result)

        engine.submit(model.request(boundary, [], number, samples=samples, answer=note,
                                    client=str(number)))  # fmt: skip
        if chance.random() < 0.3:
            await asyncio.sleep(chance.choice((0, 0.002, 0.01)))
    for _ in range(1000):
        if len(results) == 300:
            break
        await asyncio.sleep(0.01)
    assert max(size for model in models for _, size in model.chain.runs) > 8
    for number, (request, result) in results.items():
        model, before = request.model, np.full((request.samples, 4), number, np.float32)
        assert isinstance(result, dict), result
        (got,) = result.values()
        np.testing.assert_array_equal(got, model.expected(request.boundary, before))
        assert request.queued_s <= request.started_s <= request.finished_s


async def test_a_late_frame_is_refused_at_once_with_its_wait(engine: Engine) -> None:
    model, answers = SlowModel(1, ms=100), []
    held = await Held(engine, model, answers, client="first").begun()
    with pytest.raises(FrameError, match=r"would wait \d+ ms and compute 100 ms") as caught:
        engine.submit(model.request(0, answers, deadline_s=time.perf_counter() + 0.09))
    assert caught.value.status == pb.OVERLOADED
    held.go_on.set()
    await answered(answers, 1)


async def test_memory_for_waiting_frames_is_bounded() -> None:
    engine = Engine(max_batch=1, max_queued_bytes=100)
    engine.start()
    model, answers = SlowModel(1, ms=20), []
    engine.submit(model.request(0, answers, nbytes=1000))  # alone, any frame may
    with pytest.raises(FrameError, match="wait already"):
        engine.submit(model.request(0, answers, nbytes=1))
    await answered(answers, 1)
    engine.submit(model.request(0, answers, nbytes=60))
    await engine.stop()


async def test_stop_answers_what_waits(engine: Engine) -> None:
    model, answers = SlowModel(2, ms=1), []
    held = await Held(engine, model, answers).begun()
    engine.submit(model.request(0, answers))
    stopping = asyncio.create_task(engine.stop())
    await asyncio.sleep(0.05)
    assert answers == []  # a step that is being computed is waited for
    held.go_on.set()
    await stopping
    assert statuses(answers) == [pb.STOPPING, pb.STOPPING]


async def test_expired_and_cancelled_while_they_wait(engine: Engine) -> None:
    model, answers = SlowModel(1, ms=1), []
    held = await Held(engine, model, answers).begun()
    gone = model.request(0, answers, 2.0)
    engine.submit(gone)
    gone.cancelled = True
    late = model.request(0, answers, 3.0)
    engine.submit(late)
    late.deadline_s = time.perf_counter()
    held.go_on.set()
    await answered(answers, 3)
    assert sorted(statuses(answers)) == [pb.OK, pb.EXPIRED, pb.CANCELLED]


async def test_a_poisoned_frame_fails_alone(engine: Engine) -> None:
    model, answers, broke = SlowModel(3, ms=20), [], []
    model.chain.poison = 2 * 7.0  # as the second segment sees it
    results: dict[int, object] = {}
    held = await Held(engine, model, answers, value=0.0).begun()
    for value in range(5, 11):
        engine.submit(model.request(
            0, answers, value, broke=lambda value=value: broke.append(value),
            answer=lambda request, result, value=value: results.__setitem__(value, result),
        ))  # fmt: skip
    held.go_on.set()
    await answered(answers, 1)
    for _ in range(400):
        if len(results) == 6:
            break
        await asyncio.sleep(0.01)
    assert broke == [7]
    error = results.pop(7)
    assert isinstance(error, FrameError)
    assert error.status == pb.INTERNAL
    assert str(error) == "computing failed (ValueError)"  # what it says may name files
    for value, result in results.items():
        (got,) = result.values()
        np.testing.assert_array_equal(got, model.expected(0, np.full((1, 4), value, np.float32)))


async def test_too_large_for_memory_is_halved_and_remembered(engine: Engine) -> None:
    model, answers = SlowModel(2, ms=10), []
    model.chain.room = 3
    for round_ in range(2):
        held = await Held(engine, model, answers, client="first").begun()
        for number in range(8):
            engine.submit(model.request(0, answers, client=str(number)))
        held.go_on.set()
        await answered(answers, 9 * (round_ + 1))
        if round_ == 0:
            model.chain.runs.clear()
    assert statuses(answers) == [pb.OK] * 18
    # Eight were too many, then four; two fit. The second time nobody tries more.
    assert [size for segment, size in model.chain.runs if segment == 0] == [1, 2, 2, 2, 2]


async def test_a_kernel_that_hangs_is_left_behind(engine: Engine) -> None:
    model, answers, broke = SlowModel(1, ms=5), [], []
    stuck: list[threading.Thread] = []
    model.chain.on_step = lambda segment: stuck.append(threading.current_thread())
    model.chain.hangs.set()
    engine.executor.hung_s = 0.2
    engine.submit(model.request(0, answers, broke=lambda: broke.append(1)))
    await until(lambda: stuck)
    engine.executor.hung_s = 60
    queued: list[object] = []
    engine.submit(model.request(0, queued))
    await answered(answers, 1)
    model.chain.hangs.clear()
    assert statuses(answers) == [pb.INTERNAL]
    assert "did not come back" in str(answers[0])
    assert broke == [1]
    await answered(queued, 1)  # what waited is computed by the next thread
    assert statuses(queued) == [pb.OK]
    await asyncio.to_thread(stuck[0].join, 5)
    assert not stuck[0].is_alive()
    assert len(answers) == 1  # and what came of it in the end is told to nobody


async def test_an_answer_that_cannot_be_given_does_not_stop_the_engine(engine: Engine) -> None:
    model, answers = SlowModel(1, ms=1), []

    def broken(request: Request, result: object) -> None:
        raise ValueError("a stream that is gone")

    engine.submit(model.request(0, answers, answer=broken))
    engine.submit(model.request(0, answers))
    await answered(answers, 1)
    assert statuses(answers) == [pb.OK]


async def test_load_says_how_long_a_frame_would_wait_at_each_boundary(engine: Engine) -> None:
    model, answers = SlowModel(3, ms=50), []
    idle = engine.load(model)
    assert list(idle.wait_ms) == pytest.approx([0, 0, 0], abs=1e-6)
    assert idle.utilisation == 0
    held = await Held(engine, model, answers).begun()
    await asyncio.sleep(0.01)  # so long a load is told again as it was
    busy = engine.load(model)
    assert busy.queued == 1
    assert busy.wait_ms[0] > 99  # behind all of it
    assert busy.wait_ms[2] < 101  # together with it
    held.go_on.set()
    await answered(answers, 1)
    assert 0 < engine.load().utilisation <= 1
