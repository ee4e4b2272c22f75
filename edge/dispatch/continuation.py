"""What the frames after this one are worth, under the best of a few simple continuations.

A continuation takes one arm for all frames to come: one of those that send and may be best for
ever, all on the device, or none at all. The queues of device and link are followed over the next
frames, in every scenario of the uplink. What is left in them at the end costs its price: the dual
values of the linear program that fills device and link for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from splitpoint.partition.plan.costs import Floats

from .uplink import Scenarios
from .work import Work, likely

MOST_BASES = 2  # arms that send which are tried as those of all later frames
# Frames that are followed. More of them choose no better, and cost time: the prices see further.
STEPS = 2
# A frame that fewer of the scenarios than this bring in time is not begun by a continuation.
SKIP_BELOW = 0.4
SURE = 9.0  # deviations from the mean, beyond which nothing is left to chance
# A queue delays whatever comes, even where the linear program finds the resource plentiful. Where
# no arm brings a frame in time, nothing is delayed.
LEAST_PRICE = 0.1  # of the best arm's chance, for each interval of backlog
STANDING, STANDING_PRICE = 0.3, 0.5  # of the budget; frames for each interval beyond that
# Where several arms share the link, a frame's bytes wait for those of others: an arm can be gone on
# with where it is in time behind another frame of its own size.
QUEUED = 2.0
PRICES = np.concatenate([[0.0], np.geomspace(0.02, 1.5, 16)])  # of an interval of a resource


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
        on_time = own_s + QUEUED * left_s <= budget_s  # [s, n]
        in_time = np.where(work.sends, link.weight @ on_time, work.edge_s <= budget_s)
        prices = PRICES / interval_s
        gain = (
            in_time
            - prices[:, np.newaxis, np.newaxis] * work.edge_s
            - prices[:, np.newaxis] * (work.nbytes / link.mean)
        ).max(-1)
        dual = np.maximum(gain, 0.0) + (prices[:, np.newaxis] + prices) * interval_s
        device, of_link = np.unravel_index(int(dual.argmin()), dual.shape)
        least = LEAST_PRICE / interval_s * float(in_time.max())
        slowest_s = np.maximum(np.maximum(work.edge_s, work.encode_s), left_s)
        lasting = link.weight @ (
            on_time * np.minimum(1.0, interval_s / np.maximum(slowest_s, 1e-9))
        )
        senders = np.flatnonzero(work.sends)
        away = senders[np.argsort(-lasting[senders], kind="stable")[:MOST_BASES]]
        return cls(away, max(float(prices[device]), least), max(float(prices[of_link]), least))


class Continuation:
    """For frames that come every `interval_s` and are wanted within `budget_s`."""

    def __init__(self, work: Work, interval_s: float, budget_s: float, prices: Prices) -> None:
        self._interval_s, self._budget_s, self._spread = interval_s, budget_s, work.spread
        self._prices, away = prices, prices.away
        self._usual_s = max(float(work.edge_s.max(initial=0.0)), STANDING * budget_s)
        here = (~work.sends).nonzero()[0]
        self._here = list(zip(work.edge_s[here].tolist(), work.extra[here].tolist(), strict=True))
        self._nbytes = work.nbytes[away]
        self._away = np.empty((4, len(away)))
        self._away[0], self._away[1] = work.edge_s[away], work.encode_s[away]
        self._away[2], self._away[3] = work.extra[away], budget_s - work.after_s[away]
        self._idle = self._away[0] <= 0

    def worth(
        self,
        now_s: float,
        taken_s: float,
        device_s: Floats,
        encoder_s: Floats,
        link_s: Floats,
        link: Scenarios,
        waits_s: Floats | None = None,
    ) -> Floats:
        """Frames in time after the one that came at `taken_s`, `[a]`.

        The device is free at `device_s` `[a]`, its encoder at `encoder_s` `[a]`, the link at
        `link_s` `[s, a]`, of which it waits `waits_s` beyond `end_s` for what is not ready.
        """
        steps = range(1, STEPS + 1)
        times = [max(taken_s + step * self._interval_s, now_s) for step in steps]
        end_s = self.end_s(now_s, taken_s)
        has_s = link_s if waits_s is None else link_s - waits_s
        known = {free_s: self._at_home(times, end_s, free_s) for free_s in device_s.tolist()}
        stays_s = self._of_bytes(link) @ self._backlog_s(has_s - end_s)
        found = np.array([known[free_s] for free_s in device_s.tolist()])
        found -= self._prices.link * stays_s
        if len(self._nbytes):
            away = self._all_away(times, end_s, device_s, encoder_s, (link_s, has_s), link)
            np.maximum(found, away, out=found)
        return found

    def comes_too_early(self, taken_s: float, device_free_s: float) -> bool:
        """Whether the next frame is here before the device could begin with this one.

        What the device is free for then, it can do for that one as well, whose answer is newer and
        more likely to be in time.
        """
        return device_free_s >= taken_s + self._interval_s

    def end_s(self, now_s: float, taken_s: float) -> float:
        """To when frames are followed, after the one that came at `taken_s`."""
        return max(taken_s + (STEPS + 1) * self._interval_s, now_s)

    def _of_bytes(self, link: Scenarios) -> Floats:
        """Weights under which seconds of the link become those of its mean, `[s]`.

        The prices are those of a link of that rate, which does not stay as slow or fast for ever.
        """
        return np.asarray(link.weight * link.rate / link.mean)

    def _backlog_s(self, left_s: Floats) -> Floats:
        """At most two budgets of it count. Changes `left_s`."""
        np.maximum(left_s, 0.0, out=left_s)
        return np.minimum(left_s, 2 * self._budget_s, out=left_s)

    def _at_home(self, times: Sequence[float], end_s: float, free_s: float) -> float:
        """With all on the device, which is free at `free_s`, or with none.

        Where more frames come than there is time for, those to come are let go: else each would
        leave a backlog that this one is not worth. Few numbers are faster one by one.
        """
        best = -self._costs(free_s - end_s)
        for edge_s, extra in self._here:
            device_s, value, sure_s = free_s, 0.0, SURE * self._spread * edge_s
            for at_s in times:
                if self.comes_too_early(at_s, device_s):
                    continue
                computed_s = (device_s if device_s > at_s else at_s) + edge_s
                left_s = at_s + self._budget_s - computed_s
                chance = 1.0 if left_s > sure_s else likely(left_s, edge_s, self._spread)
                if chance >= SKIP_BELOW:
                    value += chance - extra
                    device_s = computed_s
            best = max(best, value - self._costs(device_s - end_s))
        return best

    def _costs(self, left_s: float) -> float:
        """Of what the device has to do still."""
        queue_s = min(max(left_s, 0.0), 2 * self._budget_s)
        beyond_s = max(queue_s - self._usual_s, 0.0)
        return self._prices.device * queue_s + self._standing * beyond_s

    @property
    def _standing(self) -> float:
        """What a second of a queue costs beyond what keeps the device busy.

        It computes no more frames, but makes those late that would only pass through it on their
        way to the link.
        """
        return STANDING_PRICE / self._interval_s

    def _all_away(
        self,
        times: Sequence[float],
        end_s: float,
        device_s: Floats,
        encoder_s: Floats,
        links_s: tuple[Floats, Floats],
        link: Scenarios,
    ) -> Floats:
        """With arms that send, `[a]`. Arrays are `[b * a]` or `[s, b * a]`, and used again.

        The link is followed twice: as it is, and as if all were ready by the end. What it waits for
        the device beyond that is no backlog of the link's: the device's has its price already.
        """
        bases, arms, weight = len(self._nbytes), len(device_s), link.weight
        edge_s, encode_s, extra, slack_s = self._away.repeat(arms, axis=1)
        takes_s = (self._nbytes / link.rate[:, np.newaxis]).repeat(arms, axis=1)
        device, encoder, value = np.zeros((3, bases, arms))
        device += device_s
        device[self._idle] = -np.inf  # without computing, nothing waits for the device
        encoder += encoder_s
        device, encoder, value = device.reshape(-1), encoder.reshape(-1), value.reshape(-1)
        busy, has = (
            link_s[:, np.newaxis].repeat(bases, axis=1).reshape(len(weight), -1)
            for link_s in links_s
        )
        left, hits = np.empty_like(busy), np.empty_like(busy)
        for at_s in times:
            computed = np.maximum(device, at_s)
            computed += edge_s
            ready = np.maximum(computed, encoder)
            ready += encode_s
            np.maximum(busy, ready, out=left)
            left += takes_s
            np.less_equal(left, slack_s + at_s, out=hits)
            in_time = weight @ hits
            go = in_time >= SKIP_BELOW
            in_time -= extra
            in_time *= go
            value += in_time
            np.copyto(device, computed, where=go)
            np.copyto(encoder, ready, where=go)
            np.copyto(busy, left, where=go)
            np.maximum(has, np.minimum(ready, end_s), out=left)
            left += takes_s
            np.copyto(has, left, where=go)
        device -= end_s
        queue_s = self._backlog_s(device)
        value -= self._prices.device * queue_s
        value -= self._standing * np.maximum(queue_s - self._usual_s, 0.0)
        has -= end_s
        value -= self._prices.link * (self._of_bytes(link) @ self._backlog_s(has))
        return np.asarray(value.reshape(bases, arms).max(0))
