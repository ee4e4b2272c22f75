"""What the transform codec's payloads hold, before a coefficient is multiplied with anything.

All numbers are integers here, and mostly small ones: the table and the level make a tensor of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from ..spec import Array
from .table import FINE, FktTable, Level


@dataclass(frozen=True, slots=True, eq=False)
class PackedFkt:
    """Coefficients of a batch at a level of a table with C channels and P positions.

    `values` are the n coefficients that the level sends, int16 `[batch, n]` in 1/64 step and in the
    order of `level.order`. `peaks`, int64 `[k]` in 1/64 step, go over them: those beyond int16, and
    outliers. `places` is where, int64 `[k]` among batch x C x P; no place comes twice.
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
        """From values, int64 `[batch, n]`, and each sample's outliers, with `value` in steps.

        An index may come twice in a damaged payload; its last value then counts on any device.
        """
        size = table.log_scale.size
        small = values.astype(np.int16)
        rows, columns = np.nonzero(small != values)
        places, peaks = [rows * size + level.order[columns]], [values[rows, columns]]
        small[rows, columns] = 0
        for row, own in enumerate(outliers):
            places.append(row * size + own["index"].astype(np.int64))
            peaks.append(FINE * own["value"].astype(np.int64))
        where, height = np.concatenate(places), np.concatenate(peaks)
        if len(where):
            where, last = np.unique(where[::-1], return_index=True)
            height = height[::-1][last]
        return cls(table, level, small, where, height)

    @classmethod
    def joined(cls, pieces: Sequence[PackedFkt]) -> PackedFkt:
        """Several batches at the same level of the same table as one, in their order."""
        first, starts = pieces[0], [0, *accumulate(len(piece.values) for piece in pieces)]
        size = first.table.log_scale.size
        return cls(
            first.table,
            first.level,
            np.concatenate([piece.values for piece in pieces]),
            np.concatenate(
                [piece.places + size * row for piece, row in zip(pieces, starts, strict=False)]
            ),
            np.concatenate([piece.peaks for piece in pieces]),
        )

    @property
    def scale(self) -> float:
        """A 1/64 step in units of loss, a number that float32 has."""
        return float(np.float32(self.level.step / FINE))

    @property
    def parts(self) -> tuple[Array, ...]:
        """See `Packed`; without peaks there are their values only."""
        return (self.values, self.places, self.peaks) if len(self.places) else (self.values,)

    def coefficients(self) -> Array:
        """In units of loss, float32 `[batch, C, P]`."""
        fine = np.zeros((len(self.values), self.table.log_scale.size), np.float32)
        fine[:, self.level.order] = self.values
        fine.reshape(-1)[self.places] = self.peaks
        fine *= self.scale
        return fine.reshape(-1, *self.table.log_scale.shape)

    def unpack(self) -> Array:
        """See `Packed`."""
        rows = self.table.inverse(self.coefficients())
        return self.table.grid.tensor(rows, self.table.spec.shape_at(len(self.values)))
