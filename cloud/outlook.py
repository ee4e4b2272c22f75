"""Where in the plan of a device a frame would do best, as things are when it comes.

It is put into the first batch that passes its boundary, has room, and gains more by taking it than
it loses; or it becomes a batch of its own, where its deadline puts it. Either way only if all
frames that are in the plan keep their deadlines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic

from .batch import Batch, J
from .batch_times import BatchTimes
from .job import Job
from .rates import Rates

# Of the time until a frame is to be done, what is kept for plans that take longer than planned. A
# device that is filled to the last moment of every deadline keeps few of them.
RESERVE = 0.1


class Batching(str, Enum):
    """Which frames may run together: none, those of the same boundary, or all that meet."""

    NONE = "none"
    BOUNDARY = "boundary"
    SUFFIX = "suffix"


class Refused(Exception):
    """The frame would be late, or make others late. `wait_s` is how long it would have waited."""

    def __init__(self, why: str, wait_s: float) -> None:
        super().__init__(why)
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job goes: into batch `index`, or before it as a new one."""

    index: int
    joins: bool
    added_s: float
    end_s: float


class Outlook(Generic[J]):
    """The plan as it is at `now_s`, with the device free from `free_s` on.

    `ends_s` says when each batch ends.
    """

    def __init__(self, plan: Sequence[Batch[J]], rates: Rates, now_s: float, free_s: float) -> None:
        self._plan, self._rates, self._now_s, self._free_s = plan, rates, now_s, free_s
        self.ends_s: list[float] = []
        end_s = free_s
        for batch in plan:
            end_s += batch.remaining_s * rates.slowdown
            self.ends_s.append(end_s)
        # By how much each batch and all after it may end later.
        self._slack_s, least = [math.inf] * (len(plan) + 1), math.inf
        for index in range(len(plan) - 1, -1, -1):
            late_s = _with_reserve(now_s, self.ends_s[index])
            least = min(least, plan[index].deadline_s - late_s)
            self._slack_s[index] = least

    def place(self, job: Job, times: BatchTimes, batching: Batching) -> Place:
        """Where the job goes; `Refused` if there is no place. `times` are those of its model."""
        return self._join(job, times, batching) or self._stand_alone(job, times)

    def _join(self, job: Job, times: BatchTimes, batching: Batching) -> Place | None:
        """The first batch that does better with the job than without it.

        It ends later by `added_s`, and so do those after it; all of them wait for that. Apart, the
        job would go behind all, and take `alone_s`. What that takes more of the device, all those
        wait for who are still to come.
        """
        if batching is Batching.NONE or not self._plan:
            return None
        now_s, last_s, slowdown = self._now_s, self.ends_s[-1], self._rates.slowdown
        alone_s = times.suffix_s(job.boundary, job.samples) * slowdown
        to_come = self._rates.arrivals_until_idle(now_s, last_s - now_s)
        waiting = sum(len(batch.jobs) for batch in self._plan)  # from the batch that is looked at
        for index, batch in enumerate(self._plan):
            behind, waiting = waiting, waiting - len(batch.jobs)
            if not batch.can_take(job, times.max_batch) or not _may_meet(batch, job, batching):
                continue
            added_s = batch.added_s(job) * slowdown
            end_s = self.ends_s[index] + added_s
            if added_s > self._slack_s[index] or _with_reserve(now_s, end_s) > job.deadline_s:
                continue
            lost_s = behind * added_s + end_s
            apart_s = last_s + alone_s
            if lost_s <= apart_s + (alone_s - added_s) * to_come:
                return Place(index, True, added_s, end_s)
        return None

    def _stand_alone(self, job: Job, times: BatchTimes) -> Place:
        """A batch of its own, before those that have more time."""
        own_s = times.suffix_s(job.boundary, job.samples) * self._rates.slowdown
        end_s = wait_s = 0.0
        for index in self._positions(job):
            start_s = self.ends_s[index - 1] if index else self._free_s
            end_s, wait_s = start_s + own_s, start_s - self._now_s
            late_s = own_s + _with_reserve(self._now_s, start_s)  # alone, it needs no reserve
            if late_s <= job.deadline_s and own_s <= self._slack_s[index]:
                return Place(index, False, own_s, end_s)
        raise Refused(
            f"it would wait {1e3 * wait_s:.0f} ms and compute {1e3 * own_s:.0f} ms", wait_s
        )

    def _positions(self, job: Job) -> Iterator[int]:
        """By deadline behind all that have begun; by deadline alone; behind all."""
        plan = self._plan
        by_deadline = next(
            (i for i, b in enumerate(plan) if b.deadline_s > job.deadline_s), len(plan)
        )
        begun = next((i + 1 for i in range(len(plan) - 1, -1, -1) if plan[i].started), 0)
        yield max(by_deadline, begun)
        if begun > by_deadline:
            yield by_deadline
        yield len(plan)


def _may_meet(batch: Batch[J], job: Job, batching: Batching) -> bool:
    if batching is Batching.SUFFIX:
        return True
    return not batch.started and batch.at == job.boundary


def _with_reserve(now_s: float, end_s: float) -> float:
    """By when something that is planned to end at `end_s` will have ended."""
    return end_s + RESERVE * (end_s - now_s)
