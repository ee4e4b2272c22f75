"""Which way each frame takes. Decisions only: no clock, no network, no threads of its own.

Whoever drives it, an agent or a simulation, tells it what it sees, with the time of any clock that
never goes back.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from splitpoint.partition.plan.costs import OWN_MS, Floats

from .arms import Arms
from .conditions import Conditions
from .continuation import Continuation, Prices
from .in_hand import FrameInHand, InHand
from .lookahead import (
    LATENCY_WEIGHT,
    LOSS_WEIGHT,
    NEVER_BELOW,
    PATIENT_WEIGHT,
    PRICE_WEIGHT,
    Lookahead,
)
from .uplink import Ahead, Scenarios, Uplink
from .work import Pending, Work, likely

# Prices are those of frames for ever: they hold for a while, as long as frames come as often.
REPRICE_S, ANOTHER_PACE = 1.0, 0.2
# A finish is begun where it brings this share of a frame, beyond what it takes from others. What
# the device begins to finish it has in time in so many of a hundred cases.
LEAST_GAIN, FINISHES = 0.03, 0.97
# Before the last moment at which a finish is in time: how long before it is looked at whether it
# is worth the device's time.
LOOKS_S = (30e-3, 2e-3)
NEWEST_GAP, PAUSE = 0.1, 4.0  # weight of the latest gap between two frames; usual gaps
# Arms whose expected latency is within this share of the least are as good: see `choose_waiting`.
EQUAL, SURE = 0.015, 0.9
# A link is dead that has been silent for so long, and for so many times what its rate explains.
DEAD_S, DEAD_TIMES = 2.0, 4.0


class Dispatcher:
    """Chooses among `arms` for frames that are wanted within `budget_s`.

    `rate` is the uplink's in bytes/s at first. Where it does not matter how soon a frame is there,
    `patience_s` is how long those may take that are waited for. `usable` says which arms may be
    taken now, `[n]`, and `can_finish` whether the device may finish what the cloud does not answer.
    """

    def __init__(
        self,
        arms: Arms,
        budget_s: float,
        conditions: Conditions,
        rate: float,
        *,
        patience_s: float | None = None,
    ) -> None:
        self.arms, self._budget_s = arms, budget_s
        self._patience_s = patience_s or budget_s
        self._hurry = LATENCY_WEIGHT if patience_s is None else PATIENT_WEIGHT
        self.conditions, self.uplink, self.in_hand = conditions, Uplink(rate), InHand()
        self.usable = np.ones(len(arms), bool)
        self.can_finish = True
        self.interval_s: float | None = None
        self._taken_s: float | None = None
        self._continuation: Continuation | None = None
        self._prices = Prices(np.empty(0, np.int64))
        self._priced_s, self._priced = -math.inf, np.empty(0, np.int64)
        self._priced_interval_s = 0.0

    # What is decided -----------------------------------------------------------------------

    def choose(self, now_s: float, key: int, samples: int = 1) -> int | None:
        """The arm of a frame of a live source, of so many samples; None to let it go."""
        self._taken(now_s)
        chosen = np.flatnonzero(self.usable)
        work, link = self._work(now_s, chosen, samples), self._link(now_s)
        interval_s = self.interval_s or self._budget_s
        if self._prices_are_old(now_s, chosen, interval_s):
            self._priced_s, self._priced, self._priced_interval_s = now_s, chosen, interval_s
            self._prices = Prices.of(work, interval_s, self._budget_s, link)
        self._continuation = Continuation(work, interval_s, self._budget_s, self._prices)
        lookahead = Lookahead(work, now_s, self._budget_s, link)
        ways = lookahead.ways(self.in_hand.device_free_s(now_s), self._pending(now_s))
        best = int(lookahead.value(ways, self._continuation).argmax())
        if best == len(chosen):
            if self.in_hand.device_is_idle:
                self.conditions.device_idles()
            return None
        return self._begin(now_s, key, int(chosen[best]), samples, self._budget_s)

    def choose_waiting(self, now_s: float, key: int, samples: int = 1) -> int:
        """The arm of a frame of so many samples that is waited for, behind what is in hand.

        That is the one that is expected to be done first, which keeps device and link at work side
        by side; or, for another objective than latency, the cheapest that is sure to be in time.
        """
        chosen = np.flatnonzero(self.usable)
        work, link = self._work(now_s, chosen, samples), self._link(now_s)
        lookahead = Lookahead(work, now_s, self._patience_s, link)
        found = lookahead.ways(self.in_hand.device_free_s(now_s), self._pending(now_s))
        score = found.latency_s
        if self.arms.price.any():
            sure = found.in_time >= SURE * found.in_time.max()
            score = np.where(sure, self.arms.price[chosen] + 1e-6 * score, np.inf)
        equal = np.flatnonzero(score <= (1 + EQUAL) * score.min())
        best = equal[np.lexsort((score[equal], self.arms.loss[chosen[equal]]))[0]]
        return self._begin(now_s, key, int(chosen[best]), samples, self._patience_s)

    def worth_sending(self, now_s: float, key: int) -> bool:
        """Whether a frame that is ready for the link may still be answered in time."""
        frame = self.in_hand.get(key)
        return frame is None or self._chance(now_s, key, frame) >= NEVER_BELOW

    def worth_finishing(self, now_s: float, key: int) -> bool:
        """Whether the device is to finish the frame now, beside waiting for the cloud.

        It is where the frame is then in time, is not likely to be so otherwise, and frames that
        come lose less by it.
        """
        frame = self.in_hand.get(key)
        if frame is None or frame.ended or frame.finishing or not self.can_finish:
            return False
        rest_s = self.rest_s(frame.arm, frame.samples)
        free_s = self.in_hand.device_free_s(now_s)
        if free_s + rest_s > frame.deadline_s:
            return False
        spread = self.conditions.edge_spread
        in_time = FINISHES * likely(frame.deadline_s - free_s - rest_s, rest_s, spread)
        gain = in_time * (1 - self._chance(now_s, key, frame))
        if gain < LEAST_GAIN or self._continuation is None or self._taken_s is None:
            return gain >= LEAST_GAIN
        link = self._link(now_s)
        device_s, encoder_s = np.array([free_s, free_s + rest_s]), np.full(2, now_s)
        link_s = np.repeat(link.free_s[:, np.newaxis], 2, 1)
        kept, taken = self._continuation.worth(
            now_s, self._taken_s, device_s, encoder_s, link_s, link
        )
        return bool(gain - (kept - taken) >= LEAST_GAIN)

    # What is seen --------------------------------------------------------------------------

    def stream_ended(self) -> None:
        """There is nothing to keep up with; the pause before the next is no gap between frames."""
        self._taken_s = self.interval_s = None

    def finish_begins(self, now_s: float, key: int) -> None:
        """The device finishes the frame, behind all that it has to do."""
        frame = self.in_hand.get(key)
        if frame is not None:
            frame.finishing = True
            self.in_hand.compute(now_s, key, self.rest_s(frame.arm, frame.samples))

    def answered(self, now_s: float, key: int, server_s: float) -> None:
        """The worker answered a frame, wanted or not, and had it for `server_s`."""
        round_trip_s = self.conditions.round_trip_ms / 1e3
        seen = self.in_hand.answered(key, now_s - round_trip_s - server_s, round_trip_s)
        if seen is not None:
            self.uplink.sent(now_s, *seen)

    def rest_s(self, arm: int, samples: int = 1) -> float:
        """What finishing so many samples takes from the arm's boundary."""
        return float(self.arms.rest_s[arm]) * self.conditions.edge_factor * samples

    def rate(self, now_s: float) -> float:
        """Bytes a second that the link carries; 0 where it has let nothing through for long."""
        ahead = self._ahead(now_s)
        explained_s = DEAD_TIMES * ahead.first_nbytes / self.uplink.level
        return 0.0 if ahead.overdue_s > max(DEAD_S, explained_s) else self.uplink.level

    # What it makes of that -------------------------------------------------------------------

    def _taken(self, now_s: float) -> None:
        if self._taken_s is not None:
            gap_s, known_s = now_s - self._taken_s, self.interval_s
            if known_s is not None:  # what is much longer is a pause, and no gap
                gap_s = min(gap_s, max(PAUSE * known_s, self._budget_s))
            self.interval_s = gap_s if known_s is None else known_s + NEWEST_GAP * (gap_s - known_s)
        self._taken_s = now_s

    def _prices_are_old(
        self, now_s: float, chosen: npt.NDArray[np.int64], interval_s: float
    ) -> bool:
        """Whether time, the arms, or how often frames come have changed them."""
        off = abs(interval_s / self._priced_interval_s - 1) if self._priced_interval_s else 1.0
        return (
            now_s - self._priced_s >= REPRICE_S
            or off > ANOTHER_PACE
            or not np.array_equal(chosen, self._priced)
        )

    def _begin(self, now_s: float, key: int, arm: int, samples: int, within_s: float) -> int:
        arms, factor = self.arms, self.conditions.edge_factor * samples
        nbytes = float(arms.nbytes[arm]) * samples
        frame = FrameInHand(arm, now_s + within_s, now_s, nbytes, samples)
        self.in_hand.begin(now_s, key, frame, float(arms.edge_s[arm]) * factor)
        return arm

    def _ahead(self, now_s: float) -> Ahead:
        first, after_s = self.in_hand.first, self.conditions.round_trip_ms / 1e3
        if first is not None:
            after_s = self._answer_s(now_s, first)
        return self.in_hand.ahead(now_s, after_s)

    def _link(self, now_s: float) -> Scenarios:
        return self.uplink.scenarios(now_s, self._ahead(now_s))

    def _after_s(self, now_s: float, samples: int = 1) -> Floats:
        """From the leaving of a frame's bytes to its answer, `[n]`."""
        conditions = self.conditions
        away_s = (conditions.round_trip_ms + OWN_MS + conditions.queue_ms(now_s)) / 1e3
        return np.asarray(self.arms.server_s * (conditions.server_factor * samples) + away_s)

    def _answer_s(self, now_s: float, frame: FrameInHand) -> float:
        """The same for a frame that has its arm."""
        return float(self._after_s(now_s, frame.samples)[frame.arm])

    def _encode_s(self, frame: FrameInHand) -> float:
        arms, factor = self.arms, self.conditions.edge_factor * frame.samples
        return float(arms.encode_s[frame.arm]) * factor

    def _work(self, now_s: float, chosen: npt.NDArray[np.int64], samples: int = 1) -> Work:
        arms, factor = self.arms, self.conditions.edge_factor * samples
        return Work(
            edge_s=arms.edge_s[chosen] * factor,
            encode_s=arms.encode_s[chosen] * factor,
            nbytes=arms.nbytes[chosen] * samples,
            after_s=self._after_s(now_s, samples)[chosen],
            extra=PRICE_WEIGHT * arms.price[chosen] + LOSS_WEIGHT * arms.loss[chosen],
            sends=arms.nbytes[chosen] > 0,
            spread=self.conditions.edge_spread,
            hurry=self._hurry,
        )

    def _pending(self, now_s: float) -> list[Pending]:
        """Frames that are not sent yet, in the order in which they will be ready."""
        waiting = self.in_hand.waiting
        if not waiting:
            return []
        found, encoder_s = [], 0.0
        for frame in waiting:
            encoder_s = max(frame.computed_s, encoder_s) + self._encode_s(frame)
            leaves_s = frame.deadline_s - self._answer_s(now_s, frame)
            found.append(Pending(frame.computed_s, max(encoder_s, now_s), frame.nbytes, leaves_s))
        return found

    def _chance(self, now_s: float, key: int, frame: FrameInHand) -> float:
        """That the cloud answers the frame in time."""
        link, after_s = self._link(now_s), self._answer_s(now_s, frame)
        if frame.sent_s is None:
            ready_s = max(frame.computed_s + self._encode_s(frame), now_s)
            left_s = np.maximum(link.free_s, ready_s) + frame.nbytes / link.rate
        else:
            left_s = link.free_s - self.in_hand.behind(key) / link.rate
        return float(link.weight @ (left_s + after_s <= frame.deadline_s))
