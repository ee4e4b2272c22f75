"""What the transform codec's payloads hold, before a coefficient is multiplied with anything.

All numbers are integers here, and mostly small ones: the table and the level make a tensor of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .fkt_table import FINE, FktTable, Level
from .spec import Array

_INTEGERS = (np.int8, np.int16, np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class PackedFkt:
    """Coefficients of a batch at a level of a table with C channels and P positions.

    `values` are the n coefficients that the level sends, `[batch, n]` in 1/64 step and in the
    order of `level.order`. `peaks` are outliers, int32 `[k]` in whole steps, and `places` where
    they go, int64 `[k]` among batch x C x P; no place comes twice.
    """

    table: FktTable
    level: Level
    values: Array
    places: Array
    peaks: Array

    @classmethod
    def of(
        cls, table: FktTable, level: Level, values: Array, outliers: Sequence[Array]
    ) -> PackedFkt:
        """From the values, int64 `[batch, n]`, and for each sample its outliers' indices and values.

        An index may come twice in a damaged payload: then its last value counts on every device.
        """
        size = table.log_scale.size
        places = np.concatenate(
            [row * size + own["index"].astype(np.int64) for row, own in enumerate(outliers)]
        )
        peaks = np.concatenate([own["value"] for own in outliers])
        if len(places):
            places, last = np.unique(places[::-1], return_index=True)
            peaks = peaks[::-1][last]
        return cls(table, level, _narrow(values), places, peaks)

    @property
    def scale(self) -> np.float32:
        """A 1/64 step in units of loss."""
        return np.float32(self.level.step / FINE)

    @property
    def parts(self) -> tuple[Array, ...]:
        """See `Packed`; outliers are left out where there are none."""
        return (self.values, self.places, self.peaks) if len(self.places) else (self.values,)

    def coefficients(self) -> Array:
        """In units of loss, float32 `[batch, C, P]`."""
        fine = np.zeros((len(self.values), self.table.log_scale.size), np.float32)
        fine[:, self.level.order] = self.values
        fine.reshape(-1)[self.places] = FINE * self.peaks.astype(np.float32)
        fine *= self.scale
        return fine.reshape(-1, *self.table.log_scale.shape)

    def unpack(self) -> Array:
        """See `Packed`."""
        rows = self.table.inverse(self.coefficients())
        return self.table.grid.tensor(rows, self.table.spec.shape_at(len(self.values)))


def _narrow(values: Array) -> Array:
    """The same integers in the smallest type that holds them all."""
    low, high = values.min(initial=0), values.max(initial=0)
    for kind in _INTEGERS:
        limits = np.iinfo(kind)
        if limits.min <= low and high <= limits.max:
            return values.astype(kind)
    return values
