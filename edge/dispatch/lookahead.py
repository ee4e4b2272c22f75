"""What each arm is worth for the frame that is here: it, and the frames that will come after it.

A roll-out in the sense of Bertsekas: for each arm of this frame, and for each arm as the one of all
frames after it, the queues of device and link are followed over the next frames, in every scenario
of the uplink. An arm is worth the frames in time under the best of these continuations. What is
left in the queues at the end costs its price: the dual values of the linear program that fills
device and link for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from splitpoint.partition.plan.costs import Floats

from .uplink import Scenarios

LOGISTIC = 1.702
MOST_STEPS = 5
HORIZON_BUDGETS = 1.5
# A frame that fewer of the scenarios than this bring in time is not begun by a continuation, and
# one of whose own scenarios fewer than this do is not begun at all.
SKIP_BELOW, NEVER_BELOW = 0.4, 0.03
# Of equals, the one that is sooner, or costs less, or loses less: a share of a frame in time.
LATENCY_WEIGHT, PRICE_WEIGHT, LOSS_WEIGHT = 0.05, 0.2, 0.01
# A queue delays whatever comes, even where the linear program finds the resource plentiful.
LEAST_PRICE = 0.1  # frames for each interval of backlog
PRICES = np.concatenate([[0.0], np.geomspace(0.02, 1.5, 16)])  # of an interval of a resource


@dataclass(frozen=True, slots=True)
class Work:
    """What the arms take under the conditions of now, in seconds and bytes, `[n]`.

    `after_s` passes from the leaving of a frame's bytes to its answer: round trip, wait, compute.
    `extra` is what price and loss are worth, as a share of a frame in time. Times on the device lie
    around `edge_s` with that `spread`, a standard deviation as a share of them.
    """

    edge_s: Floats
    encode_s: Floats
    nbytes: Floats
    after_s: Floats
    extra: Floats
    spread: float = 0.0

    @property
    def sends(self) -> npt.NDArray[np.bool_]:
        """Which of them use the link."""
        return np.asarray(self.nbytes > 0)


@dataclass(frozen=True, slots=True)
class Pending:
    """A frame that is not sent yet: it is `computed_s`, then `ready_s` for the link.

    It is in time if its bytes have left by `leaves_s`.
    """

    computed_s: float
    ready_s: float
    nbytes: float
    leaves_s: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """`value` of each arm and, last, of letting the frame go `[n + 1]`.

    `in_time` and `latency_s`, at most the budget, are those of the frame itself, `[n]`.
    """

    value: Floats
    in_time: Floats
    latency_s: Floats


@dataclass(frozen=True, slots=True)
class Prices:
    """Frames that a second of the device and of the link are worth."""

    device: float = 0.0
    link: float = 0.0

    @classmethod
    def of(cls, work: Work, interval_s: float, budget_s: float, link: Scenarios) -> Prices:
        """The dual values of filling both with frames for ever, one every `interval_s`."""
        own_s = work.edge_s + work.encode_s + work.after_s
        left_s = work.nbytes / link.rate[:, np.newaxis]
        in_time = np.where(
            work.sends, link.weight @ (own_s + left_s <= budget_s), work.edge_s <= budget_s
        )
        prices = PRICES / interval_s
        gain = (
            in_time
            - prices[:, np.newaxis, np.newaxis] * work.edge_s
            - prices[:, np.newaxis] * (work.nbytes / link.mean)
        ).max(-1)
        dual = np.maximum(gain, 0.0) + (prices[:, np.newaxis] + prices) * interval_s
        device, of_link = np.unravel_index(int(dual.argmin()), dual.shape)
        least = LEAST_PRICE / interval_s
        return cls(max(float(prices[device]), least), max(float(prices[of_link]), least))


class Lookahead:
    """For frames that come every `interval_s` and are wanted within `budget_s`."""

    def __init__(self, work: Work, interval_s: float, budget_s: float, prices: Prices) -> None:
        self._work, self._interval_s, self._budget_s = work, interval_s, budget_s
        self._prices = prices
        self._steps = int(
            min(max(3, math.ceil(HORIZON_BUDGETS * budget_s / interval_s)), MOST_STEPS)
        )
        self._uses = work.edge_s > 0
        self._senders = np.flatnonzero(work.sends)
        self._here = np.flatnonzero(~work.sends)

    def arms(
        self,
        now_s: float,
        device_free_s: float,
        link: Scenarios,
        pending: list[Pending],
    ) -> Outlook:
        """For a frame that is taken now, with the queues as they are."""
        work, rate = self._work, link.rate[:, np.newaxis]
        begin_s = np.where(self._uses, max(now_s, device_free_s), now_s)
        computed_s = begin_s + work.edge_s
        # One thread encodes, in the order in which frames are computed.
        encoder_s = computed_s
        for frame in pending:
            waits = (frame.computed_s <= computed_s) & (frame.ready_s > encoder_s)
            encoder_s = np.where(waits, frame.ready_s, encoder_s)
        ready_s = encoder_s + work.encode_s
        count = len(ready_s)
        # Letting go is the last: it takes nothing of anything.
        free_s = np.repeat(link.free_s[:, np.newaxis], count + 1, 1)
        until_s = np.append(ready_s, np.inf)
        # Those that are not sent yet: an arm that is ready before one of them makes it later.
        others = np.zeros(count + 1)
        for frame in pending:
            free_s, others = _let_by(frame, frame.ready_s <= until_s, free_s, others, link)
        left_s = np.maximum(free_s[:, :count], ready_s) + work.nbytes / rate
        end_s = np.where(work.sends, left_s + work.after_s, computed_s)
        deadline_s = now_s + self._budget_s
        in_time = link.weight @ (end_s <= deadline_s)
        in_time[self._here] = self._likely(deadline_s - computed_s)[self._here]
        latency_s = link.weight @ np.minimum(end_s, deadline_s) - now_s
        own = in_time - LATENCY_WEIGHT * latency_s / self._budget_s - work.extra
        own[in_time < NEVER_BELOW] = -1.0
        free_s[:, :count] = np.where(work.sends, left_s, free_s[:, :count])
        for frame in pending:
            if frame.ready_s > ready_s.min():
                free_s, others = _let_by(frame, frame.ready_s > until_s, free_s, others, link)
        device_s = np.append(np.where(self._uses, computed_s, device_free_s), device_free_s)
        busy_s = max((frame.ready_s for frame in pending), default=now_s)
        encoder_s = np.append(np.where(work.sends, np.maximum(ready_s, busy_s), busy_s), busy_s)
        later = self.after(now_s, now_s, device_s, encoder_s, free_s, link)
        return Outlook(np.append(own, -LATENCY_WEIGHT) + others + later, in_time, latency_s)

    def _likely(self, left_s: Floats) -> Floats:
        """That computing ends in time which is expected to with so much to spare, `[..., n]`."""
        return likely(left_s, self._work.edge_s, self._work.spread)

    def after(
        self,
        now_s: float,
        taken_s: float,
        device_s: Floats,
        encoder_s: Floats,
        link_s: Floats,
        link: Scenarios,
    ) -> Floats:
        """Frames in time after this one, under the best continuation, `[a]`.

        The device is free at `device_s` `[a]`, its encoder at `encoder_s` `[a]`, the link at
        `link_s` `[s, a]`.
        """
        work, interval_s = self._work, self._interval_s
        arms, bases, sending = len(device_s), len(work.edge_s), self._senders
        weight, nbytes_s = link.weight, (work.nbytes[sending] / link.rate[:, np.newaxis])
        nbytes_s = nbytes_s[:, np.newaxis]  # [s, 1, b]
        slack_s = self._budget_s - work.after_s[sending]
        edge_s, encode_s = work.edge_s, work.encode_s[sending]
        device = np.repeat(device_s[:, np.newaxis], bases, 1)  # [a, b]
        encoder = np.repeat(encoder_s[:, np.newaxis], len(sending), 1)
        busy = np.repeat(link_s[:, :, np.newaxis], len(sending), 2)  # [s, a, b]
        value = np.zeros((arms, bases))
        in_time = np.empty((arms, bases))
        for step in range(1, self._steps + 1):
            at_s = max(taken_s + step * interval_s, now_s)
            begin = np.maximum(device, at_s)
            begin[:, ~self._uses] = at_s
            computed = begin + edge_s
            ready = np.maximum(computed[:, sending], encoder) + encode_s
            left = np.maximum(busy, ready) + nbytes_s
            hits = left <= at_s + slack_s
            in_time[:, sending] = (weight @ hits.reshape(len(weight), -1)).reshape(arms, -1)
            in_time[:, self._here] = self._likely(at_s + self._budget_s - computed)[:, self._here]
            go = in_time >= SKIP_BELOW
            value += np.where(go, in_time - work.extra, 0.0)
            device = np.where(go & self._uses, computed, device)
            busy = np.where(go[:, sending], left, busy)
            encoder = np.where(go[:, sending], ready, encoder)
        end_s = max(taken_s + (self._steps + 1) * interval_s, now_s)
        most_s = 2 * self._budget_s
        device_s = np.clip(device - end_s, 0.0, most_s)
        value -= self._prices.device * device_s
        backlog_s = np.clip(busy - end_s, 0.0, most_s)
        value[:, sending] -= self._prices.link * np.tensordot(weight, backlog_s, 1)
        stays_s = np.clip(link_s - end_s, 0.0, most_s)
        value[:, self._here] -= self._prices.link * (weight @ stays_s)[:, np.newaxis]
        return np.asarray(value.max(1))


def likely(left_s: Floats | float, device_s: Floats | float, spread: float) -> Floats:
    """The chance of computing in time what takes `device_s` and is expected to have `left_s` left.

    Times are normal with that `spread`, as a share of them; its distribution function by the
    logistic one, which is nowhere off by more than 0.01.
    """
    deviations = np.clip(left_s / (spread * device_s + 1e-6), -9.0, 9.0)
    return np.asarray(1 / (1 + np.exp(-LOGISTIC * deviations)))


def _let_by(
    frame: Pending, goes: npt.NDArray[np.bool_], free_s: Floats, others: Floats, link: Scenarios
) -> tuple[Floats, Floats]:
    """The link is free so much later for the arms before which the frame `goes`, `[s, a]`."""
    then_s = np.maximum(free_s, frame.ready_s) + frame.nbytes / link.rate[:, np.newaxis]
    hits = link.weight @ (then_s <= frame.leaves_s)
    return np.where(goes, then_s, free_s), others + np.where(goes, hits, 0.0)
