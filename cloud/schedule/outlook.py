"""Finds the best place in a device's plan for a frame that has just come.

The frame joins the first batch that still has to pass its boundary, has room for it, and gains more
by taking it than it loses. Otherwise it becomes a batch of its own: before those with later
deadlines, and before those of clients that took clearly more of the device lately. In either case,
all frames in the plan must still keep their deadlines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic

from .batch import Batch, J
from .batch_times import BatchTimes
from .job import Job
from .rates import Rates
from .taken import Standing

# This part of the time until a frame is planned to be done is kept free, as plans take longer than
# planned. A device that is filled to the last moment of every deadline keeps few of them.
RESERVE = 0.1
# A client that has much keeps this part free as well, for frames that go before its own.
AHEAD = 0.1
# A batch more costs the device more. So a frame joins a batch that it could go before, unless it
# would be done so many times sooner in one of its own.
SOONER = 2.0
ROUNDING_S = 1e-6


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
    """Where a job goes: into batch `index`, or before that batch as a new one.

    `ahead` says that it passes batches with earlier deadlines, as their clients took more.
    """

    index: int
    joins: bool
    added_s: float
    end_s: float
    ahead: bool = False


class Outlook(Generic[J]):
    """The plan at `now_s`, as a client of that `standing` sees it. The device is free at `free_s`.

    `ends_s` holds the planned end of each batch.
    """

    def __init__(
        self,
        plan: Sequence[Batch[J]],
        rates: Rates,
        standing: Standing,
        now_s: float,
        free_s: float,
    ) -> None:
        self._plan, self._rates, self._standing = plan, rates, standing
        self._now_s, self._free_s = now_s, free_s
        self._reserve = RESERVE + (AHEAD if standing.has_much else 0.0)
        self.ends_s: list[float] = []
        end_s = free_s
        for batch in plan:
            end_s += batch.remaining_s * rates.slowdown
            self.ends_s.append(end_s)
        # How much later each batch and all batches after it may end.
        self._slack_s, least = [math.inf] * (len(plan) + 1), math.inf
        for index in range(len(plan) - 1, -1, -1):
            least = min(least, self._leeway_s(index))
            self._slack_s[index] = least

    @property
    def busy_until_s(self) -> float:
        """When the plan would end without the batches that give way to this client."""
        if not self._plan:
            return self._now_s
        if not self._standing.may_go_first:
            return self.ends_s[-1]
        giving_s = sum(
            batch.remaining_s for batch in self._plan if self._standing.goes_before(batch.clients)
        )
        return self.ends_s[-1] - giving_s * self._rates.slowdown

    def place(self, job: Job, times: BatchTimes, batching: Batching) -> Place:
        """Where the job goes; raises `Refused` if nowhere. `times` are those of its model."""
        own_s = job.enter_s + times.suffix_s(job.boundary, job.samples)
        own_s *= self._rates.slowdown
        joined = self._join(job, times, batching, own_s)
        if joined is None:
            return self._stand_alone(job, own_s)
        if self._standing.goes_before(self._plan[joined.index].clients):
            alone = self._alone_at(*self._first(job, own_s), job, own_s)
            if (
                alone is not None
                and SOONER * (alone.end_s - self._now_s) < joined.end_s - self._now_s
            ):
                return alone
        return joined

    def _join(
        self, job: Job, times: BatchTimes, batching: Batching, alone_s: float
    ) -> Place | None:
        """The first batch that is better off with the job than without it; None if there is none.

        With the job, that batch and all after it end `added_s` later, and every frame in them waits
        so much longer. Without it, the job would run by itself at the end of the plan and take
        `alone_s`. Then the frames that are still to come wait for the difference.
        """
        if batching is Batching.NONE or not self._plan:
            return None
        now_s, last_s, slowdown = self._now_s, self.ends_s[-1], self._rates.slowdown
        to_come = self._rates.arrivals_until_idle(now_s, last_s - now_s)
        waiting = sum(len(batch.jobs) for batch in self._plan)  # from the batch that is looked at
        for index, batch in enumerate(self._plan):
            behind, waiting = waiting, waiting - len(batch.jobs)
            if not batch.can_take(job, times.max_batch) or not _may_meet(batch, job, batching):
                continue
            added_s = batch.added_s(job) * slowdown
            end_s = self.ends_s[index] + added_s
            if added_s > self._slack_s[index] or self._with_reserve(end_s) > job.deadline_s:
                continue
            lost_s = behind * added_s + end_s
            apart_s = last_s + alone_s
            if lost_s <= apart_s + (alone_s - added_s) * to_come:
                return Place(index, True, added_s, end_s)
        return None

    def _stand_alone(self, job: Job, own_s: float) -> Place:
        """A new batch for the job alone, as early as the others can afford."""
        for must in (False, True):
            place = self._alone_at(*self._first(job, own_s, must), job, own_s)
            if place is not None:
                return place
        wait_s = self._begins_s(len(self._plan)) - self._now_s
        raise Refused(
            f"it would wait {1e3 * wait_s:.0f} ms and compute {1e3 * own_s:.0f} ms", wait_s
        )

    def _alone_at(self, index: int, ahead: bool, job: Job, own_s: float) -> Place | None:
        """The place before batch `index`; None if the job would be late there."""
        start_s = self._begins_s(index)
        late_s = own_s + self._with_reserve(start_s)  # alone, it needs no reserve
        if late_s > job.deadline_s:
            return None
        return Place(index, False, own_s, start_s + own_s, ahead)

    def _begins_s(self, index: int) -> float:
        return self.ends_s[index - 1] if index else self._free_s

    def _first(self, job: Job, own_s: float, must: bool = False) -> tuple[int, bool]:
        """The index of the first batch that the job may be put before, and whether it goes `ahead`.

        The job passes one batch after the other, from the last one on. A batch lets it pass if it
        can wait without being late, and either its deadline is later than the job's or all its
        clients took clearly more. A batch that is running, or whose clients took clearly less, does
        not give way to an earlier deadline unless the job `must` pass to be in time.
        """
        index, ahead, standing = len(self._plan), False, self._standing
        while index:
            batch = self._plan[index - 1]
            stays = batch.started or standing.stays_behind(batch.clients)
            by_deadline = batch.deadline_s > job.deadline_s and (must or not stays)
            if not by_deadline and not standing.goes_before(batch.clients):
                break
            if self._leeway_s(index - 1) < own_s:
                break
            ahead |= not by_deadline
            index -= 1
        return index, ahead

    def _leeway_s(self, index: int) -> float:
        """How much later a batch may end without making one more of its frames late.

        Infinite if all of them are late anyway.
        """
        end_s, batch = self.ends_s[index], self._plan[index]
        in_time_s = end_s - ROUNDING_S
        deadline_s = batch.deadline_s
        if in_time_s > deadline_s:
            deadlines_s = (job.deadline_s for job in batch.jobs)
            deadline_s = min((at_s for at_s in deadlines_s if at_s >= in_time_s), default=math.inf)
        return deadline_s - self._with_reserve(end_s)

    def _with_reserve(self, end_s: float) -> float:
        """When something that is planned to end at `end_s` has ended at the latest."""
        return end_s + self._reserve * (end_s - self._now_s)


def _may_meet(batch: Batch[J], job: Job, batching: Batching) -> bool:
    if batching is Batching.SUFFIX:
        return True
    return not batch.started and batch.at == job.boundary
