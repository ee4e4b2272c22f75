"""Kernels that do not come back cost whom they befell; and an engine ends, whatever it is at."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping

import pytest
from patience import until
from slow_model import SlowModel, computes, status
from splitpoint.cloud.engine import executor, model_trials
from splitpoint.cloud.engine.engine import Engine
from splitpoint.cloud.engine.engines import Engines
from splitpoint.cloud.errors import ServeError
from splitpoint.codec import Array
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError

NEVER = 1 << 40


def hung_after(engine: Engine, seconds: float) -> None:
    """What begins from now on has so much time; nothing is to be late because a machine is busy."""
    engine.executor.hung_s = seconds


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


async def test_what_stands_still_with_all_the_process_does_not_hang(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a container is paused while it computes: on a GPU that would be the worker's end."""
    monkeypatch.setattr(executor, "MOST_LATE_S", 0.1)
    model, answers, began = SlowModel(1, ms=0.1), [], threading.Event()
    model.chain.on_step = lambda segment: began.set()
    model.chain.hangs.set()
    hung_after(engine, 0.5)
    engine.submit(model.request(0, answers))
    await until(began.is_set)
    threading.Timer(1.1, model.chain.hangs.clear).start()
    time.sleep(1)  # noqa: ASYNC251 - nothing goes on meanwhile
    await until(lambda: answers)
    assert not isinstance(answers[0], FrameError)
    assert engine.restarts == 0


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


async def test_a_head_that_hangs_is_left_behind(engine: Engine) -> None:
    model, answers = SlowModel(2, ms=0.1), []
    hangs, form = threading.Event(), model.form

    class Hanging:
        specs, outputs = form.specs, form.outputs

        def made(self, values: Mapping[str, Array]) -> dict[str, Array]:
            hangs.wait(10)
            return form.made(values)

    model.form = Hanging()  # type: ignore[assignment]
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
    lock, seen = engine.executor.lock, []

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

    engine.executor.lock = InThread()  # type: ignore[assignment]
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
            raise RuntimeError("the accelerator does not answer")

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
    await asyncio.to_thread(engine.executor.thread.join, 10)
    await asyncio.sleep(0.01)
    assert len(answers) == 1


async def test_stopping_does_not_wait_for_a_model_that_is_being_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executor, "LAST_CALL_S", 0.01)
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


async def test_a_call_between_two_steps_is_no_part_of_the_second(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that is loaded takes seconds; frames would be refused for long after that."""
    model, answers, happened = SlowModel(2, ms=1), [], []
    began, go_on, schedule = threading.Event(), threading.Event(), engine.schedule

    def hold(segment: int) -> None:
        began.set()
        go_on.wait(10)

    def noted(name: str) -> None:
        works = getattr(schedule, name)
        monkeypatch.setattr(schedule, name, lambda *args: (happened.append(name), works(*args))[1])

    model.chain.on_step = hold
    for name in ("done", "rest"):
        noted(name)
    engine.submit(model.request(0, answers))
    await until(began.is_set)
    call = asyncio.create_task(engine.on_compute_thread(lambda: None))
    await asyncio.sleep(0)
    go_on.set()
    await call
    await until(lambda: answers)
    assert happened == ["rest", "done", "rest", "done"]
