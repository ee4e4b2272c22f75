"""Which plan is best now. Decisions only: no clock, no network, no threads of its own.

The agent tells it what it sees, with the time of any clock that never goes back, and asks after
each frame.

Longer than others: its rules lean on the same few numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from splitpoint.partition.plan.costs import CostTable, Floats
from splitpoint.partition.plan.online_planner import OnlinePlanner
from splitpoint.partition.significant import significant

from .conditions import Conditions
from .uplink_estimate import LONG_MS, UplinkEstimate

CAUTIOUS = 20  # percentile of the uplink's rate that decisions are made for
SPREAD = (10, 30, 50, 70, 90)  # percentiles that stand for the whole distribution
WAITS = (0.5, 0.9, 0.1, 0.7, 0.3)  # of an interval, paired with them
# A plan is left for one that is better by this share, and seen to be so in as many frames.
MARGIN, LEAST_GAIN_MS, IN_A_ROW = 0.03, 0.5, 3
# Plans within this share of the best are as good as it: the one that loses least is taken.
EQUAL = 0.015
# Of frames in time, what makes a difference between two plans, and what makes one worth leaving.
EQUAL_SHARE, LEAVING_SHARE = 0.02, 0.1
HOLD_S = 0.5  # at least, between two switches
# A better link shows itself to probes only where frames are few or small. A probe is to take so
# long on the link as it is known, which is 2 % of its capacity; and to fit TCP's first window,
# beyond which a connection that was idle pays another round trip.
PROBE_EVERY_S, PROBE_MS = 1.0, 20.0
FIRST_PROBE_BYTES, LEAST_PROBE_BYTES, MOST_PROBE_BYTES = 4 << 10, 1 << 10, 16 << 10
HOPED_MBPS = 1e4
MOST_WAIT_MS = 1e6  # that a worker is believed


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """From one candidate of the table to another, and why, in one line."""

    before: int
    after: int
    why: str


@dataclass(frozen=True, slots=True)
class Outlook:
    """All candidates under given conditions: their scores `[n]`, and the share in time `[n]`."""

    scores: Floats
    latency_ms: Floats
    in_time: Floats


class Controller:
    """Follows the link, the worker's load and the device's speed.

    `table` holds the candidates, `planner` their static limits and the objective, `start` is the
    candidate that runs. `budget_ms` is a frame's; `interval_ms` the time between two frames of a
    live source, which a plan must keep up with, None where frames wait for each other.
    `finishes_in_ms` says by boundary what the device takes to finish a frame that the cloud does
    not answer, None where it cannot.
    """

    def __init__(
        self,
        table: CostTable,
        planner: OnlinePlanner,
        *,
        start: int,
        budget_ms: float,
        round_trip_ms: float,
    ) -> None:
        self._table, self._planner, self._budget_ms = table, planner, budget_ms
        self.current = start
        self.interval_ms: float | None = None
        self.finishes_in_ms: Mapping[int, float] | None = None
        self.uplink = UplinkEstimate()
        self.conditions = Conditions(round_trip_ms)
        self._switched_s = -math.inf
        self._probed_s, self._next_bytes = -math.inf, 0
        self._better = 0  # frames in a row after which another plan was better
        self._then: Mapping[str, float] = {}  # the conditions at the last switch, or at first
        self._upload_ms_mbps = table.sends * table.nbytes * 8e-3  # ms at 1 Mbit/s
        self._loss = np.nan_to_num(table.loss)
        self._finish_ms = np.full(len(table), np.inf)  # [n]
        self._finish_ms_of: Mapping[int, float] | None = None  # what that was made from

    def knows(self, now_s: float, mbps: Iterable[float]) -> None:
        """The link was measured before the first frame: equally likely rates."""
        for rate in mbps:
            self.uplink.sent(now_s, LONG_MS * rate * 125, LONG_MS)

    # What the agent sees. -------------------------------------------------------------------

    def computed(self, candidate: int, ms: float) -> None:
        """The device computed and encoded a frame as `candidate` in `ms`."""
        expected = self._table.edge_ms[candidate] + self._table.encode_ms[candidate]
        self.conditions.edge_took(ms, float(expected))

    def answered(
        self, now_s: float, candidate: int, *, nbytes: float, left_ms: float, queue_ms: float,
        server_ms: float,
    ) -> None:  # fmt: skip
        """The worker answered a frame of `nbytes`, which took `left_ms` to leave the device.

        It waited `queue_ms` there; decoding and computing took `server_ms`.
        """
        if left_ms >= 0:  # where answers overtake each other nobody can tell
            self.uplink.sent(now_s, nbytes, left_ms)
        self.conditions.queued(now_s, queue_ms)
        self.conditions.server_took(server_ms, float(self._table.server_ms[candidate]))

    def late(self, now_s: float, nbytes: float, waited_ms: float) -> None:
        """A frame was not answered within `waited_ms` of its sending."""
        conditions = self.conditions
        server_ms = float(self._table.server_ms[self.current]) * conditions.server_factor
        known_ms = conditions.round_trip_ms + self._queue_ms(now_s) + server_ms
        if waited_ms > known_ms:  # or it could not have been answered yet
            self.uplink.unanswered(now_s, nbytes, waited_ms - known_ms)

    def load(self, now_s: float, wait_ms: Sequence[float], server_factor: float) -> None:
        """The worker says how long frames wait, and how its times compare with its profile.

        `wait_ms` is by boundary; frames may wait less long where others come by on their way.
        """
        waits, sends = np.zeros(len(self._table)), self._table.sends > 0
        said = np.clip(np.nan_to_num(np.asarray(wait_ms, np.float64)), 0.0, MOST_WAIT_MS)
        waits[sends] = said[self._table.boundary[sends]]
        self.conditions.load(now_s, waits, server_factor)

    def echoed(self, now_s: float, nbytes: float, ms: float) -> None:
        """A probe with `nbytes` of padding came back after `ms`."""
        if nbytes == 0:
            self.conditions.round_trip(ms)
            return
        took_ms = ms - self.conditions.round_trip_ms
        if took_ms < PROBE_MS / 2 and nbytes < MOST_PROBE_BYTES:
            self._next_bytes = int(min(4 * nbytes, MOST_PROBE_BYTES))  # too short to tell
            return
        self._next_bytes = 0
        self.uplink.probed(now_s, nbytes, took_ms)

    # What it makes of that. -----------------------------------------------------------------

    def decide(self, now_s: float) -> Switch | None:
        """The switch that is due now, if any. Call it once after each frame or probe."""
        cautious = self.uplink.mbps(now_s, CAUTIOUS)
        if cautious is None:
            return None
        self._then = self._then or self._state(now_s, cautious)
        outlook = self.outlook(now_s, cautious)
        best = self._best(outlook)
        if best is None or not self._worth_leaving(outlook, best):
            self._better = 0
            return None
        self._better += 1
        if self._better < IN_A_ROW or now_s - self._switched_s < HOLD_S:
            return None
        why = self._explain(now_s, cautious, outlook, best)
        switch = Switch(before=self.current, after=best, why=why)
        self.current, self._switched_s, self._better = best, now_s, 0
        self._then = self._state(now_s, cautious)
        return switch

    def probe_bytes(self, now_s: float) -> int | None:
        """The padding of a probe that is due now, None where none is.

        One is due when nothing was seen of the link for a while, and a better link would change
        the plan: where all stays on the device whatever the link, none ever is.
        """
        if self._next_bytes:
            nbytes, self._next_bytes = self._next_bytes, 0
            return nbytes
        if now_s - self._probed_s < PROBE_EVERY_S:
            return None
        middle = self.uplink.mbps(now_s, 50)
        if middle is None:
            self._probed_s = now_s
            return FIRST_PROBE_BYTES
        hoped = self.outlook(now_s, HOPED_MBPS, hoping=True)
        best = self._best(hoped)
        if best is None or not self._worth_leaving(hoped, best):
            return None
        nbytes = int(min(max(middle * PROBE_MS * 125, LEAST_PROBE_BYTES), MOST_PROBE_BYTES))
        if self.uplink.largest_since(now_s - PROBE_EVERY_S) >= nbytes:
            return None  # the frames themselves tell as much
        self._probed_s = now_s
        return nbytes

    def outlook(self, now_s: float, mbps: float, *, hoping: bool = False) -> Outlook:
        """Scores at the rate `mbps`, shares in time over the whole distribution.

        Hoping, that rate is sure and the worker is idle.
        """
        table, conditions = self._table, self.conditions
        metrics = table.metrics(
            self._upload_ms_mbps / mbps,
            round_trip_ms=conditions.round_trip_ms,
            queue_ms=0.0 if hoping else conditions.queue_ms(now_s),
            server_factor=min(conditions.server_factor, 1.0)
            if hoping
            else conditions.server_factor,
            edge_factor=conditions.edge_factor,
        )
        factor = conditions.edge_factor
        own_ms = (table.edge_ms + table.encode_ms) * factor
        rest_ms = self._rest_ms() * factor
        # Where the device can finish a frame in time it begins to before it would be too late; an
        # answer of the cloud still counts until the budget's end.
        saved = (own_ms + rest_ms <= self._budget_ms) & (table.sends > 0)
        rates = np.array([mbps] if hoping else self.uplink.spread(now_s, SPREAD))
        upload_ms = self._upload_ms_mbps / rates[:, np.newaxis]  # [rates, n]
        longer_ms = upload_ms - self._upload_ms_mbps / mbps
        in_time = np.ones(upload_ms.shape)
        if self.interval_ms is not None:
            # Stages overlap. Where frames come faster than the device takes them, one waits for up
            # to an interval before it begins.
            edge_ms = table.device_ms * factor
            waits = np.array(WAITS[: len(rates)])[:, np.newaxis] * self.interval_ms
            longer_ms += np.where(edge_ms > self.interval_ms, waits, 0.0)
            busy_ms = np.maximum(edge_ms, np.maximum(upload_ms, metrics.server_ms))
            in_time = np.minimum(1.0, self.interval_ms / np.maximum(busy_ms, 1e-6))
            alone_ms = table.edge_ms * factor + rest_ms
            saved_share = np.minimum(1.0, self.interval_ms / np.maximum(alone_ms, 1e-6)) * saved
        else:
            saved_share = saved
        late = metrics.latency_ms + longer_ms > self._budget_ms
        in_time = np.where(late, saved_share, in_time).mean(0)
        in_vain = saved & (metrics.latency_ms > self._budget_ms)
        metrics = replace(
            metrics, latency_ms=np.where(in_vain, self._budget_ms, metrics.latency_ms)
        )
        scores = self._planner.scores(metrics, table.spread_ms)
        if not np.isfinite(scores).any():  # nothing keeps to the deadline: the quickest, then
            scores = np.where(self._planner.allowed, metrics.latency_ms, np.inf)
        return Outlook(scores, metrics.latency_ms, in_time)

    def _best(self, outlook: Outlook) -> int | None:
        """Of those with the most frames in time, the best; of equals, what loses least."""
        possible = np.isfinite(outlook.scores)
        if not possible.any():
            return None
        most = outlook.in_time[possible].max()
        scores = np.where(outlook.in_time >= most - EQUAL_SHARE, outlook.scores, np.inf)
        equal = np.flatnonzero(scores <= (1 + EQUAL) * scores.min())
        if len(equal) == 1:
            return int(equal[0])
        return int(equal[np.lexsort((scores[equal], self._loss[equal]))[0]])

    def _worth_leaving(self, outlook: Outlook, best: int) -> bool:
        """Whether `best` is better than what runs by more than the noise of estimates."""
        now, then = outlook.scores[self.current], outlook.scores[best]
        if best == self.current or now == then:
            return False
        if outlook.in_time[best] >= outlook.in_time[self.current] + LEAVING_SHARE:
            return True
        sooner_ms = outlook.latency_ms[self.current] - outlook.latency_ms[best]
        # A score holds a little of the latency beside what is aimed at, to tell equals apart.
        latency_ms = outlook.latency_ms[self.current]
        aims_at_latency = abs(now - latency_ms) <= 1e-6 * latency_ms
        return bool(
            now > (1 + MARGIN) * then and (not aims_at_latency or sooner_ms > LEAST_GAIN_MS)
        )

    def _rest_ms(self) -> Floats:
        """What finishing on the device takes each candidate, `[n]`; infinite where it cannot."""
        said = self.finishes_in_ms
        if said is not self._finish_ms_of:
            self._finish_ms_of = said
            self._finish_ms = np.array(
                [(said or {}).get(int(at), math.inf) for at in self._table.boundary]
            )
        return self._finish_ms

    def _queue_ms(self, now_s: float) -> float:
        """For a frame of the present plan."""
        waits = self.conditions.queue_ms(now_s)
        return float(np.broadcast_to(waits, (len(self._table),))[self.current])

    def _state(self, now_s: float, mbps: float) -> dict[str, float]:
        conditions = self.conditions
        return {
            "uplink": mbps,
            "queue": self._queue_ms(now_s),
            "server": conditions.server_factor,
            "device": conditions.edge_factor,
            "round trip": conditions.round_trip_ms,
        }

    def _explain(self, now_s: float, mbps: float, outlook: Outlook, best: int) -> str:
        """What changed most since the last switch, and what the new plan brings."""
        state = self._state(now_s, mbps)
        changes = {
            # A millisecond more or less is no cause, however many times another it is.
            name: abs(math.log((value + least) / (self._then[name] + least)))
            for name, value in state.items()
            for least in [1.0 if name in ("queue", "round trip") else 1e-3]
        }
        cause = max(changes, key=lambda name: changes[name])
        words = {
            "uplink": f"uplink {significant(mbps, 2)} Mbit/s (p{CAUTIOUS})",
            "queue": f"the worker's queue {state['queue']:.0f} ms",
            "server": f"the worker takes {significant(state['server'], 2)}x its profile",
            "device": f"the device takes {significant(state['device'], 2)}x its profile",
            "round trip": f"round trip {state['round trip']:.0f} ms",
        }[cause]
        table, now = self._table, self.current
        moved = f"{_short(table, now, best)} -> {_short(table, best, now)}"
        gain_ms = outlook.latency_ms[now] - outlook.latency_ms[best]
        share = outlook.in_time[best] - outlook.in_time[now]
        brings = f"{abs(gain_ms):.0f} ms {'sooner' if gain_ms >= 0 else 'later'}"
        if share >= LEAVING_SHARE:
            brings += f", {100 * share:.0f} % more frames in time"
        return f"{words}: {moved}, {brings}"


def _short(table: CostTable, index: int, other: int) -> str:
    """The candidate in words, without what it shares with the other."""
    if not table.sends[index]:
        name = "local"
    elif table.boundary[index] == table.boundary[other] and table.sends[other]:
        name = table.codec[index]
    else:
        name = f"boundary {table.boundary[index]} as {table.codec[index]}"
    if table.runtime[index] != table.runtime[other]:
        name += f" in {table.runtime[index]}"
    return name
