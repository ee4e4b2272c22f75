"""The most frames in time that any schedule could reach which knows the whole trace, or more.

The Lagrangian dual of filling device and link: each slot of time has a price for a second of the
device and one for a byte on the link; a frame takes the way that leaves most of its worth of 1 when
it buys at the cheapest slot of its window; what the slots could sell at their prices comes on top.
Whatever the prices, that is no less than the best schedule's frames in time (weak duality), so it
errs upwards: by work that is cut into pieces, encoding and credits that cost nothing, and by the
prices that were found. Subgradient steps look for the lowest. It is the bound for usual sizes and
times: where a way is in time by a hair, luck may carry it some points beyond.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from splitpoint.partition.plan.costs import Floats
from splitpoint.partition.plan.link import Capacity

from .course import Course, Truth

SLOT_S, STEPS = 0.05, 150
# Of the price at which a usual frame is worth nothing: the first step, and how far apart the prices
# of slots are that share a frame's work while the lowest is looked for.
STEP, HEAT = 0.1, 0.1


def most_in_time(truth: Truth, arms: npt.NDArray[np.int64], course: Course) -> float:
    """Percent of the course's frames, with the candidates `arms` of the table to choose from."""
    return _Dual(truth, arms, course).percent()


class _Dual:
    def __init__(self, truth: Truth, arms: npt.NDArray[np.int64], course: Course) -> None:
        end_s = course.frames * course.interval_s + course.budget_s
        self._frames, self._slots = course.frames, int(np.ceil(end_s / SLOT_S)) + 1
        edges_s = course.start_s + SLOT_S * np.arange(self._slots + 1)
        capacity = Capacity(course.link)
        self._bytes = np.diff(capacity.carried(edges_s))
        self._edge_s, self._nbytes = truth.edge_s[arms], truth.nbytes[arms]
        encode_s = np.asarray(np.where(self._nbytes > 0, truth.encode_s[arms], 0.0), np.float64)
        round_trip_s = course.link.round_trip_ms / 1e3
        away_s = np.where(self._nbytes > 0, round_trip_s + truth.server_s[arms], 0.0)
        taken_s = np.arange(course.frames) * course.interval_s
        until_s = np.asarray(taken_s[:, np.newaxis] + course.budget_s - away_s, np.float64)
        # Windows of slots, `[k, a, w]`, those beyond their end once more the last.
        self._compute = self._windows(
            np.repeat(taken_s[:, np.newaxis], len(arms), 1), until_s - encode_s
        )
        self._send = self._windows(taken_s[:, np.newaxis] + self._edge_s + encode_s, until_s)
        ready_s = taken_s[:, np.newaxis] + self._edge_s + encode_s
        # Alone on the link it must fit between being ready and the last moment.
        room = capacity.carried(course.start_s + np.maximum(until_s, ready_s)) - capacity.carried(
            course.start_s + ready_s
        )
        self._possible = (until_s >= ready_s) & (room >= self._nbytes)

    def percent(self) -> float:
        """The lowest that was found."""
        usual_s = float(np.median(self._edge_s[self._edge_s > 0]))
        sent = self._nbytes[self._nbytes > 0]
        usual_bytes = float(np.median(sent)) if len(sent) else 1.0
        device, link = np.zeros(self._slots), np.zeros(self._slots)
        best = float(self._frames)
        for step in range(STEPS):
            heat = HEAT * 0.5 ** (6 * step / STEPS)
            value, used_s, used_bytes = self._value(
                device, link, heat / usual_s, heat / usual_bytes
            )
            best = min(best, value)
            size = STEP * 0.5 ** (5 * step / STEPS)
            over = np.clip(used_s / SLOT_S - 1, -1, 1)
            device = np.maximum(device + size / usual_s * over, 0.0)
            over = np.clip(used_bytes / np.maximum(self._bytes, 1.0) - 1, -1, 1)
            link = np.maximum(link + size / usual_bytes * over, 0.0)
        return 100 * best / self._frames

    def _value(
        self, device: Floats, link: Floats, device_heat: float, link_heat: float
    ) -> tuple[float, Floats, Floats]:
        on_device, on_link = device[self._compute].min(-1), link[self._send].min(-1)
        gain = 1 - self._edge_s * on_device - self._nbytes * on_link
        gain = np.where(self._possible, gain, 0.0)
        arm = gain.argmax(1)
        frames = np.arange(self._frames)
        taken = gain[frames, arm] > 0
        frames, arm = frames[taken], arm[taken]
        used_s = self._used(self._compute[frames, arm], device, device_heat, self._edge_s[arm])
        used_bytes = self._used(self._send[frames, arm], link, link_heat, self._nbytes[arm])
        value = gain[frames, arm].sum() + SLOT_S * device.sum() + link @ self._bytes
        return float(value), used_s, used_bytes

    def _used(
        self, windows: npt.NDArray[np.int64], prices: Floats, heat: float, sizes: Floats
    ) -> Floats:
        """Of each slot, where frames share their sizes out over their windows by price."""
        found = prices[windows]
        shares = np.exp((found.min(-1)[:, np.newaxis] - found) / heat)
        shares /= shares.sum(-1)[:, np.newaxis]
        weights = (shares * sizes[:, np.newaxis]).ravel()
        used = np.bincount(windows.ravel(), weights=weights, minlength=self._slots)
        return np.asarray(used, np.float64)

    def _windows(self, from_s: Floats, until_s: Floats) -> npt.NDArray[np.int64]:
        first = np.floor(from_s / SLOT_S).astype(np.int64)
        last = np.maximum(np.floor(until_s / SLOT_S).astype(np.int64), first)
        width = int((last - first).max()) + 1
        slots = np.minimum(first[..., np.newaxis] + np.arange(width), last[..., np.newaxis])
        return np.asarray(np.clip(slots, 0, self._slots - 1), np.int64)
