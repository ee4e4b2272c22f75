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
MOST_HALF_LIVES = 15.0  # for which a ratio is kept
RECENT_POINTS, RATIO_POINTS = 4, 7  # that stand for each of the two
# A transfer shorter than this is lost in the jitter of two processes.
SHORTEST_S, LONG_S = 1e-3, 20e-3
# What nobody has seen is possible, too: rates within this factor of the mean, with the weight of
# half a sample. While something is overdue they are stalls.
UNSEEN_FACTOR, UNSEEN_WEIGHT = 8.0, 0.5
UNSEEN = (1 / 6, 1 / 2, 5 / 6)
UNSEEN_FACTORS = tuple(UNSEEN_FACTOR ** (2 * unseen - 1) for unseen in UNSEEN)
TAIL = 4.0
# Ratios that were seen around a level within this factor of today's count in full, others little:
# a burst of a second ends after a second, however long the link is slow between two. They are
# summed up again, too, where the level has moved by so much.
ALIKE, OTHERS, MOVED = 2.0, 0.03, 1.2
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
        self._ratios: deque[tuple[float, float, float, float, float]] = deque(maxlen=MOST_RATIOS)
        self._points: list[tuple[float, float]] = []  # recent rates, weights as of `seen_s`
        self._summary: list[tuple[float, float]] = []  # ratios and their weights
        self._summed_s = self._summed_log = -math.inf
        self._range = (0.0, math.inf)
        self.level = self.mean = max(rate, LEAST_BYTES_PER_S)
        self.seen_s = -math.inf  # when anything was last seen of the link

    def sent(self, now_s: float, nbytes: float, took_s: float) -> None:
        """`nbytes` took so long to leave, waiting for earlier ones and delay left out."""
        rate = nbytes / max(took_s, SHORTEST_S)
        if took_s < SHORTEST_S:  # it has at least that rate, which may say nothing
            rate = max(rate, self.level)
        took_s = nbytes / rate
        weight = math.sqrt(min(max(took_s, 2e-3), LONG_S) / LONG_S)
        if self._recent:
            self._ratios.append((now_s, rate / self.level, rate, weight, math.log(self.level)))
        self._recent.append((now_s, rate, weight, nbytes, took_s))
        self._forget_another_link()
        self.seen_s = now_s
        self._follow(now_s)

    def scenarios(self, now_s: float, ahead: Ahead) -> Scenarios:
        """The rates that the link may have from now on, and when it has sent what is `ahead`."""
        # All that is recent grows old at the same pace: the points stay where they are.
        fresh = 0.5 ** ((now_s - self.seen_s) / LEVEL_HALF_LIFE_S) if self._points else 0.0
        rates = [rate for rate, _ in self._points]
        weights = [weight * fresh for _, weight in self._points]
        share = max(sum(weights), 0.5)
        # A link that has two speeds shows large ratios between them, and no third speed.
        ratios, (least, most) = self._ratio_points(now_s), self._range
        least = max(least, LEAST_BYTES_PER_S)
        for ratio, weight in ratios:
            rates.append(min(max(ratio * self.level, least), most))
            weights.append(share * weight)
        overdue_s, since_s, nbytes = ahead.overdue_s, ahead.since_s, ahead.nbytes
        free_s = [since_s + nbytes / rate for rate in rates]
        if overdue_s > 0:
            # At this rate the oldest would be gone. That it is not makes the rate the less likely
            # the longer ago that was; and how much longer it takes depends on how long it has.
            late_s = ahead.seen_s + overdue_s * (2 ** (1 / TAIL) - 1)
            for at, rate in enumerate(rates):
                gone = ahead.first_nbytes / rate / overdue_s
                if gone < 1:
                    weights[at] *= gone**TAIL
                    free_s[at] = late_s + (nbytes - ahead.first_nbytes) / rate
            # Of a stall that has lasted x, half last another x (Lindy: P(> x + y) = x / (x + y)).
            rates += [self.mean] * len(UNSEEN)
            free_s += [
                ahead.seen_s + overdue_s * unseen / (1 - unseen) + nbytes / self.mean
                for unseen in UNSEEN
            ]
        else:
            unseen_rates = [self.mean * factor for factor in UNSEEN_FACTORS]
            rates += unseen_rates
            free_s += [since_s + nbytes / rate for rate in unseen_rates]
        weights += [UNSEEN_WEIGHT / len(UNSEEN)] * len(UNSEEN)
        rate, free, weight = np.array([rates, free_s, weights])
        return Scenarios(rate, np.maximum(free, now_s, out=free), weight / sum(weights), self.mean)

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
        self._points = [
            (max(rate, LEAST_BYTES_PER_S), weight) for rate, weight in _points(rows, RECENT_POINTS)
        ]

    def _ratio_points(self, now_s: float) -> list[tuple[float, float]]:
        log = math.log(self.level)
        while self._ratios and now_s - self._ratios[0][0] > MOST_HALF_LIVES * RATIO_HALF_LIFE_S:
            self._ratios.popleft()  # a weight of nothing divides nothing
        if now_s - self._summed_s >= AGAIN_S or abs(log - self._summed_log) > math.log(MOVED):
            self._summed_s, self._summed_log = now_s, log
            rows = [
                (
                    ratio,
                    weight
                    * 0.5 ** ((now_s - at) / RATIO_HALF_LIFE_S)
                    * (OTHERS + math.exp(-(((log - then) / math.log(ALIKE)) ** 2))),
                )
                for at, ratio, _, weight, then in self._ratios
            ]
            rates = [rate for at, _, rate, _, _ in self._ratios if now_s - at < RATIO_HALF_LIFE_S]
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
