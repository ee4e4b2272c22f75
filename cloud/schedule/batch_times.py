"""What each segment takes for a batch of any size, from a few sizes that were measured."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from splitpoint.proto.limits import MAX_BATCH_PER_FRAME


class BatchTimes:
    """`seconds[segment][samples]`, never less for more samples.

    `max_batch` is the room of a batch: so many samples are computed together at most. A single
    frame may have more, up to what the wire allows. It is computed in pieces, and costs what they
    cost; there are no rows beyond that.

    `measured_ms` holds milliseconds by batch size for each segment, size 1 among them. Between two
    sizes the time is interpolated; beyond the largest it goes on as a sample costs there. With
    `padded`, every batch runs as the next larger of the measured sizes, and costs what that costs.
    """

    def __init__(
        self, measured_ms: Sequence[Mapping[int, float]], max_batch: int, *, padded: bool = False
    ) -> None:
        self._set([_dense(sizes, max_batch, padded) for sizes in measured_ms], max_batch)

    def _set(self, rows: Sequence[list[float]], max_batch: int) -> None:
        self.max_batch = max_batch
        self.seconds = [_in_pieces(row, max_batch) for row in rows]
        self._limited: dict[int, BatchTimes] = {}
        # One sample from each boundary to the end, the last boundary's 0 at the end.
        ones = [row[1] for row in reversed(self.seconds)]
        self.alone = [*reversed(list(itertools.accumulate(ones))), 0.0]

    def __len__(self) -> int:
        """How many segments there are."""
        return len(self.seconds)

    def limited(self, max_batch: int) -> BatchTimes:
        """The same device with room for no more than `max_batch` samples, at least one."""
        if max_batch >= self.max_batch:
            return self
        if max_batch not in self._limited:
            found = self._limited[max_batch] = BatchTimes.__new__(BatchTimes)
            found._set(self.seconds, max(max_batch, 1))
        return self._limited[max_batch]

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


def _in_pieces(row: list[float], max_batch: int) -> list[float]:
    """The row with what frames of more samples than `max_batch` take."""
    most = max(max_batch, MAX_BATCH_PER_FRAME)
    whole = row[max_batch]
    return [
        row[samples]
        if samples <= max_batch
        else samples // max_batch * whole + row[samples % max_batch]
        for samples in range(most + 1)
    ]
