"""What is known of the uplink: rates that are possible now, and how likely each is.

The level of the last seconds says how fast the link is, the ratios that were seen around it over a
longer time how much it varies: a link that stalls every ten seconds is not forgotten to do so in
the nine between. What was sent and should have been answered by now bounds the rate from above.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from splitpoint.partition.plan.costs import Floats

LEVEL_HALF_LIFE_S, MOST_RECENT = 1.5, 16
RATIO_HALF_LIFE_S, MOST_RATIOS = 40.0, 240
RECENT_POINTS, RATIO_POINTS = 4, 7  # that stand for each of the two
# A transfer shorter than this is lost in the jitter of two processes.
SHORTEST_S, LONG_S = 1e-3, 20e-3
# What nobody has seen is possible, too: rates within this factor of the mean, with the weight of
# half a sample. While something is overdue they are stalls.
UNSEEN_FACTOR, UNSEEN_WEIGHT = 8.0, 0.5
UNSEEN = np.array([1 / 6, 1 / 2, 5 / 6])
TAIL = 4.0
CHANGED, APART = 3, 2.0  # so many transfers in a row, faster or slower by this factor
AGAIN_S = 0.5  # how often the ratios are summed up again
LEAST_BYTES_PER_S = 1.0


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is under way before a new frame: so many bytes.

    The oldest of them, `first_nbytes`, could begin to leave at `since_s`; had they all left before
    `seen_s`, its answer would be here.
    """

    nbytes: float = 0.0
    first_nbytes: float = 0.0
    since_s: float = 0.0
    seen_s: float = 0.0

    @property
    def overdue_s(self) -> float:
        """For how long the oldest has been leaving without an answer."""
        return max(self.seen_s - self.since_s, 0.0) if self.nbytes else 0.0


@dataclass(frozen=True, slots=True)
class Scenarios:
    """`rate` in bytes/s, the time at which the link is `free_s`, and the `weight` of each, `[s]`.

    Weights add up to 1. `mean` is what the link has carried lately in bytes/s, stalls among it.
    """

    rate: Floats
    free_s: Floats
    weight: Floats
    mean: float


class Uplink:
    """Rates in bytes a second. Times are the caller's, of any clock that never goes back."""

    def __init__(self, rate: float) -> None:
        self._recent: deque[tuple[float, float, float, float, float]] = deque(maxlen=MOST_RECENT)
        self._ratios: deque[tuple[float, float, float, float]] = deque(maxlen=MOST_RATIOS)
        self._summary: list[tuple[float, float]] = []  # ratios and their weights
        self._summed_s = -math.inf
        self._range = (0.0, math.inf)
        self.level = self.mean = max(rate, LEAST_BYTES_PER_S)
        self.seen_s = -math.inf  # when anything was last seen of the link

    def sent(self, now_s: float, nbytes: float, took_s: float) -> None:
        """`nbytes` took so long to leave, waiting for earlier ones and delay left out."""
        took_s = max(took_s, SHORTEST_S)
        rate = nbytes / took_s
        weight = math.sqrt(min(max(took_s, 2e-3), LONG_S) / LONG_S)
        if self._recent:
            self._ratios.append((now_s, rate / self.level, rate, weight))
        self._recent.append((now_s, rate, weight, nbytes, took_s))
        self._forget_another_link()
        self.seen_s = now_s
        self._follow(now_s)

    def scenarios(self, now_s: float, ahead: Ahead) -> Scenarios:
        """The rates that the link may have from now on, and when it has sent what is `ahead`."""
        points = _points(
            [
                (rate, weight * 0.5 ** ((now_s - at) / LEVEL_HALF_LIFE_S))
                for at, rate, weight, _, _ in self._recent
            ],
            RECENT_POINTS,
        )
        recent = sum(weight for _, weight in points)
        ratios = self._ratio_points(now_s)
        if ratios:
            share = max(recent, 0.5)
            # A link that has two speeds shows large ratios between them, and no third speed.
            least, most = self._range
            points += [
                (min(max(ratio * self.level, least), most), share * weight)
                for ratio, weight in ratios
            ]
        overdue_s = ahead.overdue_s
        rate, weight = np.array(points or np.zeros((0, 2)), np.float64).T
        rate = np.maximum(rate, LEAST_BYTES_PER_S)
        free_s = ahead.since_s + ahead.nbytes / rate
        if overdue_s > 0:
            # At this rate the oldest would be gone. That it is not makes the rate the less likely
            # the longer ago that was; and how much longer it takes depends on how long it has.
            share = ahead.first_nbytes / rate / overdue_s
            weight = weight * np.minimum(share, 1.0) ** TAIL
            others_s = (ahead.nbytes - ahead.first_nbytes) / rate
            late_s = ahead.seen_s + overdue_s * (2 ** (1 / TAIL) - 1) + others_s
            free_s = np.where(share < 1, late_s, free_s)
        if overdue_s > 0:
            # Of a stall that has lasted x, half last another x (Lindy: P(> x + y) = x / (x + y)).
            unseen = np.full(len(UNSEEN), self.mean)
            until_s = ahead.seen_s + overdue_s * UNSEEN / (1 - UNSEEN)
            unseen_free_s = until_s + ahead.nbytes / self.mean
        else:
            unseen = self.mean * UNSEEN_FACTOR ** (2 * UNSEEN - 1)
            unseen_free_s = ahead.since_s + ahead.nbytes / unseen
        weight = np.concatenate([weight, np.full(len(UNSEEN), UNSEEN_WEIGHT / len(UNSEEN))])
        return Scenarios(
            rate=np.concatenate([rate, unseen]),
            free_s=np.maximum(np.concatenate([free_s, unseen_free_s]), now_s),
            weight=weight / weight.sum(),
            mean=self.mean,
        )

    def _forget_another_link(self) -> None:
        """Where the latest transfers are all beyond all before, the link is another one now."""
        rates = [rate for _, rate, _, _, _ in self._recent]
        before, latest = rates[:-CHANGED], rates[-CHANGED:]
        if before and (min(latest) > APART * max(before) or APART * max(latest) < min(before)):
            for _ in before:
                self._recent.popleft()

    def _follow(self, now_s: float) -> None:
        """The level is the weighted median of what is recent, the mean that of all its bytes."""
        rows, nbytes, took_s = [], 0.0, 0.0
        for at, rate, weight, size, seconds in self._recent:
            fresh = 0.5 ** ((now_s - at) / LEVEL_HALF_LIFE_S)
            rows.append((rate, weight * fresh))
            nbytes, took_s = nbytes + fresh * size, took_s + fresh * seconds
        self.level = _points(rows, 1)[0][0]
        self.mean = nbytes / took_s

    def _ratio_points(self, now_s: float) -> list[tuple[float, float]]:
        if now_s - self._summed_s >= AGAIN_S:
            self._summed_s = now_s
            rows = [
                (ratio, weight * 0.5 ** ((now_s - at) / RATIO_HALF_LIFE_S))
                for at, ratio, _, weight in self._ratios
            ]
            rates = [rate for at, _, rate, _ in self._ratios if now_s - at < RATIO_HALF_LIFE_S]
            self._range = (min(rates, default=0.0), max(rates, default=math.inf))
            total = sum(weight for _, weight in rows)
            points = _points(rows, RATIO_POINTS)
            self._summary = [(ratio, weight / total) for ratio, weight in points]
        return self._summary


def _points(rows: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most so many values that stand for all `rows` of value and weight, of equal weights."""
    if len(rows) <= most:
        return rows
    rows = sorted(rows)
    total = sum(weight for _, weight in rows)
    points, passed, at = [], 0.0, 0
    for number in range(most):
        aim = (number + 0.5) / most * total
        while at < len(rows) - 1 and passed + rows[at][1] < aim:
            passed += rows[at][1]
            at += 1
        points.append((rows[at][0], total / most))
    return points
