"""What goes wrong in an engine costs whom it befell, is counted, and is over after that."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from slow_model import SlowModel
from splitpoint.cloud.engine import computing, model_trials
from splitpoint.cloud.engine.engine import Engine
from splitpoint.cloud.engine.engines import Engines
from splitpoint.cloud.errors import ServeError
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError

NEVER = 1 << 40


@pytest.fixture
async def engine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    monkeypatch.setattr(computing, "WATCH_S", 0.02)
    monkeypatch.setattr(model_trials, "FIRST_PAUSE_S", 0.05)
    running = Engine(max_batch=8, max_queued_bytes=NEVER, hung_s=60)
    running.start()
    yield running
    await running.stop()


def hung_after(engine: Engine, seconds: float) -> None:
    """What begins from now on has so much time; nothing is to be late because a machine is busy."""
    engine.computing.hung_s = seconds


async def until(condition: Callable[[], object]) -> None:
    for _ in range(4000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it does not come")


def status(answer: object) -> int:
    return answer.status if isinstance(answer, FrameError) else pb.OK


async def computes(engine: Engine, model: SlowModel) -> bool:
    """Whether a frame is answered with what it should be."""
    answers: list[object] = []
    engine.submit(model.request(0, answers, 3.0))
    await until(lambda: answers)
    expected = model.expected(0, np.full((1, 4), 3.0, np.float32))
    return isinstance(answers[0], dict) and (answers[0][f"t{len(model.chain)}"] == expected).all()


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


# Kernels that do not come back. -------------------------------------------------------------


async def test_the_shortest_work_is_watched_too(engine: Engine) -> None:
    """It is not done on the event loop, which could then not see that it hangs."""
    model, answers, threads = SlowModel(1, ms=0.01), [], set()
    model.chain.on_step = lambda segment: threads.add(threading.current_thread().name)
    model.chain.hangs.set()
    hung_after(engine, 0.2)
    engine.submit(model.request(0, answers))
    await until(lambda: answers)
    hung_after(engine, 60)
    model.chain.hangs.clear()
    assert status(answers[0]) == pb.INTERNAL
    assert threads == {"splitpoint-compute"}
    await until(lambda: engine.can_compute(model))
    assert await computes(engine, model)


async def test_a_gpu_that_hangs_is_seen_where_its_answer_is_waited_for(engine: Engine) -> None:
    model, answers = SlowModel(2, ms=0.1), []
    hangs = threading.Event()
    model.chain.fetch = lambda value: (hangs.wait(10), value)[1]  # type: ignore[method-assign]
    hung_after(engine, 0.2)
    engine.submit(model.request(0, answers))
    await until(lambda: answers)
    hung_after(engine, 60)
    hangs.set()
    assert status(answers[0]) == pb.INTERNAL
    assert "did not come back" in str(answers[0])
    await until(lambda: engine.restarts >= 1 and engine.can_compute(model))
    assert await computes(engine, model)


async def test_a_step_that_has_just_ended_is_not_given_up(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog has seen that a step takes long, and before it acts the next one has begun."""
    slow, next_ = SlowModel(1, ms=0.1), SlowModel(1, ms=0.1)
    answers: list[object] = []
    began, go_on, next_began, end = (threading.Event() for _ in range(4))

    def hold(segment: int) -> None:
        began.set()
        go_on.wait(10)

    def hold_next(segment: int) -> None:
        next_began.set()
        end.wait(10)

    slow.chain.on_step, next_.chain.on_step = hold, hold_next
    lock, seen = engine.computing.lock, []

    class Late:
        """The event loop gets the lock when the step that it has seen is over."""

        def __enter__(self) -> None:
            is_watchdog = asyncio.current_task() and asyncio.current_task().get_name() == "watchdog"
            if is_watchdog and not seen:
                seen.append(1)
                hung_after(engine, 60)
                go_on.set()
                next_began.wait(10)
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    class InThread(Late):
        def __enter__(self) -> None:
            if threading.current_thread() is threading.main_thread():
                super().__enter__()
            else:
                lock.acquire()

    engine.computing.lock = InThread()  # type: ignore[assignment]
    hung_after(engine, 0.2)
    engine.submit(slow.request(0, answers))
    engine.submit(next_.request(0, answers))
    await until(lambda: seen)
    end.set()
    await until(lambda: len(answers) == 2)
    assert [status(answer) for answer in answers] == [pb.OK, pb.OK]
    assert engine.restarts == 0


async def test_a_model_that_hangs_for_zeros_too_is_refused_until_it_works(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, other, answers = SlowModel(2, ms=1), SlowModel(2, ms=1), []
    engines = Engines([engine])
    await engines.load_model(lambda number: model)  # type: ignore[arg-type, return-value]
    monkeypatch.setattr(model_trials, "FIRST_PAUSE_S", 1.0)  # time for the other model
    model.chain.hangs.set()
    hung_after(engine, 0.2)
    engine.submit(model.request(0, answers))
    await until(lambda: not engine.can_compute(model) and engine.restarts == 2)
    hung_after(engine, 60)
    assert not engines.can_compute
    assert status(answers[0]) == pb.INTERNAL
    with pytest.raises(FrameError, match="nothing can be computed") as caught:
        engine.submit(model.request(0, answers))
    assert caught.value.status == pb.OVERLOADED
    for told in (engine.load(model), engines.load(model)):  # nobody is to think it idle
        assert not told.wait_ms
    other_answers: list[object] = []
    engine.submit(other.request(0, other_answers))  # that is another model's trouble
    model.chain.hangs.clear()
    await until(lambda: other_answers)
    assert status(other_answers[0]) == pb.OK
    await until(lambda: engines.can_compute)
    assert await computes(engine, model)


async def test_a_device_on_which_every_step_fails_is_noticed(engine: Engine) -> None:
    model, answers = SlowModel(1, ms=0.1), []
    is_lost = True

    def fail(segment: int) -> None:
        if is_lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    model.chain.on_step = fail
    for number in range(model_trials.MOST_FAILED):
        engine.submit(model.request(0, answers))
        await until(lambda number=number: len(answers) > number)
    await until(lambda: not engine.can_compute(model))
    is_lost = False
    await until(lambda: engine.can_compute(model))
    assert await computes(engine, model)
    assert {status(answer) for answer in answers} == {pb.INTERNAL}


async def test_frames_that_break_batches_do_not_make_a_model_refused(engine: Engine) -> None:
    model, answers = SlowModel(1, ms=0.1), []
    model.chain.poison = 7.0
    for number in range(3 * model_trials.MOST_FAILED):
        engine.submit(model.request(0, answers, 7.0))
        await until(lambda number=number: len(answers) > number)
        assert engine.can_compute(model)
    assert await computes(engine, model)


async def test_frames_do_not_wait_for_a_model_that_takes_long_to_load(engine: Engine) -> None:
    model, answers, go_on = SlowModel(1, ms=1), [], threading.Event()
    call = asyncio.create_task(engine.on_compute_thread(go_on.wait, 60))
    await asyncio.sleep(0)
    engine.submit(model.request(0, answers))
    hung_after(engine, 0.05)
    await until(lambda: answers)
    assert status(answers[0]) == pb.OVERLOADED
    assert not engine.can_compute(model)
    with pytest.raises(FrameError, match="nothing can be computed"):
        engine.submit(model.request(0, answers))
    hung_after(engine, 60)
    go_on.set()
    await call
    assert engine.can_compute(model)
    assert await computes(engine, model)
    assert (engine.errors, engine.restarts) == (0, 0)


# The end. -----------------------------------------------------------------------------------


async def test_stopping_ends_calls_and_a_step_that_hangs() -> None:
    engine = Engine(max_batch=8, max_queued_bytes=NEVER, hung_s=0.1)
    engine.start()
    model, answers, began = SlowModel(1, ms=1), [], threading.Event()
    model.chain.on_step = lambda segment: began.set()
    model.chain.hangs.set()
    engine.submit(model.request(0, answers))
    await until(began.is_set)
    waiting = asyncio.create_task(engine.on_compute_thread(lambda: 1))
    await asyncio.sleep(0)
    await engine.stop()
    assert [status(answer) for answer in answers] == [pb.STOPPING]
    for call in (waiting, engine.on_compute_thread(lambda: 1)):
        with pytest.raises(ServeError, match="is stopping"):
            await asyncio.wait_for(call, 10)
    model.chain.hangs.clear()
    await asyncio.to_thread(engine.computing.thread.join, 10)
    await asyncio.sleep(0.01)
    assert len(answers) == 1


async def test_stopping_does_not_wait_for_a_model_that_is_being_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(computing, "LAST_CALL_S", 0.01)
    engine = Engine(max_batch=8, max_queued_bytes=NEVER, hung_s=60)
    engine.start()
    loading, go_on = threading.Event(), threading.Event()
    call = asyncio.create_task(
        engine.on_compute_thread(lambda: (loading.set(), go_on.wait(10)))  # type: ignore[func-returns-value]
    )
    await until(loading.is_set)
    await asyncio.wait_for(engine.stop(), 5)
    with pytest.raises(ServeError, match="is stopping"):
        await call
    go_on.set()


async def test_a_call_between_two_steps_is_no_part_of_the_second(engine: Engine) -> None:
    """A model that is loaded takes seconds; frames would be refused for long after that."""
    model, answers, since = SlowModel(2, ms=1), [], []
    began, go_on, done = threading.Event(), threading.Event(), engine.schedule.done

    def hold(segment: int) -> None:
        began.set()
        go_on.wait(10)

    def note(*given: Any) -> Any:
        since.append(engine.schedule._going_since_s)
        return done(*given)

    model.chain.on_step, engine.schedule.done = hold, note  # type: ignore[method-assign]
    engine.submit(model.request(0, answers))
    await until(began.is_set)
    call = asyncio.create_task(engine.on_compute_thread(lambda: None))
    await asyncio.sleep(0)
    go_on.set()
    await call
    await until(lambda: answers)
    assert since == [None, None]


# Several devices. ---------------------------------------------------------------------------


async def test_devices_with_different_rooms_take_the_same_frames() -> None:
    copies = [SlowModel(2, ms=5, max_batch=room) for room in (2, 5)]
    engines = Engines([Engine(max_batch=4, max_queued_bytes=NEVER) for _ in copies])
    model: Any = await engines.load_model(lambda number: copies[number])  # type: ignore[arg-type, return-value]
    engines.start()
    answers: list[object] = []
    for value in range(8):
        engines.submit(model.request(0, answers, float(value), samples=7, client=str(value)))
    await until(lambda: len(answers) == 8)
    await engines.stop()
    assert all(isinstance(answer, dict) for answer in answers), answers
    rooms = [max(size for _, size in copy.chain.runs) for copy in copies]
    assert rooms == [2, 4]


async def test_a_device_that_cannot_compute_gets_no_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(computing, "WATCH_S", 0.02)
    copies = [SlowModel(1, ms=5), SlowModel(1, ms=5)]
    own = [Engine(max_batch=4, max_queued_bytes=NEVER, hung_s=60) for _ in copies]
    engines = Engines(own)
    model: Any = await engines.load_model(lambda number: copies[number])  # type: ignore[arg-type, return-value]
    engines.start()
    answers: list[object] = []
    copies[0].chain.hangs.set()
    hung_after(own[0], 0.2)
    own[0].submit(copies[0].request(0, answers))
    await until(lambda: not own[0].can_compute(copies[0]))
    assert engines.can_compute
    assert list(engines.load(model).wait_ms) == pytest.approx([0.0], abs=1e-6)
    before = len(copies[0].chain.runs)
    for _ in range(4):
        engines.submit(model.request(0, answers))
    await until(lambda: len(answers) == 5)
    assert [status(answer) for answer in answers] == [pb.INTERNAL, *[pb.OK] * 4]
    assert len(copies[0].chain.runs) == before
    copies[0].chain.hangs.clear()
    await engines.stop()
