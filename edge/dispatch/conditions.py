"""How far the device and the worker are from their profiles now."""

from __future__ import annotations

from splitpoint.partition.plan.costs import Floats

NEWEST = 0.25  # weight of the latest measurement in a mean
# A worker that nobody asks empties its queue: what was seen of it is half as long after this.
QUEUE_HALF_LIFE_S = 10.0
FIRST_SPREAD, NEWEST_SPREAD = 0.05, 0.05
DEVIATION = 1.25  # standard deviations in a mean deviation, of normal times
LEAST_FACTOR, MOST_FACTOR, AT_ONCE = 0.1, 50.0, 1.5
# Work that takes so little tells of calls and clocks; what was known of the machine is forgotten.
# On the device a call and a thread cost most of a millisecond, whatever the work is.
TELLING_MS, DEVICE_TELLING_MS, FORGET = 0.2, 2.0, 0.02
# A device that computes nothing cannot show that it is fast again. With each frame that is let go
# beside it, its factor loses this share of what it has above 1.
HOPE = 0.1


class Conditions:
    """Means of what frames show: factors on the profiles' times, the queue, the round trip.

    `edge_spread` is how far single times of the device lie around their mean, as a share of it: a
    standard deviation.
    """

    def __init__(self, round_trip_ms: float) -> None:
        self.edge_factor, self.server_factor = 1.0, 1.0
        self.edge_spread = FIRST_SPREAD
        self.round_trip_ms = round_trip_ms
        self._queue_ms: Floats | float = 0.0
        self._queue_at_s = 0.0

    def edge_took(self, ms: float, expected_ms: float) -> None:
        """The device computed and encoded in `ms` what its profile says takes `expected_ms`."""
        if expected_ms < DEVICE_TELLING_MS:
            self.edge_factor += FORGET * (1 - self.edge_factor)
            return
        off = min(abs(ms / expected_ms / self.edge_factor - 1), 1.0)
        self.edge_spread += NEWEST_SPREAD * (DEVIATION * off - self.edge_spread)
        self.edge_factor = _towards(self.edge_factor, ms, expected_ms)

    def device_idles(self) -> None:
        """A frame was let go while the device had nothing to do."""
        self.edge_factor += HOPE * min(1 - self.edge_factor, 0.0)

    def server_took(self, ms: float, expected_ms: float) -> None:
        """The same for the worker, without the queue."""
        self.server_factor = _towards(self.server_factor, ms, expected_ms)

    def queued(self, now_s: float, ms: float) -> None:
        """A frame waited so long at the worker."""
        self._queue_ms = self._queue_ms + NEWEST * (ms - self._queue_ms)
        self._queue_at_s = now_s

    def load(self, now_s: float, queue_ms: Floats | float, server_factor: float) -> None:
        """What the worker itself says; its queue may be longer for some candidates than others."""
        self._queue_ms, self._queue_at_s = queue_ms, now_s
        self.server_factor = min(max(server_factor, LEAST_FACTOR), MOST_FACTOR)

    def queue_ms(self, now_s: float) -> Floats | float:
        """How long a frame is expected to wait at the worker, as whichever candidate."""
        silent_s = max(now_s - self._queue_at_s, 0.0)
        return self._queue_ms * float(0.5 ** (silent_s / QUEUE_HALF_LIFE_S))


def _towards(factor: float, ms: float, expected_ms: float) -> float:
    if expected_ms < TELLING_MS:
        return factor + FORGET * (1 - factor)
    seen = min(max(ms / expected_ms, LEAST_FACTOR), MOST_FACTOR)
    # One frame of a device that did something else for a moment says little of the next.
    seen = min(max(seen, factor / AT_ONCE), factor * AT_ONCE)
    return factor + NEWEST * (seen - factor)
