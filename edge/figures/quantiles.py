"""Percentiles of a run of any length, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# Exact up to so many values; a bucket spans 2 % of its value beyond that, so that its middle is
# within 1 %. From a microsecond to a year that makes 1,500 buckets at most.
EXACT, SPAN, LEAST = 4096, 1.02, 1e-3


class Quantiles:
    """Collects numbers that are not negative; their percentiles are exact or within 1 %.

    The buckets are those of DDSketch (Masson, Rim and Lee, VLDB 2019): their bounds grow by a
    constant factor. Everything below `LEAST` is taken as that.
    """

    def __init__(self) -> None:
        self._values: list[float] = []
        self._buckets: dict[int, int] = {}
        self.count = 0

    def add(self, value: float) -> None:
        """One more number."""
        self.count += 1
        if not self._buckets:
            self._values.append(value)
            if len(self._values) <= EXACT:
                return
            values, self._values = self._values, []
        else:
            values = [value]
        for number in values:
            bucket = math.floor(math.log(max(number, LEAST)) / math.log(SPAN))
            self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def percentiles(self, wanted: Sequence[float]) -> list[float] | None:
        """A number for each of the percentages; None when there is nothing yet."""
        if not self.count:
            return None
        if self._values:
            return [float(value) for value in np.percentile(self._values, wanted)]
        buckets = sorted(self._buckets)
        ends = np.cumsum([self._buckets[bucket] for bucket in buckets])
        ranks = np.asarray(wanted) / 100 * (self.count - 1)
        places = np.searchsorted(ends, ranks, side="right")
        # The middle by ratio of the bucket's two bounds.
        return [SPAN ** (buckets[place] + 0.5) for place in places]
