"""The scheduler under a virtual clock: promises kept, nobody starved, no time wasted."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from statistics import median

import pytest
from splitpoint.cloud.schedule.batch_times import BatchTimes
from splitpoint.cloud.schedule.job import Job
from splitpoint.cloud.schedule.outlook import Batching, Refused
from splitpoint.cloud.schedule.schedule import MOST_WAIT_S, Schedule


@dataclass(eq=False)
class Model:
    """Segments whose time grows with the batch by `share`: 1 for linearly, 0 for not at all."""

    ms: list[float]
    share: float
    max_batch: int = 128
    batch_times: BatchTimes = field(init=False)

    def __post_init__(self) -> None:
        sizes = [1, 2, 4, 8, 16, 32, 64, 128]
        self.batch_times = BatchTimes(
            [{n: ms * (1 + self.share * (n - 1)) for n in sizes} for ms in self.ms], self.max_batch
        )


@dataclass
class Outcome:
    """What became of a simulated load."""

    done_s: dict[Job, float] = field(default_factory=dict)
    refused: list[Job] = field(default_factory=list)
    dropped: list[Job] = field(default_factory=list)
    busy_s: float = 0.0
    end_s: float = 0.0
    samples: list[int] = field(default_factory=list)


def simulate(
    arrivals: list[tuple[float, Job]], batching: Batching = Batching.SUFFIX, cancel: float = 0.0
) -> Outcome:
    """The arrivals, at their times, on a device that takes exactly as long as it says."""
    schedule: Schedule[Job] = Schedule(128, batching)
    outcome, taken = Outcome(), set()
    waiting = list(reversed(arrivals))
    now_s, step_ends_s, step_s = 0.0, math.inf, 0.0
    chance = random.Random(1)
    while waiting or step_ends_s < math.inf:
        if waiting and waiting[-1][0] < step_ends_s:
            now_s, job = waiting.pop()
            try:
                promised_s = schedule.offer(now_s, job)
            except Refused:
                outcome.refused.append(job)
            else:
                assert promised_s <= job.deadline_s + 1e-9
                taken.add(job)
                job.cancelled = chance.random() < cancel
        else:
            now_s, step_ends_s = step_ends_s, math.inf
            outcome.busy_s += step_s
            for job in schedule.done(now_s, step_s):
                assert job not in outcome.done_s
                outcome.done_s[job] = now_s
        if step_ends_s == math.inf:
            step, dropped = schedule.next(now_s)
            outcome.dropped += dropped
            if step is None:
                assert schedule.queued == 0, "work is conserved"
                assert schedule.nbytes == 0
            else:
                step_s = step.planned_s
                step_ends_s = now_s + step_s
                outcome.samples.append(sum(j.samples for j in step.carried + step.joining))
    outcome.end_s = now_s
    assert taken == set(outcome.done_s) | set(outcome.dropped)
    return outcome


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
        )))  # fmt: skip
    return found


@pytest.mark.parametrize("batching", list(Batching))
@pytest.mark.parametrize("per_s", [50, 200, 800])
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


def test_a_greedy_client_leaves_room_for_the_others() -> None:
    """One asks for ten times what the device can do, another for a tenth: that one gets it."""
    model = Model([5.0, 5.0], 0.9)
    greedy = [(0.001 * n, Job(model=model, boundary=0, samples=1, deadline_s=0.001 * n + 0.3,
                              client="greedy")) for n in range(10_000)]  # fmt: skip
    modest = [(0.1 * n, Job(model=model, boundary=0, samples=1, deadline_s=0.1 * n + 0.3,
                            client="modest")) for n in range(100)]  # fmt: skip
    outcome = simulate(sorted(greedy + modest, key=lambda arrival: arrival[0]))
    assert not [job for job in outcome.refused if job.client == "modest"]
    served = [job for job in outcome.done_s if job.client == "greedy"]
    assert len(served) * model.batch_times.suffix_s(0, 32) / 32 > 0.8 * outcome.end_s


@pytest.mark.parametrize(("share", "per_s"), [(0.05, 4000), (0.9, 1000)])
def test_who_asks_for_little_does_not_wait_behind_who_asks_for_much(
    share: float, per_s: int
) -> None:
    """However much time it has itself, and however well its frames would fit into the others'."""
    model = Model([2.0] * 5, share)
    greedy = [(n / per_s, Job(model=model, boundary=n % 3, samples=1, client="greedy",
                              deadline_s=n / per_s + 0.3)) for n in range(3 * per_s)]  # fmt: skip
    modest = [(0.1 * n, Job(model=model, boundary=1, samples=1, client="modest",
                            deadline_s=math.inf)) for n in range(1, 30)]  # fmt: skip
    outcome = simulate(sorted(greedy + modest, key=lambda arrival: arrival[0]))
    assert not outcome.dropped, "at nobody's expense"
    waited_s = [outcome.done_s[job] - at_s for at_s, job in modest]
    theirs_s = [outcome.done_s[job] - at_s for at_s, job in greedy if job in outcome.done_s]
    assert max(waited_s) < 0.3 * median(theirs_s)


def test_who_has_one_frame_that_takes_long_gives_way_to_nobody() -> None:
    model = Model([10.0, 1.0], 1.0)
    schedule: Schedule[Job] = Schedule(1)
    long = [Job(model=model, boundary=0, samples=1, deadline_s=1.0, client=name) for name in "ab"]
    for job in long:
        schedule.offer(0.0, job)
    short = Job(model=model, boundary=1, samples=1, deadline_s=1.0, client="c")
    assert schedule.offer(0.0, short) == pytest.approx(0.023)
    assert not schedule.goes_first("c")
    schedule.offer(0.0, Job(model=model, boundary=0, samples=1, deadline_s=1.0, client="b"))
    assert schedule.goes_first("c")
    assert not schedule.goes_first("b")
    newcomer, last = (schedule.wait_s(0.0, model, 1, goes_first=first) for first in (True, False))
    assert newcomer == pytest.approx(0.023)
    assert last == pytest.approx(0.034)


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
    assert schedule.wait_s(60.0, model, 0) == pytest.approx(0.0)


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
