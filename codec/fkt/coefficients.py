"""The coefficients of a tensor to bytes and back: what the loops do, in which order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import CodecError
from ..spec import Array
from .loops import NotFinite, TooLarge
from .packed import PackedFkt
from .symbol_plan import SymbolPlan
from .symbols import MAX_DROPPED_STEPS
from .table import FktTable, Level

MAX_ERROR_STEPS = MAX_DROPPED_STEPS


class CoefficientCoder:
    """Coefficients of one table at one level. Made once, and then shared between threads."""

    def __init__(self, table: FktTable, level: int) -> None:
        self.table, self.level = table, Level.of(table, level)
        self.size = table.log_scale.size
        self.plan = SymbolPlan.of(self.level.classes, table.model)

    def banded(self, array: Array) -> Array:
        """Coefficients, float32 `[batch, C x P]` in units of loss, band after band; see `Level`."""
        table = self.table
        with np.errstate(over="ignore", invalid="ignore"):
            rows = table.along(table.grid.rows(array))
            return table.banded(rows).reshape(len(rows), -1)

    def sent(self, banded: Array) -> Array:
        """Those of one sample that are sent, float32 `[n]` in steps.

        `CodecError` if any is not finite.
        """
        try:
            return self.table.loops.picked(banded, self.level.step, self.level.banded)
        except NotFinite:
            raise self._not_finite() from None

    def outliers(self, banded: Array) -> Array:
        """Those that are not sent, but are far larger in this sample than ever before.

        `CodecError` if any is not finite, or cannot be written.
        """
        level = self.level
        try:
            return self.table.loops.outliers(banded, level.step, level.unsent_banded, level.unsent)
        except NotFinite:
            raise self._not_finite() from None
        except TooLarge:
            raise self._too_large() from None

    def quantise(self, steps: Array, classes: Array) -> Array:
        """Signed magnitudes, int32, of values in steps, float32 `[n]`.

        `CodecError` for a magnitude that cannot be written.
        """
        try:
            return self.table.loops.quantised(steps, classes, self.table.thresholds)
        except TooLarge:
            raise self._too_large() from None

    def fine(self, magnitudes: Array, classes: Array) -> Array:
        """Where the decoder puts them, int64 in 1/64 step."""
        return self.table.loops.placed(magnitudes, classes, self.table.offsets)

    def write(self, magnitudes: Array, plan: SymbolPlan, lanes: int, outliers: Array) -> bytes:
        """One sample from its signed magnitudes `[n]`, whose classes are those of `plan`."""
        return self.table.loops.written(magnitudes, plan, lanes, outliers)

    def read(self, payloads: Sequence[bytes], plan: SymbolPlan) -> tuple[Array, list[Array]]:
        """Values, int32 `[samples, n]` in 1/64 step, and each sample's outliers.

        `CodecError` for damage.
        """
        return self.table.loops.read(payloads, plan, self.table.offsets, self.size)

    def write_intra(self, banded: Array) -> bytes:
        """One sample of `banded`."""
        sent, outliers = self.sent(banded), self.outliers(banded)
        magnitudes = self.quantise(sent, self.level.classes)
        return self.write(magnitudes, self.plan, self.level.lanes, outliers)

    def read_intra(self, payloads: Sequence[bytes]) -> PackedFkt:
        """The coefficients of the samples."""
        return PackedFkt.of(self.table, self.level, *self.read(payloads, self.plan))

    def _not_finite(self) -> CodecError:
        return CodecError(
            f"tensor {self.table.spec.name!r} holds NaN, infinity or values beyond float32",
            "use the codec raw",
        )

    def _too_large(self) -> CodecError:
        return CodecError(
            f"tensor {self.table.spec.name!r} holds values far beyond those of calibration",
            "use the codec raw",
        )
