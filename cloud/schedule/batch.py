"""A planned batch: jobs of one model that enter at their own boundaries and end together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .batch_times import BatchTimes
from .job import Job, Timed

J = TypeVar("J", bound=Job)


class Batch(Generic[J]):
    """Starts at the lowest boundary of its jobs and takes in the others on its way.

    `at` is the segment that runs next. `counts[s]` is how many samples segment `s` will have.
    `progress` is what its owner has computed of it; it goes where the batch goes.
    """

    def __init__(self, job: J, times: BatchTimes) -> None:
        self.model: Timed = job.model
        self.times = times
        self.progress: Any = None
        self.jobs: list[J] = []
        self.clients: set[str] = set()  # whose jobs they are
        self.counts = [0] * len(self.times)
        self.at = job.boundary
        self.started = False
        self.deadline_s = math.inf
        self.remaining_s = 0.0
        self.add(job)

    @property
    def samples(self) -> int:
        """At the end, where all are together."""
        return self.counts[-1]

    def can_take(self, job: Job, max_batch: int) -> bool:
        """Whether the job's boundary still lies ahead, and there is room from there on."""
        return (
            job.model is self.model
            and (not self.started or job.boundary >= self.at)
            and self.samples + job.samples <= max_batch
        )

    def added_s(self, job: Job) -> float:
        """By how much later the batch ends with `job` in it."""
        counts, more, rows = self.counts, job.samples, self.times.seconds
        return job.enter_s + sum(
            rows[s][counts[s] + more] - rows[s][counts[s]] for s in range(job.boundary, len(counts))
        )

    def add(self, job: J) -> None:
        """Takes a job in."""
        self.remaining_s += self.added_s(job)
        for s in range(job.boundary, len(self.counts)):
            self.counts[s] += job.samples
        self.jobs.append(job)
        self.clients.add(job.client)
        self.at = min(self.at, job.boundary) if not self.started else self.at
        self.deadline_s = min(self.deadline_s, job.deadline_s)

    def has_begun(self, job: J) -> bool:
        """Whether the job's rows are among those that are being computed."""
        return self.started and job.boundary < self.at

    def remove(self, gone: Sequence[J]) -> None:
        """Lets jobs go. Where all go that have begun, it begins anew with the others."""
        self.jobs = [job for job in self.jobs if job not in gone]
        if self.started and not any(self.has_begun(job) for job in self.jobs):
            self.started, self.progress = False, None
        self._recount()

    @property
    def next_s(self) -> float:
        """What the segment at `at` takes, with what those who board there take to enter."""
        entering_s = sum(job.enter_s for job in self.jobs if job.boundary == self.at)
        return entering_s + self.times.seconds[self.at][self.counts[self.at]]

    def advance(self) -> None:
        """The segment at `at` begins: no one can board before it any more."""
        self.remaining_s -= self.next_s
        self.started = True
        self.at += 1

    def _recount(self) -> None:
        self.clients = {job.client for job in self.jobs}
        self.counts = [0] * len(self.counts)
        for job in self.jobs:
            for s in range(job.boundary, len(self.counts)):
                self.counts[s] += job.samples
        if not self.started and self.jobs:
            self.at = min(job.boundary for job in self.jobs)
        rows = self.times.seconds
        self.remaining_s = sum(rows[s][self.counts[s]] for s in range(self.at, len(rows)))
        self.remaining_s += sum(job.enter_s for job in self.jobs if job.boundary >= self.at)
        self.deadline_s = min((job.deadline_s for job in self.jobs), default=math.inf)


@dataclass(frozen=True, slots=True)
class Step(Generic[J]):
    """One segment of one batch. `joining` enter here, beside those that are in it already.

    No more than `room` samples are computed together: a single frame may have more.
    """

    batch: Batch[J]
    segment: int
    carried: list[J]
    joining: list[J]
    room: int
    planned_s: float

    @property
    def is_last(self) -> bool:
        """Whether the batch is at its end after it."""
        return self.segment + 1 == len(self.batch.counts)
