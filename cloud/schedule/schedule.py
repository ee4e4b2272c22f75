"""Which batch runs next on a device, who is in it, and who is turned away. No clock, no threads.

The plan is a list of batches in the order in which they will run. Where a frame that comes is put
says `outlook`, and only if all frames that are in the plan keep their deadlines: what was taken is
a promise, as far as the times are right. Otherwise it is turned away at once, so that its sender
can still do something else.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic
from weakref import WeakKeyDictionary

from .batch import Batch, J, Step
from .batch_times import BatchTimes
from .job import Job, Timed
from .outlook import ROUNDING_S, Batching, Outlook, Place, Refused
from .rates import Rates
from .taken import Taken

# A client with frames in the plan may have so many times what its frame's time leaves free: one
# alone gets 2/3 of it, n of them 2n/(2n+1), and a newcomer always finds room. (Dynamic thresholds,
# Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998, for shared buffers.)
SHARE = 2.0
# Frames without a budget, and none longer, are promised an answer within this.
MOST_WAIT_S = 10.0


@dataclass(slots=True)
class _Unanswered:
    """What the steps since the last answer took, in seconds, and what they should have taken."""

    took_s: float = 0.0
    planned_s: float = 0.0
    steps: int = 0

    def add(self, took_s: float, planned_s: float) -> None:
        self.took_s += took_s
        self.planned_s += planned_s
        self.steps += 1


class Schedule(Generic[J]):
    """The plan of one device. Times are seconds of the caller's clock, which never goes back."""

    def __init__(self, max_batch: int, batching: Batching = Batching.SUFFIX) -> None:
        self._max_batch, self._batching = max_batch, batching
        self._room: WeakKeyDictionary[Timed, int] = WeakKeyDictionary()  # where memory ran out
        self._plan: list[Batch[J]] = []
        self._step: Step[J] | None = None
        self._dropped: list[J] = []  # whom nobody was told of yet
        self._busy_until_s = -math.inf
        self._going_since_s: float | None = None  # the last step's end, if it had a next one
        # A step may be so short that it tells of calls and clocks; what an answer took tells more.
        self._unanswered = _Unanswered()
        self._cost_s: defaultdict[str, float] = defaultdict(float)  # by client
        self._taken = Taken()
        self.rates = Rates()
        self.queued = 0  # jobs in the plan
        self.nbytes = 0  # of theirs

    def check(self, now_s: float, job: Job) -> None:
        """`Refused` for a job that `offer` would not take now; it takes nothing itself."""
        try:
            self._find_place(now_s, job)
        except Refused:
            self._came(now_s, job)
            raise

    def offer(self, now_s: float, job: J) -> float:
        """Takes `job` and tells by when it will be done; `Refused` if that cannot be kept."""
        self._came(now_s, job)
        if not self._plan:  # the device was idle
            self.rest()
        place = self._find_place(now_s, job)
        if place.joins:
            self._plan[place.index].add(job)
        else:
            self._plan.insert(place.index, Batch(job, self._times(job.model)))
        if place.ahead:
            self._taken.went_ahead(place.added_s)
        job.queued_s, job.cost_s = now_s, place.added_s
        self._enter(job)
        return place.end_s

    def next(self, now_s: float) -> tuple[Step[J] | None, list[J]]:
        """What to run now, and who is dropped because it was cancelled or is bound to be late.

        Not to be asked again before `done` or `give_up`.
        """
        assert self._step is None
        begin_s = self._free_s(now_s)
        while self._plan:
            batch = self._plan[0]
            end_s = begin_s + batch.remaining_s * self.rates.slowdown - ROUNDING_S
            gone = [job for job in batch.jobs if job.cancelled or end_s > job.deadline_s]
            if len(gone) < len(batch.jobs):  # rows that are being computed stay with the others
                gone = [job for job in gone if not batch.has_begun(job)]
            if gone:
                self._dropped += gone
                batch.remove(gone)
                self._leave(gone)
            if not batch.jobs:
                self._plan.pop(0)
                continue
            segment = batch.at
            carried = [job for job in batch.jobs if batch.has_begun(job)]
            joining = [j for j in batch.jobs if j.boundary == segment and j not in carried]
            planned_s = batch.next_s * self.rates.slowdown
            room = self._times(batch.model).max_batch
            batch.advance()
            self._busy_until_s = begin_s + planned_s
            self._step = Step(batch, segment, carried, joining, room, planned_s)
            break
        dropped, self._dropped = self._dropped, []
        return self._step, dropped

    def done(self, now_s: float, took_s: float, failed: Sequence[J] = ()) -> list[J]:
        """The step has been run for all but `failed`; the jobs that came to the end with it.

        Those have their answers. What passed between two steps is part of the second: it is not
        there for frames either.
        """
        step, self._step = self._step, None
        assert step is not None
        batch = step.batch
        if self._going_since_s is not None:
            took_s = now_s - self._going_since_s
        self._going_since_s = now_s
        self.rates.ran(now_s, took_s)
        self._taken.ran(now_s, took_s, step.carried + step.joining)
        self._unanswered.add(took_s, step.planned_s)
        if failed:
            batch.remove(failed)
            self._leave(failed)
        if batch.jobs and batch.at < len(batch.counts):
            return []
        self._plan.remove(batch)
        self._leave(batch.jobs)
        if batch.jobs:
            found = self._unanswered
            self.rates.answered(found.took_s, found.planned_s, found.steps)
            self._unanswered = _Unanswered()
        return batch.jobs

    def give_up(self) -> list[J]:
        """The step that runs will never be done: whose rows are in it leave the plan."""
        step, self._step = self._step, None
        if step is None:
            return []
        self.rest()
        batch = step.batch
        begun = [job for job in batch.jobs if batch.has_begun(job)]
        batch.remove(begun)
        self._leave(begun)
        if not batch.jobs:
            self._plan.remove(batch)
        return begun

    def abandon(self, batch: Batch[J] | None = None) -> list[J]:
        """Something went wrong with `batch`, or with the next one: its jobs leave the plan."""
        if batch is None and self._plan:
            batch = self._plan[0]
        jobs = [] if batch is None else batch.jobs
        self._plan = [other for other in self._plan if other is not batch]
        return self._anew(jobs)

    def clear(self, model: Timed | None = None) -> list[J]:
        """All jobs, or those of `model`, which leave the plan. No step of theirs runs now."""
        gone = [batch for batch in self._plan if model is None or batch.model is model]
        self._plan = [batch for batch in self._plan if batch not in gone]
        return self._anew([job for batch in gone for job in batch.jobs])

    def _anew(self, gone: list[J]) -> list[J]:
        """`gone`, and whom nobody was told of. The device rests; what is left is counted anew."""
        gone, self._dropped = self._dropped + gone, []
        self._step = None
        self.rest()
        self._cost_s.clear()
        self.queued = self.nbytes = 0
        for batch in self._plan:
            for job in batch.jobs:
                self._enter(job)
        return gone

    def rest(self) -> None:
        """The device does nothing, or other things; what steps take from now on is counted anew."""
        self._going_since_s, self._unanswered = None, _Unanswered()

    def shrink(self, model: Timed, samples: int) -> None:
        """Batches of `model` may have so many samples at most from now on."""
        self._room[model] = max(min(samples, self._times(model).max_batch), 1)

    def forget(self, model: Timed) -> None:
        """No more jobs of `model` will come."""
        self._room.pop(model, None)

    def alone_s(self, model: Timed, boundary: int, samples: int, enter_s: float = 0.0) -> float:
        """What a frame takes by itself, as the device goes now."""
        return (enter_s + self._times(model).suffix_s(boundary, samples)) * self.rates.slowdown

    def rank(self, client: str) -> tuple[bool, bool]:
        """Whether others may give way to `client`, and whether it has much itself.

        Clients of the same rank have to wait about equally long.
        """
        standing = self._taken.standing(client, self._cost_s.get(client, 0.0))
        return standing.may_go_first, standing.has_much

    @property
    def greediest(self) -> str:
        """The client that took most of the device lately; empty where nobody took anything."""
        return self._taken.most

    def wait_s(self, now_s: float, model: Timed, boundary: int, client: str) -> float:
        """How long a frame of `client` that came now would wait, beyond its own computing."""
        deadline_s = now_s + MOST_WAIT_S
        job = Job(model=model, boundary=boundary, samples=1, deadline_s=deadline_s, client=client)
        try:
            place = self._outlook(now_s, job).place(job, self._times(model), self._batching)
        except Refused as refused:
            return refused.wait_s
        return max(place.end_s - now_s - self.alone_s(model, boundary, 1), 0.0)

    def _free_s(self, now_s: float) -> float:
        """When the device has done what it was given."""
        if self._step is None and not self._unanswered.steps:
            return now_s
        return max(now_s, self._busy_until_s)

    def _times(self, model: Timed) -> BatchTimes:
        """What batches of `model` take, and the room that they have here and now."""
        if not self._room:
            return model.batch_times.limited(self._max_batch)
        return model.batch_times.limited(self._room.get(model, self._max_batch))

    def _outlook(self, now_s: float, job: Job) -> Outlook[J]:
        asks_s = self._cost_s.get(job.client, 0.0)
        asks_s += self.alone_s(job.model, job.boundary, job.samples, job.enter_s)
        standing = self._taken.standing(job.client, asks_s)
        return Outlook(self._plan, self.rates, standing, now_s, self._free_s(now_s))

    def _find_place(self, now_s: float, job: Job) -> Place:
        job.deadline_s = min(job.deadline_s, now_s + MOST_WAIT_S)
        outlook = self._outlook(now_s, job)
        place = outlook.place(job, self._times(job.model), self._batching)
        self._check_share(job, place, outlook, now_s)
        return place

    def _check_share(self, job: Job, place: Place, outlook: Outlook[J], now_s: float) -> None:
        """One client's frames must leave room for those of others, unless these give way to it."""
        has_s = self._cost_s.get(job.client, 0.0) + job.decoding_s
        if not has_s:
            return
        if has_s + place.added_s > SHARE * (job.deadline_s - outlook.busy_until_s):
            raise Refused(
                f"this client's frames take {1e3 * has_s:.0f} ms already, its share",
                place.end_s - now_s,
            )

    # Bookkeeping. ---------------------------------------------------------------------------

    def _came(self, now_s: float, job: Job) -> None:
        self.rates.arrived(now_s)
        self._taken.came(now_s, job.client)

    def _enter(self, job: J) -> None:
        self._cost_s[job.client] += job.cost_s
        self.queued += 1
        self.nbytes += job.nbytes

    def _leave(self, jobs: Sequence[J]) -> None:
        for job in jobs:
            self.queued -= 1
            self.nbytes -= job.nbytes
            left_s = self._cost_s[job.client] - job.cost_s
            if left_s > 1e-9:
                self._cost_s[job.client] = left_s
            else:
                del self._cost_s[job.client]
