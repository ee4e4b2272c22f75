"""A device under a virtual clock: it takes exactly as long as its scheduler was told."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from splitpoint.cloud.schedule.batch_times import BatchTimes
from splitpoint.cloud.schedule.job import Job
from splitpoint.cloud.schedule.outlook import Batching, Refused
from splitpoint.cloud.schedule.schedule import Schedule


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
