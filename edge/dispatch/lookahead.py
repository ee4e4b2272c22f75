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
MOST_BASES = 4  # arms that are tried as those of all later frames, beside the device alone
MOST_STEPS = 5
HORIZON_BUDGETS = 1.5
# A frame that fewer of the scenarios than this bring in time is not begun by a continuation, and
# one of whose own scenarios fewer than this do is not begun at all.
SKIP_BELOW, NEVER_BELOW = 0.4, 0.03
# Of equals, the one that is sooner, or costs less, or loses less: a share of a frame in time.
LATENCY_WEIGHT, PRICE_WEIGHT, LOSS_WEIGHT = 0.2, 0.2, 0.01
# A queue delays whatever comes, even where the linear program finds the resource plentiful.
LEAST_PRICE = 0.1  # frames for each interval of backlog
STANDING, STANDING_PRICE = 0.3, 0.5  # of the budget; frames for each interval beyond that
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
    """Frames that a second of the device and of the link are worth, and what may go on.

    `away` are the arms that send which may be best for ever.
    """

    away: npt.NDArray[np.int64]
    device: float = 0.0
    link: float = 0.0

    @classmethod
    def of(cls, work: Work, interval_s: float, budget_s: float, link: Scenarios) -> Prices:
        """The dual values of filling both with frames for ever, one every `interval_s`."""
        own_s = work.edge_s + work.encode_s + work.after_s
        left_s = work.nbytes / link.rate[:, np.newaxis]
        on_time = own_s + left_s <= budget_s  # [s, n]
        in_time = np.where(work.sends, link.weight @ on_time, work.edge_s <= budget_s)
        prices = PRICES / interval_s
        gain = (
            in_time
            - prices[:, np.newaxis, np.newaxis] * work.edge_s
            - prices[:, np.newaxis] * (work.nbytes / link.mean)
        ).max(-1)
        dual = np.maximum(gain, 0.0) + (prices[:, np.newaxis] + prices) * interval_s
        device, of_link = np.unravel_index(int(dual.argmin()), dual.shape)
        least = LEAST_PRICE / interval_s
        slowest_s = np.maximum(np.maximum(work.edge_s, work.encode_s), left_s)
        lasting = link.weight @ (
            on_time * np.minimum(1.0, interval_s / np.maximum(slowest_s, 1e-9))
        )
        senders = np.flatnonzero(work.sends)
        away = senders[np.argsort(-lasting[senders], kind="stable")[:MOST_BASES]]
        return cls(away, max(float(prices[device]), least), max(float(prices[of_link]), least))


class Lookahead:
    """For frames that come every `interval_s` and are wanted within `budget_s`."""

    def __init__(self, work: Work, interval_s: float, budget_s: float, prices: Prices) -> None:
        self._work, self._interval_s, self._budget_s = work, interval_s, budget_s
        self._prices = prices
        self._steps = int(
            min(max(3, math.ceil(HORIZON_BUDGETS * budget_s / interval_s)), MOST_STEPS)
        )
        self._uses = work.edge_s > 0
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
        alone = likely(deadline_s - computed_s, work.edge_s, work.spread)
        in_time[self._here] = alone[self._here]
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
        away = self._away(now_s, taken_s, device_s, encoder_s, link_s, link)
        return np.maximum(away, self._at_home(now_s, taken_s, device_s, link_s, link))

    def _queued(self, device_s: Floats) -> Floats:
        """What a queue of the device costs, in frames.

        One that stands beyond what keeps the device busy computes no more frames, but makes those
        late that would only pass through it on their way to the link.
        """
        usual_s = float(self._work.edge_s.max(initial=0.0))
        beyond_s = np.maximum(device_s - max(usual_s, STANDING * self._budget_s), 0.0)
        return self._prices.device * device_s + STANDING_PRICE / self._interval_s * beyond_s

    def _times(self, now_s: float, taken_s: float) -> list[float]:
        """When the next frames come, and the first that is not looked at."""
        steps = range(1, self._steps + 2)
        return [max(taken_s + step * self._interval_s, now_s) for step in steps]

    def _away(
        self,
        now_s: float,
        taken_s: float,
        device_s: Floats,
        encoder_s: Floats,
        link_s: Floats,
        link: Scenarios,
    ) -> Floats:
        """With arms that send as the continuation; minus infinity without any, `[a]`."""
        work, bases, weight = self._work, self._prices.away, link.weight
        if not len(bases):
            return np.full(len(device_s), -np.inf)
        edge_s, encode_s, extra = work.edge_s[bases], work.encode_s[bases], work.extra[bases]
        slack_s = self._budget_s - work.after_s[bases]
        nbytes_s = (work.nbytes[bases] / link.rate[:, np.newaxis])[:, np.newaxis]  # [s, 1, b]
        uses = edge_s > 0
        device = np.where(uses, device_s[:, np.newaxis], -np.inf)  # [a, b]
        encoder, busy = encoder_s[:, np.newaxis], link_s[:, :, np.newaxis]
        shape, value = device.shape, np.zeros(device.shape)
        *times, end_s = self._times(now_s, taken_s)
        for at_s in times:
            computed = np.maximum(device, at_s) + edge_s
            ready = np.maximum(computed, encoder) + encode_s
            left = np.maximum(busy, ready) + nbytes_s  # [s, a, b]
            hits = left <= at_s + slack_s
            in_time = (weight @ hits.reshape(len(weight), -1)).reshape(shape)
            go = in_time >= SKIP_BELOW
            value += go * (in_time - extra)
            device = np.where(go & uses, computed, device)
            encoder, busy = np.where(go, ready, encoder), np.where(go, left, busy)
        most_s = 2 * self._budget_s
        value -= self._queued(np.clip(device - end_s, 0.0, most_s))
        backlog_s = np.clip(busy - end_s, 0.0, most_s).reshape(len(weight), -1)
        value -= self._prices.link * (weight @ backlog_s).reshape(shape)
        return np.asarray(value.max(1))

    def _at_home(
        self, now_s: float, taken_s: float, device_s: Floats, link_s: Floats, link: Scenarios
    ) -> Floats:
        """With all on the device as the continuation, `[a]`."""
        work, here = self._work, self._here
        if not len(here):
            return np.full(len(device_s), -np.inf)
        edge_s, extra = work.edge_s[here], work.extra[here]
        device = np.repeat(device_s[:, np.newaxis], len(here), 1)
        value = np.zeros(device.shape)
        *times, end_s = self._times(now_s, taken_s)
        for at_s in times:
            computed = np.maximum(device, at_s) + edge_s
            in_time = likely(at_s + self._budget_s - computed, edge_s, work.spread)
            go = in_time >= SKIP_BELOW
            value += go * (in_time - extra)
            device = np.where(go, computed, device)
        most_s = 2 * self._budget_s
        value -= self._queued(np.clip(device - end_s, 0.0, most_s))
        stays_s = link.weight @ np.clip(link_s - end_s, 0.0, most_s)
        return np.asarray(value.max(1) - self._prices.link * stays_s)


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
