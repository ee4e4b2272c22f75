"""What each segment takes for a batch of any size, from a few sizes that were measured."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np


class BatchTimes:
    """`seconds[segment][samples]` for 0 to `max_batch` samples, never less for more samples.

    `measured_ms` holds milliseconds by batch size for each segment, size 1 among them. Between two
    sizes the time is interpolated; beyond the largest it goes on as a sample costs there. With
    `padded`, every batch runs as the next larger of the measured sizes, and costs what that costs.
    """

    def __init__(
        self, measured_ms: Sequence[Mapping[int, float]], max_batch: int, *, padded: bool = False
    ) -> None:
        self.max_batch = max_batch
        self.seconds = [_dense(sizes, max_batch, padded) for sizes in measured_ms]
        # One sample from each boundary to the end, the last boundary's 0 at the end.
        ones = [row[1] for row in reversed(self.seconds)]
        self.alone = [*reversed(list(itertools.accumulate(ones))), 0.0]

    def __len__(self) -> int:
        """How many segments there are."""
        return len(self.seconds)

    def suffix_s(self, boundary: int, samples: int) -> float:
        """Seconds from `boundary` to the end for a batch that enters there."""
        if samples == 1:
            return self.alone[boundary]
        return sum(row[samples] for row in self.seconds[boundary:])


def _dense(sizes: Mapping[int, float], max_batch: int, padded: bool) -> list[float]:
    known = sorted(sizes)
    ms = np.maximum.accumulate([sizes[size] for size in known])
    asked = np.arange(1, max_batch + 1)
    if padded:
        index = np.minimum(np.searchsorted(known, asked), len(known) - 1)
        found = ms[index]
    else:
        found = np.interp(asked, known, ms)
    beyond = asked > known[-1]
    found = np.where(beyond, ms[-1] * asked / known[-1], found)
    return [0.0, *(found / 1e3).tolist()]
