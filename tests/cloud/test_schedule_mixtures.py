"""The scheduler under whatever may come: every job ends once, and no batch outgrows its room."""

from __future__ import annotations

import gc
import random
import weakref
from dataclasses import dataclass, field

import pytest
from splitpoint.cloud.schedule.batch import Step
from splitpoint.cloud.schedule.batch_times import BatchTimes
from splitpoint.cloud.schedule.job import Job
from splitpoint.cloud.schedule.outlook import Batching, Refused
from splitpoint.cloud.schedule.schedule import Schedule
from splitpoint.proto.limits import MAX_BATCH_PER_FRAME


@dataclass(eq=False)
class Model:
    """Three segments with room for `limit` samples, as it was measured."""

    limit: int
    batch_times: BatchTimes = field(init=False)

    def __post_init__(self) -> None:
        sizes = {n: 1.0 + 0.3 * n for n in (1, 2, 4, 8, 16, 32)}
        self.batch_times = BatchTimes([sizes] * 3, self.limit)


class Course:
    """A device with one schedule, and what became of every job that was offered to it."""

    def __init__(self, seed: int, max_batch: int, batching: Batching, models: list[Model]) -> None:
        self.chance, self.now_s, self.models = random.Random(seed), 0.0, models
        self.schedule: Schedule[Job] = Schedule(max_batch, batching)
        self.room = {model: min(max_batch, model.limit) for model in models}
        self.first_room = dict(self.room)
        self.outcome: dict[Job, str] = {}
        self.taken: list[Job] = []
        self.step: Step[Job] | None = None

    def arrive(self) -> None:
        job = Job(
            model=self.chance.choice(self.models),
            boundary=self.chance.randrange(3),
            samples=self.chance.randint(1, MAX_BATCH_PER_FRAME),
            deadline_s=self.now_s + self.chance.choice((0.01, 0.05, 0.2, 9.0)),
            client=str(self.chance.randrange(20)),
            nbytes=self.chance.randrange(100),
        )
        model = job.model
        assert self.schedule.wait_s(self.now_s, model, job.boundary, job.client) >= 0
        try:
            self.schedule.check(self.now_s, job)
            self.schedule.offer(self.now_s, job)
        except Refused:
            self.end([job], "refused")
        else:
            self.taken.append(job)

    def begin(self) -> None:
        self.step, dropped = self.schedule.next(self.now_s)
        self.end(dropped, "dropped")
        if self.step is None:
            return
        jobs, model = self.step.carried + self.step.joining, self.step.batch.model
        assert jobs, "nobody is computed for nobody"
        assert all(job in self.taken and job not in self.outcome for job in jobs)
        assert self.step.room == self.room[model]  # type: ignore[index]
        samples = sum(job.samples for job in jobs)
        assert len(jobs) == 1 or samples <= self.first_room[model]  # type: ignore[index]

    def finish(self) -> None:
        assert self.step is not None
        jobs, model = self.step.carried + self.step.joining, self.step.batch.model
        took_s = self.step.planned_s * self.chance.choice((0.5, 1.0, 1.0, 4.0))
        self.now_s += took_s
        self.step, how = None, self.chance.random()
        if how < 0.05:
            self.end(self.schedule.give_up(), "hung")
            return
        failed = [job for job in jobs if self.chance.random() < 0.05]
        if how < 0.1:
            failed = jobs
        elif how < 0.15:
            room = self.chance.randint(1, 8)
            self.schedule.shrink(model, room)
            self.room[model] = min(self.room[model], room)  # type: ignore[index]
        self.end(failed, "failed")
        self.end(self.schedule.done(self.now_s, took_s, failed), "done")

    def end(self, jobs: list[Job], outcome: str) -> None:
        for job in jobs:
            assert job not in self.outcome, (self.outcome.get(job), outcome)
            self.outcome[job] = outcome

    def run(self, moves: int) -> None:
        for _ in range(moves):
            for job in self.chance.sample(self.taken[-20:], min(2, len(self.taken))):
                job.cancelled |= self.chance.random() < 0.1
            if self.chance.random() < 0.6:
                self.now_s += self.chance.choice((0.0, 1e-4, 2e-3, 0.02))
                self.arrive()
            elif self.step is not None:
                self.finish()
            else:
                self.begin()
        if self.step is not None:
            self.finish()
        while self.schedule.queued:
            self.begin()
            if self.step is not None:
                self.finish()


@pytest.mark.parametrize("batching", list(Batching))
@pytest.mark.parametrize(
    ("max_batch", "limits"), [(128, (5, 16)), (8, (32, 8)), (3, (1, 2)), (1, (4,))]
)
def test_every_job_has_one_outcome(batching: Batching, max_batch: int, limits: list[int]) -> None:
    for seed in range(6):
        models = [Model(limit) for limit in limits]
        course = Course(seed, max_batch, batching, models)
        course.run(600)
        assert course.schedule.queued == course.schedule.nbytes == 0
        assert not course.schedule._cost_s
        assert set(course.taken) == {
            job for job, outcome in course.outcome.items() if outcome != "refused"
        }
        assert set(course.outcome.values()) == {"refused", "dropped", "failed", "done", "hung"}


def test_a_frame_larger_than_the_room_costs_what_its_pieces_cost() -> None:
    times = BatchTimes([{1: 1.0, 2: 1.5, 4: 2.0}, {1: 3.0, 4: 3.0}], 4)
    assert times.suffix_s(0, 16) == pytest.approx(4 * (2.0 + 3.0) / 1e3)
    assert times.suffix_s(1, 5) == pytest.approx((3.0 + 3.0) / 1e3)
    smaller = times.limited(2)
    assert smaller is times.limited(2)
    assert smaller.max_batch == 2
    assert smaller.suffix_s(0, 16) == pytest.approx(8 * (1.5 + 3.0) / 1e3)
    assert smaller.suffix_s(0, 1) == times.suffix_s(0, 1)
    assert times.limited(9) is times
    for found in (times, smaller):
        for row in found.seconds:
            assert len(row) == MAX_BATCH_PER_FRAME + 1
            assert row == sorted(row)


def test_where_all_fail_that_have_begun_the_others_begin_anew() -> None:
    model, schedule = Model(8), Schedule[Job](8)
    first, second = (
        Job(model=model, boundary=boundary, samples=1, deadline_s=9.0, client=str(boundary))
        for boundary in (0, 2)
    )
    schedule.offer(0.0, first)
    schedule.offer(0.0, second)
    step, _ = schedule.next(0.0)
    assert step is not None
    assert step.batch.jobs == [first, second]
    step.batch.progress = "rows of the first"
    assert schedule.done(0.01, 0.01, [first]) == []
    step, _ = schedule.next(0.01)
    assert step is not None
    assert (step.segment, step.carried, step.joining) == (2, [], [second])
    assert step.batch.progress is None
    assert step.batch.clients == {"2"}
    assert schedule.done(0.02, 0.01) == [second]


def test_who_has_not_begun_does_not_hang_with_the_others() -> None:
    model, schedule = Model(8), Schedule[Job](8)
    first, second = (
        Job(model=model, boundary=boundary, samples=1, deadline_s=9.0, client=str(boundary))
        for boundary in (0, 2)
    )
    schedule.offer(0.0, first)
    schedule.offer(0.0, second)
    schedule.next(0.0)
    assert schedule.give_up() == [first]
    assert schedule.queued == 1
    step, _ = schedule.next(20.0)
    assert step is None  # too late for it by then
    assert schedule.queued == 0


def test_what_goes_wrong_in_the_plan_costs_one_batch() -> None:
    model, broken = Model(8), Model(8)
    schedule = Schedule[Job](8)
    jobs = [
        Job(model=which, boundary=0, samples=1, deadline_s=9.0, client=str(number), nbytes=10)
        for number, which in enumerate((broken, model))
    ]
    for job in jobs:
        schedule.offer(0.0, job)
    broken.batch_times.seconds.clear()
    with pytest.raises(IndexError):
        schedule.next(0.0)
    assert schedule.abandon() == jobs[:1]
    assert (schedule.queued, schedule.nbytes) == (1, 10)
    step, _ = schedule.next(0.0)
    assert step is not None
    assert step.joining == jobs[1:]


def test_a_shrunk_model_that_is_gone_is_not_remembered() -> None:
    schedule, model = Schedule[Job](8), Model(8)
    schedule.shrink(model, 2)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_device_whose_steps_are_only_started_is_as_slow_as_it_is() -> None:
    """On a GPU a step is over at once; what it took shows when the answer is there."""
    model, schedule, now_s = Model(8), Schedule[Job](8), 0.0
    for number in range(600):
        schedule.offer(now_s, Job(model=model, boundary=0, samples=1, deadline_s=now_s + 9.0,
                                  client=str(number)))  # fmt: skip
        began_s = now_s
        for segment in range(3):
            step, _ = schedule.next(now_s)
            assert step is not None
            took_s = 1e-5
            if segment == 2:
                free_s = began_s + model.batch_times.suffix_s(0, 1)
                assert schedule.wait_s(now_s, model, 0, "") == pytest.approx(free_s - now_s)
                took_s = free_s - now_s
            now_s += took_s
            schedule.done(now_s, took_s)
        now_s += 0.005
    assert schedule.rates.slowdown == pytest.approx(1.0)
    assert schedule.rates.busy(now_s) == pytest.approx(0.44, abs=0.02)
