"""Where in the plan of a device a frame would do best, as things are when it comes.

It is put into the first batch that passes its boundary, has room, and gains more by taking it than
it loses; or it becomes a batch of its own, where its deadline puts it. Either way only if all
frames that are in the plan keep their deadlines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
# A client with frames in the plan leaves this part of what they take free before them.
AHEAD = 4.0
# Who has so many times as much in the plan as another lets that one go first.
YIELDS = 2.0


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

    def __init__(
        self,
        plan: Sequence[Batch[J]],
        cost_s: Mapping[str, float],
        rates: Rates,
        now_s: float,
        free_s: float,
    ) -> None:
        self._plan, self._cost_s, self._rates = plan, cost_s, rates
        self._now_s, self._free_s = now_s, free_s
        self.ends_s: list[float] = []
        end_s = free_s
        for batch in plan:
            end_s += batch.remaining_s * rates.slowdown
            self.ends_s.append(end_s)
        # By how much each batch and all after it may end later.
        self._slack_s, least = [math.inf] * (len(plan) + 1), math.inf
        for index in range(len(plan) - 1, -1, -1):
            least = min(least, self._leeway_s(index))
            self._slack_s[index] = least

    def place(self, job: Job, times: BatchTimes, batching: Batching) -> Place:
        """Where the job goes; `Refused` if there is no place. `times` are those of its model."""
        own_s = times.suffix_s(job.boundary, job.samples) * self._rates.slowdown
        joined = self._join(job, times, batching, own_s)
        if joined is None:
            return self._stand_alone(job, own_s)
        if self._has_more(self._plan[joined.index], job, own_s):
            alone = self._alone_at(self._first(job, own_s), job, own_s)
            if alone is not None and alone.end_s < joined.end_s:
                return alone
        return joined

    def _join(
        self, job: Job, times: BatchTimes, batching: Batching, alone_s: float
    ) -> Place | None:
        """The first batch that does better with the job than without it.

        It ends later by `added_s`, and so do those after it; all of them wait for that. Apart, the
        job would go behind all, and take `alone_s`. What that takes more of the device, all those
        wait for who are still to come.
        """
        if batching is Batching.NONE or not self._plan:
            return None
        now_s, last_s, slowdown = self._now_s, self.ends_s[-1], self._rates.slowdown
        left_s = self._left_s(job)
        to_come = self._rates.arrivals_until_idle(now_s, last_s - now_s)
        waiting = sum(len(batch.jobs) for batch in self._plan)  # from the batch that is looked at
        for index, batch in enumerate(self._plan):
            behind, waiting = waiting, waiting - len(batch.jobs)
            if not batch.can_take(job, times.max_batch) or not _may_meet(batch, job, batching):
                continue
            added_s = batch.added_s(job) * slowdown
            end_s = self.ends_s[index] + added_s
            is_late = _with_reserve(now_s, end_s) > job.deadline_s
            if is_late or added_s > self._slack_s[index] - left_s:
                continue
            lost_s = behind * added_s + end_s
            apart_s = last_s + alone_s
            if lost_s <= apart_s + (alone_s - added_s) * to_come:
                return Place(index, True, added_s, end_s)
        return None

    def _stand_alone(self, job: Job, own_s: float) -> Place:
        """A batch of its own, as early as others may wait for it."""
        for index in (self._first(job, own_s), self._first(job, own_s, must=True)):
            if (place := self._alone_at(index, job, own_s)) is not None:
                return place
        wait_s = self._begins_s(len(self._plan)) - self._now_s
        raise Refused(
            f"it would wait {1e3 * wait_s:.0f} ms and compute {1e3 * own_s:.0f} ms", wait_s
        )

    def _alone_at(self, index: int, job: Job, own_s: float) -> Place | None:
        """The place before batch `index`, if the job keeps its own deadline there."""
        start_s = self._begins_s(index)
        late_s = own_s + _with_reserve(self._now_s, start_s)  # alone, it needs no reserve
        return None if late_s > job.deadline_s else Place(index, False, own_s, start_s + own_s)

    def _begins_s(self, index: int) -> float:
        return self.ends_s[index - 1] if index else self._free_s

    def _first(self, job: Job, own_s: float, must: bool = False) -> int:
        """Before all batches at the end of the plan that give way, and can without being late.

        To a client that has less in the plan they do, and to another with less time those that have
        not begun; where it `must` be early, all that have more time.
        """
        index, left_s = len(self._plan), self._left_s(job)
        while index:
            batch = self._plan[index - 1]
            if self._has_more(batch, job, own_s):
                leeway_s = self._leeway_s(index - 1)
            elif batch.deadline_s > job.deadline_s and (must or not self._stays(batch, job)):
                leeway_s = self._leeway_s(index - 1) - left_s
            else:
                break
            if leeway_s < own_s:
                break
            index -= 1
        return index

    def _leeway_s(self, index: int) -> float:
        """How much later a batch may end; infinite where it will be late anyway."""
        end_s, deadline_s = self.ends_s[index], self._plan[index].deadline_s
        if end_s > deadline_s:
            return math.inf
        return deadline_s - _with_reserve(self._now_s, end_s)

    def _left_s(self, job: Job) -> float:
        """What a client with frames in the plan leaves free before them."""
        return self._cost_s.get(job.client, 0.0) / AHEAD

    def _stays(self, batch: Batch[J], job: Job) -> bool:
        """Whether it has begun, or is of clients that have clearly less in the plan."""
        most_s = max(self._cost_s[other.client] for other in batch.jobs)
        return batch.started or self._cost_s.get(job.client, 0.0) > YIELDS * most_s

    def _has_more(self, batch: Batch[J], job: Job, own_s: float) -> bool:
        """Whether somebody in the batch has clearly more in the plan than this client.

        Beyond the frame in the batch: who has one that takes long has no more than others.
        """
        has_s = self._cost_s.get(job.client, 0.0) + own_s
        more_s = max(self._cost_s[other.client] - other.cost_s for other in batch.jobs)
        return more_s > YIELDS * has_s


def _may_meet(batch: Batch[J], job: Job, batching: Batching) -> bool:
    if batching is Batching.SUFFIX:
        return True
    return not batch.started and batch.at == job.boundary


def _with_reserve(now_s: float, end_s: float) -> float:
    """By when something that is planned to end at `end_s` will have ended."""
    return end_s + RESERVE * (end_s - now_s)
