"""Which batch runs next on a device, who is in it, and who is turned away. No clock, no threads.

The plan is a list of batches in the order in which they will run. A frame that comes is put into
the first of them that passes its boundary, has room, and gains more by taking it than it loses; or
it becomes a batch of its own, where its deadline puts it. Either way only if all frames that are
in the plan keep their deadlines: what was taken is a promise, as far as the times are right.
Otherwise it is turned away at once, so that its sender can still do something else.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic

from .batch import Batch, J
from .job import Job, Timed
from .rates import Rates

# A client with frames in the plan may have so many times what its frame's time leaves free: one
# alone gets 2/3 of it, n of them 2n/(2n+1), and a newcomer always finds room. (Dynamic thresholds,
# Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998, for shared buffers.)
SHARE = 2.0
# Frames without a budget, and none longer, are promised an answer within this.
MOST_WAIT_S = 10.0
# Of the time until a frame is to be done, what is kept for plans that take longer than planned. A
# device that is filled to the last moment of every deadline keeps few of them.
RESERVE = 0.1
_ROUNDING_S = 1e-6


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
class Step(Generic[J]):
    """One segment of one batch. `joining` enter here, beside those that are in it already."""

    batch: Batch[J]
    segment: int
    carried: list[J]
    joining: list[J]
    planned_s: float


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a job goes: into batch `index`, or before it as a new one."""

    index: int
    joins: bool
    added_s: float
    end_s: float


class Schedule(Generic[J]):
    """The plan of one device. Times are seconds of the caller's clock, which never goes back."""

    def __init__(self, max_batch: int, batching: Batching = Batching.SUFFIX) -> None:
        self._max_batch, self._batching = max_batch, batching
        self._room: dict[Timed, int] = {}  # models whose batches must be smaller
        self._plan: list[Batch[J]] = []
        self._step: Step[J] | None = None
        self._busy_until_s = -math.inf
        self._going_since_s: float | None = None  # the last step's end, if it had a next one
        self._cost_s: defaultdict[str, float] = defaultdict(float)  # by client
        self.rates = Rates()
        self.queued = 0  # jobs in the plan
        self.nbytes = 0  # of theirs

    def check(self, now_s: float, job: Job) -> None:
        """`Refused` for a job that `offer` would not take now; it takes nothing itself."""
        try:
            self._find_place(now_s, job)
        except Refused:
            self.rates.arrived(now_s)
            raise

    def offer(self, now_s: float, job: J) -> float:
        """Takes `job` and tells by when it will be done; `Refused` if that cannot be kept."""
        self.rates.arrived(now_s)
        if not self._plan:  # the device was idle
            self._going_since_s = None
        place = self._find_place(now_s, job)
        if place.joins:
            self._plan[place.index].add(job)
        else:
            self._plan.insert(place.index, Batch(job))
        job.queued_s, job.cost_s = now_s, place.added_s
        self._cost_s[job.client] += job.cost_s
        self.queued += 1
        self.nbytes += job.nbytes
        return place.end_s

    def next(self, now_s: float) -> tuple[Step[J] | None, list[J]]:
        """What to run now, and who is dropped because it was cancelled or is bound to be late.

        Not to be asked again before `done` or `give_up`.
        """
        assert self._step is None
        dropped: list[J] = []
        while self._plan:
            batch = self._plan[0]
            end_s = now_s + batch.remaining_s * self.rates.slowdown - _ROUNDING_S
            gone = [job for job in batch.jobs if job.cancelled or end_s > job.deadline_s]
            if len(gone) < len(batch.jobs):  # rows that are being computed stay with the others
                gone = [job for job in gone if not _inside(batch, job)]
            if gone:
                batch.remove(gone)
                self._leave(gone)
                dropped += gone
            if not batch.jobs:
                self._plan.pop(0)
                continue
            segment = batch.at
            carried = [job for job in batch.jobs if _inside(batch, job)]
            joining = [j for j in batch.jobs if j.boundary == segment and j not in carried]
            planned_s = batch.times.seconds[segment][batch.counts[segment]] * self.rates.slowdown
            batch.advance()
            self._busy_until_s = now_s + planned_s
            self._step = Step(batch, segment, carried, joining, planned_s)
            return self._step, dropped
        return None, dropped

    def done(self, now_s: float, took_s: float, failed: Sequence[J] = ()) -> list[J]:
        """The step has been run for all but `failed`; the jobs that came to the end with it.

        What passed between two steps is part of the second: it is not there for frames either.
        """
        step, self._step = self._step, None
        assert step is not None
        batch = step.batch
        if self._going_since_s is not None:
            took_s = now_s - self._going_since_s
        self._going_since_s = now_s
        self.rates.ran(now_s, took_s, step.planned_s)
        if failed:
            batch.remove(failed)
            self._leave(failed)
        if batch.jobs and batch.at < len(batch.counts):
            return []
        self._plan.remove(batch)
        self._leave(batch.jobs)
        return batch.jobs

    def give_up(self) -> list[J]:
        """The step that runs will never be done: its batch leaves the plan."""
        step, self._step, self._going_since_s = self._step, None, None
        if step is None:
            return []
        self._plan.remove(step.batch)
        self._leave(step.batch.jobs)
        return step.batch.jobs

    def shrink(self, model: Timed, samples: int) -> None:
        """Batches of `model` may have so many samples at most from now on."""
        self._room[model] = max(min(samples, self._room.get(model, self._max_batch)), 1)

    def forget(self, model: Timed) -> None:
        """No more jobs of `model` will come."""
        self._room.pop(model, None)

    def clear(self) -> list[J]:
        """All jobs, which leave the plan."""
        jobs = [job for batch in self._plan for job in batch.jobs]
        self._plan.clear()
        self._step = None
        self._leave(jobs)
        return jobs

    def wait_s(self, now_s: float, model: Timed, boundary: int) -> float:
        """How long a frame that came now would wait, beyond its own computing."""
        job = Job(
            model=model, boundary=boundary, samples=1, deadline_s=now_s + MOST_WAIT_S, client=""
        )
        ends, slack = self._outlook(now_s)
        alone_s = model.batch_times.suffix_s(boundary, 1) * self.rates.slowdown
        try:
            place = self._join(now_s, job, ends, slack) or self._stand_alone(
                now_s, job, ends, slack
            )
        except Refused as refused:
            return refused.wait_s
        return max(place.end_s - now_s - alone_s, 0.0)

    # Where a job may go. --------------------------------------------------------------------

    def _outlook(self, now_s: float) -> tuple[list[float], list[float]]:
        """When each batch ends, and by how much it and all after it may end later."""
        end_s = self._free_s(now_s)
        ends = []
        for batch in self._plan:
            end_s += batch.remaining_s * self.rates.slowdown
            ends.append(end_s)
        slack, least = [math.inf] * (len(ends) + 1), math.inf
        for index in range(len(ends) - 1, -1, -1):
            late_s = _with_reserve(now_s, ends[index])
            least = min(least, self._plan[index].deadline_s - late_s)
            slack[index] = least
        return ends, slack

    def _free_s(self, now_s: float) -> float:
        """When the segment that runs now is done."""
        return now_s if self._step is None else max(now_s, self._busy_until_s)

    def _find_place(self, now_s: float, job: Job) -> _Place:
        job.deadline_s = min(job.deadline_s, now_s + MOST_WAIT_S)
        ends, slack = self._outlook(now_s)
        place = self._join(now_s, job, ends, slack) or self._stand_alone(now_s, job, ends, slack)
        self._check_share(now_s, job, place, ends)
        return place

    def _join(self, now_s: float, job: Job, ends: list[float], slack: list[float]) -> _Place | None:
        """The first batch that does better with the job than without it.

        It ends later by `added_s`, and so do those after it; all of them wait for that. Apart, the
        job would go behind all, and take `alone_s`. What that takes more of the device, all those
        wait for who are still to come.
        """
        if self._batching is Batching.NONE or not self._plan:
            return None
        slowdown = self.rates.slowdown
        alone_s = job.model.batch_times.suffix_s(job.boundary, job.samples) * slowdown
        to_come = self.rates.arrivals_until_idle(now_s, ends[-1] - now_s)
        room = self._room.get(job.model, self._max_batch)
        behind = self.queued
        for index, batch in enumerate(self._plan):
            behind -= len(batch.jobs)
            if not batch.can_take(job, room) or not self._may_meet(batch, job):
                continue
            added_s = batch.added_s(job) * slowdown
            end_s = ends[index] + added_s
            if added_s > slack[index] or _with_reserve(now_s, end_s) > job.deadline_s:
                continue
            lost_s = (len(batch.jobs) + behind) * added_s + end_s
            apart_s = ends[-1] + alone_s
            if lost_s <= apart_s + (alone_s - added_s) * to_come:
                return _Place(index, True, added_s, end_s)
        return None

    def _may_meet(self, batch: Batch[J], job: Job) -> bool:
        if self._batching is Batching.SUFFIX:
            return True
        return not batch.started and batch.at == job.boundary

    def _stand_alone(self, now_s: float, job: Job, ends: list[float], slack: list[float]) -> _Place:
        """A batch of its own, before those that have more time; `Refused` if there is no place."""
        own_s = job.model.batch_times.suffix_s(job.boundary, job.samples) * self.rates.slowdown
        end_s = wait_s = 0.0
        for index in self._positions(job):
            start_s = ends[index - 1] if index else self._free_s(now_s)
            end_s, wait_s = start_s + own_s, start_s - now_s
            late_s = own_s + _with_reserve(now_s, start_s)  # alone, it needs no reserve
            if late_s <= job.deadline_s and own_s <= slack[index]:
                return _Place(index, False, own_s, end_s)
        raise Refused(
            f"it would wait {1e3 * wait_s:.0f} ms and compute {1e3 * own_s:.0f} ms", wait_s
        )

    def _positions(self, job: Job) -> Iterator[int]:
        """By deadline behind all that have begun; by deadline alone; behind all."""
        by_deadline = next(
            (i for i, b in enumerate(self._plan) if b.deadline_s > job.deadline_s), len(self._plan)
        )
        begun = next(
            (i + 1 for i in range(len(self._plan) - 1, -1, -1) if self._plan[i].started), 0
        )
        yield max(by_deadline, begun)
        if begun > by_deadline:
            yield by_deadline
        yield len(self._plan)

    def _check_share(self, now_s: float, job: Job, place: _Place, ends: list[float]) -> None:
        """One client's frames must leave room for the others'."""
        has_s = self._cost_s.get(job.client, 0.0) + job.decoding_s
        if not has_s:
            return
        free_s = job.deadline_s - (ends[-1] if ends else now_s)
        if has_s + place.added_s > SHARE * free_s:
            raise Refused(
                f"this client's frames take {1e3 * has_s:.0f} ms already, its share",
                place.end_s - now_s,
            )

    # Bookkeeping. ---------------------------------------------------------------------------

    def _leave(self, jobs: Sequence[J]) -> None:
        for job in jobs:
            self.queued -= 1
            self.nbytes -= job.nbytes
            left_s = self._cost_s[job.client] - job.cost_s
            if left_s > 1e-9:
                self._cost_s[job.client] = left_s
            else:
                del self._cost_s[job.client]


def _with_reserve(now_s: float, end_s: float) -> float:
    """By when something that is planned to end at `end_s` will have ended."""
    return end_s + RESERVE * (end_s - now_s)


def _inside(batch: Batch[J], job: J) -> bool:
    """Whether the job has begun: its rows are among those that are being computed."""
    return batch.started and job.boundary < batch.at
