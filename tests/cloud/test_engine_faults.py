"""What goes wrong in an engine costs whom it befell, is counted, and is over after that."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from patience import until
from slow_model import SlowModel, computes, status
from splitpoint.cloud.engine.engine import Engine
from splitpoint.cloud.engine.engines import Engines
from splitpoint.codec import Array
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError

# More samples than are computed together. ---------------------------------------------------


@pytest.mark.parametrize("max_batch", [1, 3, 8, 64])
async def test_a_frame_larger_than_a_batch_may_be_is_computed_in_pieces(
    engine: Engine, max_batch: int
) -> None:
    model, answers = SlowModel(3, ms=1, max_batch=max_batch), []
    values = np.arange(64, dtype=np.float32).reshape(16, 4)
    engine.submit(model.request(1, answers, samples=16, values={"t1": values}))
    await until(lambda: answers)
    assert isinstance(answers[0], dict), answers
    np.testing.assert_array_equal(answers[0]["t3"], model.expected(1, values))
    assert max(size for _, size in model.chain.runs) == min(max_batch, 8)
    assert engine.errors == 0


async def test_a_frame_that_memory_is_too_small_for_is_computed_in_pieces(engine: Engine) -> None:
    model, answers = SlowModel(2, ms=1), []
    model.chain.room = 3
    for _ in range(2):
        engine.submit(model.request(0, answers, samples=16))
    await until(lambda: len(answers) == 2)
    assert [status(answer) for answer in answers] == [pb.OK, pb.OK]
    assert max(size for _, size in model.chain.runs) == 2  # and not 3: it was halved until it fits


async def test_every_request_has_one_answer_whatever_happens(engine: Engine) -> None:
    """Real threads: batches of several rooms, cancels, late frames, poison, too little memory."""
    chance = random.Random(4)
    models = [SlowModel(4, ms=0.5, max_batch=room) for room in (1, 5, 64)]
    models[2].chain.room = 6
    for model in models:
        model.chain.poison = 2 * 13.0  # as the second segment sees it
    found: dict[int, list[object]] = {}
    for number in range(400):
        model, samples = chance.choice(models), chance.randint(1, 16)
        boundary, value = chance.randrange(4), float(chance.randrange(20))
        found[number] = []
        request = model.request(
            boundary, found[number], value, samples=samples, client=str(number % 40),
            deadline_s=time.perf_counter() + chance.choice((0.002, 0.05, 9.0)),
        )  # fmt: skip
        try:
            engine.submit(request)
        except FrameError as error:
            found[number].append(error)
            continue
        request.cancelled = chance.random() < 0.2
        await asyncio.sleep(chance.choice((0, 0, 0.001, 0.004)))
    await until(lambda: all(found.values()) and not engine.queued)
    await asyncio.sleep(0.02)  # for a second answer, if there were one
    assert {len(answers) for answers in found.values()} == {1}
    kinds = {status(answers[0]) for answers in found.values()}
    assert kinds <= {pb.OK, pb.OVERLOADED, pb.EXPIRED, pb.CANCELLED, pb.INTERNAL}
    assert pb.OK in kinds
    assert (engine.errors, engine.restarts, engine.queued_bytes) == (0, 0, 0)
    for model, room in zip(models, (1, 5, 6), strict=True):
        assert max(size for _, size in model.chain.runs) <= room


# Nothing is left behind. --------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
async def test_a_batch_that_all_have_left_between_two_segments_is_gone(
    engine: Engine, late: bool
) -> None:
    model, answers = SlowModel(3, ms=1), []
    held, go_on, requests = threading.Event(), threading.Event(), []

    def hold(segment: int) -> None:
        held.set()
        go_on.wait(10)

    model.chain.on_step = hold
    for number in range(2):
        requests.append(model.request(0, answers, client=str(number)))
        engine.submit(requests[-1])
    await until(held.is_set)
    for request in requests:
        request.cancelled, request.deadline_s = not late, 0.0 if late else 99.0
    gone = [weakref.ref(request) for request in requests]
    gone += [weakref.ref(request.values[name]) for request in requests for name in request.values]
    del request, requests
    go_on.set()
    await until(lambda: len(answers) == 2)
    assert {status(answer) for answer in answers} == {pb.EXPIRED if late else pb.CANCELLED}
    await until(lambda: gc.collect() is not None and not any(ref() for ref in gone))
    assert engine.queued == 0
    assert not engine.schedule.queued


# A head that chokes. -------------------------------------------------------------------------


async def test_a_head_that_fails_for_one_request_costs_the_others_of_its_batch_nothing(
    engine: Engine,
) -> None:
    model, answers = SlowModel(2, ms=1), dict[int, list[object]]()

    class Choking:
        specs, outputs = model.form.specs, model.form.outputs

        def made(self, values: Mapping[str, Array]) -> dict[str, Array]:
            found = {spec.name: values[spec.name] for spec in self.specs}
            if any((array == poison).all() for array in found.values()):
                raise IndexError("index 7 is out of bounds")
            return found

    held, go_on = threading.Event(), threading.Event()

    def hold(segment: int) -> None:
        held.set()
        go_on.wait(10)

    model.chain.on_step = hold
    poison = model.expected(0, np.float32(2))
    model.form = Choking()  # type: ignore[assignment]
    for number in range(4):
        answers[number] = []
        engine.submit(model.request(0, answers[number], float(number), client=str(number)))
    await until(held.is_set)
    go_on.set()
    await until(lambda: all(answers.values()))
    assert [status(answers[n][0]) for n in range(4)] == [pb.OK, pb.OK, pb.INTERNAL, pb.OK]
    assert "out of bounds" not in str(answers[2][0])


# What nobody thought of. --------------------------------------------------------------------


class Once:
    """Raises when it is first called, then calls what it stands for."""

    def __init__(self, holder: object, name: str, error: BaseException) -> None:
        self._call, self._error, self.raised = getattr(holder, name), error, False
        setattr(holder, name, self)

    def __call__(self, *args: Any, **named: Any) -> Any:
        if not self.raised:
            self.raised = True
            raise self._error
        return self._call(*args, **named)


@pytest.mark.parametrize("name", ["next", "done"])
@pytest.mark.parametrize("error", [IndexError("list index out of range"), SystemExit(1)])
async def test_an_exception_in_the_schedule_costs_its_batch(
    engine: Engine, name: str, error: BaseException
) -> None:
    model, answers = SlowModel(2, ms=1), []
    broken = Once(engine.schedule, name, error)
    engine.submit(model.request(0, answers))
    await until(lambda: answers)
    assert broken.raised
    assert status(answers[0]) == pb.INTERNAL
    assert "list index" not in str(answers[0])
    assert await computes(engine, model)
    assert (engine.errors, engine.restarts, engine.queued, engine.queued_bytes) == (1, 0, 0, 0)


@pytest.mark.parametrize("name", ["offer", "check", "wait_s"])
async def test_an_exception_in_planning_costs_one_frame(engine: Engine, name: str) -> None:
    model, answers = SlowModel(2, ms=1), []
    Once(engine.schedule, name, IndexError("list index out of range"))
    if name == "wait_s":
        assert list(engine.load(model).wait_ms) == []  # an answer goes without it
        await asyncio.sleep(0.01)
        assert list(engine.load(model).wait_ms) == pytest.approx([0, 0], abs=1e-6)
    else:
        with pytest.raises(FrameError, match=r"failed \(IndexError\)") as caught:
            getattr(engine, {"offer": "submit"}.get(name, name))(model.request(0, answers))
        assert caught.value.status == pb.INTERNAL
    assert await computes(engine, model)
    assert engine.errors == 1


@pytest.mark.parametrize("part", ["halves", "answers", "broke"])
async def test_an_exception_beside_a_segment_costs_its_batch(engine: Engine, part: str) -> None:
    model, answers = SlowModel(2, ms=1), []
    if part == "answers":
        Once(model.runner, "answers", RuntimeError("the device is gone"))
        engine.submit(model.request(0, answers))
    else:
        model.chain.poison = 1.0

        def broke() -> None:
            raise OSError("no")

        if part == "halves":
            Once(model.runner, "part", OSError("no"))
        go_on = threading.Event()
        blocker = SlowModel(1, ms=1)
        blocker.chain.on_step = lambda segment: go_on.wait(10)
        engine.submit(blocker.request(0, []))
        for value in (1.0, 2.0):
            engine.submit(model.request(0, answers, value, client=str(value), broke=broke))
        go_on.set()
    await until(lambda: len(answers) == (1 if part == "answers" else 2))
    assert pb.INTERNAL in {status(answer) for answer in answers}
    model.chain.poison = None
    assert await computes(engine, model)
    assert engine.restarts == 0


async def test_a_thread_that_has_ended_is_replaced_and_its_frames_answered(engine: Engine) -> None:
    model, answers = SlowModel(2, ms=1), []
    Once(engine.schedule, "next", IndexError("broken"))
    Once(engine.schedule, "abandon", IndexError("broken, too"))
    engine.submit(model.request(0, answers))
    await until(lambda: answers)
    assert status(answers[0]) == pb.INTERNAL
    await until(lambda: engine.restarts == 1)
    assert engine.can_compute(model)
    assert await computes(engine, model)


async def test_without_a_thread_frames_are_refused_until_there_is_one(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, answers = SlowModel(2, ms=1), []
    engines = Engines([engine])
    await engines.load_model(lambda number: model)  # type: ignore[arg-type, return-value]
    start, tried = threading.Thread.start, []

    def refused(thread: threading.Thread) -> None:
        if thread.name != "splitpoint-compute":
            return start(thread)
        tried.append(1)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    Once(engine.schedule, "next", IndexError("broken"))
    Once(engine.schedule, "abandon", IndexError("broken, too"))
    engine.submit(model.request(0, answers))
    await until(lambda: len(tried) > 1)
    assert status(answers[0]) == pb.INTERNAL
    assert not engines.can_compute
    with pytest.raises(FrameError, match="nothing can be computed") as caught:
        engine.submit(model.request(0, answers))
    assert caught.value.status == pb.OVERLOADED
    monkeypatch.setattr(threading.Thread, "start", start)
    await until(lambda: engines.can_compute)
    assert await computes(engine, model)
