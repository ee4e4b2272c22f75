"""What the transform codec's payloads hold, before a coefficient is multiplied with anything.

All numbers are integers here, and mostly small ones: the table and the level make a tensor of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from ..spec import Array
from .symbols import FINE
from .table import FktTable, Level, banded_places


@dataclass(frozen=True, slots=True, eq=False)
class PackedFkt:
    """Coefficients of a batch at a level of a table with C channels and P positions.

    `values` are the n coefficients that the level sends, int16 `[batch, n]` in 1/64 step and in the
    order of `level.order`. `peaks`, int64 `[k]` in 1/64 step, go over them: those beyond int16, and
    outliers. `places` is where, int64 `[k]` among batch x C x P, with the positions in the order of
    the table's bands; no place comes twice.
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
        """From values, int32 or int64 `[batch, n]`, and each sample's outliers.

        An index may come twice in a damaged payload; its last value then counts on any device.
        """
        size = table.log_scale.size
        small, rows, columns = table.loops.narrowed(values)
        if not len(rows) and not any(map(len, outliers)):
            nothing = np.zeros(0, np.int64)
            return cls(table, level, small, nothing, nothing)
        places, peaks = [rows * size + level.banded[columns]], [values[rows, columns]]
        for row, own in enumerate(outliers):
            places.append(row * size + banded_places(table, own["index"].astype(np.int64)))
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
        """In units of loss, float32 `[batch, C, P]`, positions in the order of the bands."""
        size = self.table.log_scale.size
        found = self.table.loops.spread(self.values, self.level.banded, self.scale, size)
        if len(self.places):
            scale = np.float32(self.scale)
            found.reshape(-1)[self.places] = self.peaks.astype(np.float32) * scale
        return found.reshape(-1, *self.table.log_scale.shape)

    def unpack(self) -> Array:
        """See `Packed`."""
        rows = self.table.unbanded(self.coefficients())
        return self.table.grid.tensor(rows, self.table.spec.shape_at(len(self.values)))
