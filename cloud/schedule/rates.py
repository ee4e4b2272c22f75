"""What a device has been doing lately: how busy it is, how fast frames come, how true times are."""

from __future__ import annotations

import math

MEMORY_S = 1.0  # what happened this long ago counts 1/e
LEAST_FREE = 0.01  # of the device's time, the least to reckon with
NEWEST = 0.1  # weight of the latest step in the mean of how true the announced times are
LEAST_SLOWDOWN, MOST_SLOWDOWN = 0.2, 20.0
TELLING_S = 2e-4  # what is shorter tells of calls and clocks


class Rates:
    """Means that forget. Times are seconds of the caller's clock."""

    def __init__(self) -> None:
        self.slowdown = 1.0  # what steps take, over what was measured before
        self._busy, self._busy_at_s = 0.0, 0.0
        self._per_s, self._arrived_s = 0.0, 0.0

    def arrived(self, now_s: float) -> None:
        """A frame came."""
        self._per_s = self.arrivals_per_s(now_s) + 1 / MEMORY_S
        self._arrived_s = now_s

    def arrivals_per_s(self, now_s: float) -> float:
        """How many frames came lately."""
        return self._per_s * math.exp(min(self._arrived_s - now_s, 0.0) / MEMORY_S)

    def ran(self, now_s: float, took_s: float) -> None:
        """A step has ended that took `took_s`."""
        idle = self.busy(max(now_s - took_s, self._busy_at_s))
        self._busy = 1 - (1 - idle) * math.exp(-took_s / MEMORY_S)
        self._busy_at_s = now_s

    def answered(self, took_s: float, planned_s: float, steps: int) -> None:
        """An answer is there, for which so many `steps` were run since the one before."""
        if planned_s > TELLING_S:
            seen = took_s / planned_s * self.slowdown
            seen = min(max(seen, LEAST_SLOWDOWN), MOST_SLOWDOWN)
            self.slowdown += (1 - (1 - NEWEST) ** steps) * (seen - self.slowdown)

    def busy(self, now_s: float) -> float:
        """The share of the time that the device computed, 0 to 1."""
        return self._busy * math.exp(min(self._busy_at_s - now_s, 0.0) / MEMORY_S)

    def arrivals_until_idle(self, now_s: float, work_s: float) -> float:
        """How many frames will come before `work_s` of work, and that of those, is done.

        A queue with the share b of its time taken is busy for work / (1 - b) once it is (the busy
        period of M/G/1).
        """
        return self.arrivals_per_s(now_s) * work_s / max(1 - self.busy(now_s), LEAST_FREE)
