"""What each arm is worth for the frame that is here: it, and the frames that will come after it.

A roll-out in the sense of Bertsekas: for each arm of this frame the queues of device and link are
followed until it is answered, in every scenario of the uplink; a `Continuation` says what they are
worth to the frames that come then.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from splitpoint.partition.plan.costs import Floats

from .continuation import Continuation
from .uplink import Scenarios
from .work import Pending, Work, likely

# A frame that fewer of its own scenarios than this bring in time is not begun at all.
NEVER_BELOW = 0.03
# Of equals, the one that is sooner, or costs less, or loses less: a share of a frame in time.
LATENCY_WEIGHT, PRICE_WEIGHT, LOSS_WEIGHT = 0.2, 0.2, 0.01
PATIENT_WEIGHT = 0.01  # of latency, where the user aims at something else


@dataclass(frozen=True, slots=True)
class Ways:
    """What becomes of a frame by each arm: `in_time`, a chance, and `latency_s`, `[n]`.

    `others` are the frames before it that are in time, and `device_s`, `encoder_s` `[n + 1]` and
    `link_s` `[s, n + 1]` say when each is free; the last is that of letting the frame go. The frame
    is for the link at `ready_s` `[n + 1]`, and the link for it at `before_s` `[s, n + 1]`.
    `latency_s` is at most the budget.
    """

    in_time: Floats
    latency_s: Floats
    others: Floats
    device_s: Floats
    encoder_s: Floats
    link_s: Floats
    ready_s: Floats
    before_s: Floats

    def waits_s(self, end_s: float) -> Floats:
        """For how long the link waits, beyond `end_s`, until the frame is ready, `[s, n + 1]`."""
        waits_s = self.ready_s - np.maximum(self.before_s, end_s)
        return np.maximum(waits_s, 0.0, out=waits_s)


class Lookahead:
    """For a frame that is taken at `now_s` and wanted within `budget_s`."""

    def __init__(self, work: Work, now_s: float, budget_s: float, link: Scenarios) -> None:
        self._work, self._now_s, self._budget_s, self._link = work, now_s, budget_s, link

    def ways(self, device_free_s: float, pending: list[Pending]) -> Ways:
        """With the queues as they are."""
        work, link, now_s = self._work, self._link, self._now_s
        count, rate = len(work.edge_s), link.rate[:, np.newaxis]
        uses = work.edge_s > 0
        computed_s = np.where(uses, max(now_s, device_free_s), now_s)
        computed_s += work.edge_s
        # One thread encodes, in the order in which frames are computed.
        encoder_s = computed_s
        for frame in pending:
            waits = (frame.computed_s <= computed_s) & (frame.ready_s > encoder_s)
            encoder_s = np.where(waits, frame.ready_s, encoder_s)
        # Letting go is the last: it takes nothing of anything.
        ready_s = np.empty(count + 1)
        np.add(encoder_s, work.encode_s, out=ready_s[:count])
        ready_s[count] = np.inf
        link_s = np.empty((len(link.rate), count + 1))
        link_s[:] = link.free_s[:, np.newaxis]
        # Those that are not sent yet: an arm that is ready before one of them makes it later.
        others = np.zeros(count + 1)
        for frame in pending:
            self._let_by(frame, frame.ready_s <= ready_s, link_s, others)
        before_s = link_s.copy()
        left_s = np.maximum(link_s[:, :count], ready_s[:count])
        left_s += work.nbytes / rate
        end_s = np.where(work.sends, left_s + work.after_s, computed_s)
        deadline_s = now_s + self._budget_s
        in_time = link.weight @ (end_s <= deadline_s)
        for arm in (~work.sends).nonzero()[0].tolist():
            left = deadline_s - float(computed_s[arm])
            in_time[arm] = likely(left, float(work.edge_s[arm]), work.spread)
        latency_s = link.weight @ np.minimum(end_s, deadline_s, out=end_s)
        latency_s -= now_s
        np.copyto(link_s[:, :count], left_s, where=work.sends)
        for frame in pending:
            if frame.ready_s > ready_s.min():
                self._let_by(frame, frame.ready_s > ready_s, link_s, others)
        device_s = np.full(count + 1, device_free_s)
        np.copyto(device_s[:count], computed_s, where=uses)
        busy_s = max((frame.ready_s for frame in pending), default=now_s)
        encoding_s = np.full(count + 1, busy_s)
        np.maximum(ready_s[:count], busy_s, out=encoding_s[:count], where=work.sends)
        stays = np.append(work.sends, False)  # what is not sent makes no link wait
        ready_s = np.where(stays, ready_s, -np.inf)
        return Ways(in_time, latency_s, others, device_s, encoding_s, link_s, ready_s, before_s)

    def value(self, ways: Ways, continuation: Continuation) -> Floats:
        """Frames in time by each arm and, last, by letting the frame go, `[n + 1]`."""
        now_s, count = self._now_s, len(ways.in_time)
        waits_s = ways.waits_s(continuation.end_s(now_s, now_s))
        value = continuation.worth(
            now_s, now_s, ways.device_s, ways.encoder_s, ways.link_s, self._link, waits_s
        )
        value += ways.others
        own = ways.in_time - self._work.hurry / self._budget_s * ways.latency_s
        own -= self._work.extra
        own[ways.in_time < NEVER_BELOW] = -1.0
        if continuation.comes_too_early(now_s, float(ways.device_s[count])):
            own[~self._work.sends & (self._work.edge_s > 0)] = -1.0
        value[:count] += own
        value[count] -= LATENCY_WEIGHT
        return value

    def _let_by(
        self, frame: Pending, goes: npt.NDArray[np.bool_], link_s: Floats, others: Floats
    ) -> None:
        """Makes the link later for the arms before which the frame `goes`, `[s, n + 1]`."""
        then_s = np.maximum(link_s, frame.ready_s)
        then_s += (frame.nbytes / self._link.rate)[:, np.newaxis]
        others += (self._link.weight @ (then_s <= frame.leaves_s)) * goes
        np.copyto(link_s, then_s, where=goes)
