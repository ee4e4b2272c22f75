"""The scheduler under a virtual clock: promises kept, nobody starved, no time wasted."""

from __future__ import annotations

import math
import random

import pytest
from simulated_device import Model, simulate
from splitpoint.cloud.schedule.job import Job
from splitpoint.cloud.schedule.outlook import Batching, Refused
from splitpoint.cloud.schedule.schedule import MOST_WAIT_S, Schedule


def models() -> list[Model]:
    return [
        Model([2.0, 3.0, 5.0, 4.0, 1.0], 0.2),
        Model([1.0, 1.0, 8.0], 0.9),
        Model([0.5] * 8, 0.05),
    ]


def poisson(
    count: int, per_s: float, seed: int, *, clients: int = 50, budget_ms: tuple[float, ...]
) -> list[tuple[float, Job]]:
    chance, now_s, found = random.Random(seed), 0.0, []
    served = models()
    for _ in range(count):
        # Bursts, lulls, and all between.
        now_s += chance.expovariate(per_s) * chance.choice((0.1, 1.0, 1.9))
        model = chance.choice(served)
        found.append((now_s, Job(
            model=model,
            boundary=chance.randrange(len(model.ms)),
            samples=chance.choice((1, 1, 1, 1, 2, 5)),
            deadline_s=now_s + chance.choice(budget_ms) / 1e3,
            client=str(chance.randrange(clients)),
            nbytes=100,
            enter_s=chance.choice((0.0, 0.0, 0.0, 0.003)),
        )))  # fmt: skip
    return found


@pytest.mark.parametrize("batching", list(Batching))
@pytest.mark.parametrize("per_s", [50, 200, pytest.param(800, marks=pytest.mark.slow)])
def test_no_promise_is_broken(batching: Batching, per_s: float) -> None:
    """A hundred thousand arrivals in all, from little to far too much."""
    arrivals = poisson(12_000, per_s, 3, budget_ms=(20, 60, 150, 400, 3000, math.inf))
    outcome = simulate(arrivals, batching)
    assert len(outcome.done_s) + len(outcome.refused) == len(arrivals)
    assert not outcome.dropped
    late = [job for job, at_s in outcome.done_s.items() if at_s > job.deadline_s + 1e-9]
    assert not late
    assert len(outcome.done_s) > (0.8 if per_s == 50 else 0.1) * len(arrivals)
    if batching is Batching.NONE:
        assert max(outcome.samples) <= 5
    elif per_s == 800:
        assert max(outcome.samples) > 16


def test_cancelled_frames_leave_and_break_no_promise() -> None:
    arrivals = poisson(5_000, 300, 5, budget_ms=(60, 300, math.inf))
    outcome = simulate(arrivals, cancel=0.3)
    assert outcome.dropped
    assert all(job.cancelled for job in outcome.dropped)
    assert all(at_s <= job.deadline_s + 1e-9 for job, at_s in outcome.done_s.items())


@pytest.mark.parametrize(("share", "per_s"), [(0.05, 400), (0.05, 800), (0.2, 400)])
def test_meeting_on_the_way_beats_waiting_apart_where_batches_pay(
    share: float, per_s: float
) -> None:
    model = Model([4.0] * 6, share)
    chance, now_s, jobs = random.Random(2), 0.0, []
    for _ in range(3_000):
        now_s += chance.expovariate(per_s)
        jobs.append((now_s, chance.randrange(6)))

    def run(batching: Batching) -> tuple[int, float]:
        arrivals = [(at_s, Job(model=model, boundary=boundary, samples=1,
                               deadline_s=at_s + 1.0, client=str(number)))
                    for number, (at_s, boundary) in enumerate(jobs)]  # fmt: skip
        outcome = simulate(arrivals, batching)
        waited = [outcome.done_s[job] - at_s for at_s, job in arrivals if job in outcome.done_s]
        return len(waited), sum(waited) / len(waited)

    apart, together = run(Batching.BOUNDARY), run(Batching.SUFFIX)
    assert together[0] >= apart[0]
    assert together[1] < 0.7 * apart[1] or together[0] > 1.15 * apart[0]


def test_no_batch_is_made_that_does_not_pay() -> None:
    """Where two together take as long as one after the other, together only makes one wait."""
    model = Model([5.0, 5.0], 1.0)
    arrivals = [(0.001 * n, Job(model=model, boundary=0, samples=1, deadline_s=math.inf,
                                client=str(n))) for n in range(20)]  # fmt: skip
    assert max(simulate(arrivals).samples) == 1


def test_frames_without_a_budget_are_answered_among_urgent_ones() -> None:
    model = Model([5.0], 1.0)
    urgent = [(0.006 * n, Job(model=model, boundary=0, samples=1, deadline_s=0.006 * n + 0.05,
                              client=str(n))) for n in range(5_000)]  # fmt: skip
    patient = [(3.0 * n, Job(model=model, boundary=0, samples=1, deadline_s=math.inf,
                             client="patient")) for n in range(8)]  # fmt: skip
    outcome = simulate(sorted(urgent + patient, key=lambda arrival: arrival[0]))
    for at_s, job in patient:
        assert outcome.done_s[job] - at_s <= MOST_WAIT_S


def test_an_urgent_frame_goes_between_the_segments_of_a_long_batch() -> None:
    slow, quick = Model([100.0] * 5, 1.0), Model([5.0], 1.0)
    long = Job(model=slow, boundary=0, samples=1, deadline_s=math.inf, client="a")
    urgent = Job(model=quick, boundary=0, samples=1, deadline_s=0.01 + 0.15, client="b")
    outcome = simulate([(0.0, long), (0.01, urgent)])
    assert outcome.done_s[urgent] == pytest.approx(0.105)
    assert outcome.done_s[long] == pytest.approx(0.505)


def test_what_has_begun_is_interrupted_only_where_it_must() -> None:
    long, quick, schedule = Model([10.0, 10.0], 1.0), Model([5.0], 1.0), Schedule[Job](8)
    jobs = [Job(model=model, boundary=0, samples=1, deadline_s=deadline_s, client=str(deadline_s))
            for model, deadline_s in ((long, math.inf), (quick, 1.0), (quick, 0.02))]  # fmt: skip
    schedule.offer(0.0, jobs[0])
    assert schedule.next(0.0)[0] is not None
    assert [schedule.offer(0.0, job) for job in jobs[1:]] == pytest.approx([0.025, 0.015])


def test_what_is_late_already_makes_nobody_else_late() -> None:
    """Two meet in a batch, and the device is slow: one of them is late, the other is not yet."""
    model, quick, schedule = Model([10.0, 10.0], 0.0), Model([1.0], 1.0), Schedule[Job](8)
    late, in_time, urgent = (
        Job(model=which, boundary=0, samples=1, deadline_s=deadline_s, client=client)
        for which, deadline_s, client in (
            (model, 0.025, "a"), (model, 0.0285, "b"), (quick, 0.024, "c")
        )
    )  # fmt: skip
    schedule.offer(0.0, late)
    schedule.offer(0.0, in_time)
    assert schedule.next(0.0)[0] is not None
    schedule.done(0.018, 0.018)  # 8 ms too much: it will end at 28 ms
    with pytest.raises(Refused):
        schedule.offer(0.018, urgent)
    assert schedule.next(0.018)[0] is not None
    assert schedule.done(0.028, 0.01) == [late, in_time]


def test_a_refused_frame_learns_how_long_it_would_have_waited() -> None:
    model = Model([100.0], 1.0)
    schedule: Schedule[Job] = Schedule(32)
    for number in range(3):
        schedule.offer(0.0, Job(model=model, boundary=0, samples=1, deadline_s=math.inf,
                                client=str(number)))  # fmt: skip
    with pytest.raises(Refused, match="wait 300 ms and compute 100 ms") as refused:
        # It may not go ahead of the others: they were promised nothing as early, but it is late.
        schedule.offer(0.0, Job(model=model, boundary=0, samples=1, deadline_s=0.05, client="x"))
    assert refused.value.wait_s == pytest.approx(0.3)


def test_smaller_batches_after_memory_ran_out() -> None:
    model = Model([10.0], 0.0)
    schedule: Schedule[Job] = Schedule(32)
    schedule.shrink(model, 4)
    for number in range(9):
        schedule.offer(0.0, Job(model=model, boundary=0, samples=1, deadline_s=math.inf,
                                client=str(number)))  # fmt: skip
    sizes = []
    while (step := schedule.next(0.0)[0]) is not None:
        sizes.append(len(schedule.done(0.0, step.planned_s)))
    assert sum(sizes) == 9
    assert max(sizes) == 4


def test_rates_follow_a_slower_device() -> None:
    model = Model([10.0], 1.0)
    schedule: Schedule[Job] = Schedule(32)
    for number in range(60):
        job = Job(model=model, boundary=0, samples=1, deadline_s=math.inf, client=str(number))
        schedule.offer(float(number), job)
        step, _ = schedule.next(float(number))
        assert step is not None
        schedule.done(number + 0.03, 0.03)
    assert schedule.rates.slowdown == pytest.approx(3.0, rel=0.05)
    assert schedule.wait_s(60.0, model, 0, "") == pytest.approx(0.0)


def test_a_check_takes_nothing_and_says_what_an_offer_would() -> None:
    model = Model([100.0], 1.0)
    schedule: Schedule[Job] = Schedule(8)
    late = Job(model=model, boundary=0, samples=1, deadline_s=0.05, client="x")
    good = Job(model=model, boundary=0, samples=1, deadline_s=0.5, client="x")
    schedule.check(0.0, good)
    with pytest.raises(Refused):
        schedule.check(0.0, late)
    assert schedule.queued == 0
    schedule.offer(0.0, good)
    assert schedule.queued == 1


def test_what_a_client_has_being_decoded_counts_in_its_share() -> None:
    model = Model([10.0], 1.0)
    schedule: Schedule[Job] = Schedule(1)

    def job(decoding_s: float) -> Job:
        return Job(
            model=model, boundary=0, samples=1, deadline_s=0.3, client="a", decoding_s=decoding_s
        )

    schedule.check(0.0, job(0.0))
    schedule.check(0.0, job(0.5))  # with its own 10 ms, less than twice the 300 that are free
    with pytest.raises(Refused, match="its share"):
        schedule.check(0.0, job(0.6))
