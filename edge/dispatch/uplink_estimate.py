"""The uplink's rate as a distribution, from what frames and probes took to leave the device."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

# Enough for a fifth to be told from the rest, few enough to be forgotten within 20 frames.
SAMPLES = 12
# Below this a transfer is lost in the jitter of two processes: it shows a least rate, no more.
SHORTEST_MS = 1.0
LONG_MS = 10.0  # above this, jitter does not matter any more
# The rate of an hour ago says nothing; half of a sample's weight is gone after so many seconds.
HALF_LIFE_S = 2.0
# So many samples in a row beyond all before them by this factor: the link is another one now.
CHANGED, APART = 3, 1.3
# After a while of silence, every so many seconds the link may be twice as slow or fast as it was.
SURE_S, DOUBT_S, MOST_DOUBT = 1.5, 10.0, 8.0


@dataclass(frozen=True, slots=True)
class _Sample:
    at_s: float
    nbytes: float
    mbps: float

    def weight(self, now_s: float) -> float:
        """Long transfers show the rate, short ones the jitter; but many short ones count too."""
        ms = self.nbytes * 8e-3 / self.mbps
        return math.sqrt(min(ms, LONG_MS)) * math.pow(0.5, (now_s - self.at_s) / HALF_LIFE_S)


class UplinkEstimate:
    """Weighted samples of the rate: the larger and the newer, the heavier.

    Times are the caller's, of any clock that never goes back. Without a sample every rate is None.
    """

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES)

    def sent(self, now_s: float, nbytes: float, ms: float) -> None:
        """`nbytes` took `ms` to leave the device, waiting for earlier ones and delay left out."""
        mbps = nbytes * 8e-3 / max(ms, SHORTEST_MS)
        if ms > SHORTEST_MS or mbps > (self.mbps(now_s, 50) or 0.0):
            self._add(_Sample(now_s, nbytes, mbps))

    def probed(self, now_s: float, nbytes: float, ms: float) -> None:
        """The same for a probe that was long enough to tell: beyond all samples, it replaces them.

        Probes are few; a changed link would otherwise take many of them to be believed.
        """
        mbps = nbytes * 8e-3 / max(ms, SHORTEST_MS)
        known = [sample.mbps for sample in self._samples]
        if known and (mbps > APART * max(known) or APART * mbps < min(known)):
            self._samples.clear()
        self.sent(now_s, nbytes, ms)

    def unanswered(self, now_s: float, nbytes: float, waited_ms: float) -> None:
        """`nbytes` may not even have left after `waited_ms`: the rate is at most that.

        Says nothing where the link is known to be slower.
        """
        mbps = nbytes * 8e-3 / max(waited_ms, SHORTEST_MS)
        known = self.mbps(now_s, 50)
        if known is None or mbps < known:
            self._add(_Sample(now_s, nbytes, mbps))

    def mbps(self, now_s: float, percent: float) -> float | None:
        """The rate in Mbit/s below which the link is for that share of the time.

        Beyond the middle, silence pulls it away from there: down below it, up above it.
        """
        return self.spread(now_s, (percent,))[0] if self._samples else None

    def spread(self, now_s: float, percents: Sequence[float]) -> list[float]:
        """The same for several shares; empty without a sample."""
        if not self._samples:
            return []
        newest_s = self._samples[-1].at_s
        # Weights are relative to the newest sample: silence must not shift them.
        samples = sorted((sample.mbps, sample.weight(newest_s)) for sample in self._samples)
        total = sum(weight for _, weight in samples)
        silent_s = max(now_s - newest_s - SURE_S, 0.0)
        doubt = 2 ** min(silent_s / DOUBT_S, math.log2(MOST_DOUBT))
        found = []
        for percent in percents:
            share, rate = 0.0, samples[-1][0]
            for mbps, weight in samples:
                share += weight
                if share >= percent / 100 * total:
                    rate = mbps
                    break
            beyond = (percent > 50) - (percent < 50)
            found.append(rate * doubt**beyond)
        return found

    def _add(self, sample: _Sample) -> None:
        self._samples.append(sample)
        older, newer = list(self._samples)[:-CHANGED], list(self._samples)[-CHANGED:]
        if not older:
            return
        high = max(old.mbps for old in older) * APART
        low = min(old.mbps for old in older) / APART
        if all(new.mbps > high for new in newer) or all(new.mbps < low for new in newer):
            self._samples = deque(newer, maxlen=SAMPLES)

    def largest_since(self, at_s: float) -> float:
        """The most bytes of a sample that came after `at_s`, 0 without any."""
        return max((sample.nbytes for sample in self._samples if sample.at_s > at_s), default=0.0)
