"""The seam between the transform codec and its inner loops, of which there are two forms.

`NumpyLoops` says in arrays what each one does: it is the reference, and serves where the extension
was not built. `NativeLoops` does the same in C, bit for bit, in a fraction of the time, and without
the GIL where that pays. The transforms' large matrix products both share: they are no part of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ..errors import CodecError
from ..spec import Array
from .symbol_plan import SymbolModel, SymbolPlan

OUTLIER = np.dtype([("index", "<u4"), ("value", "<i4")])
MAX_OUTLIERS = (1 << 16) - 1
RINGS = 12
MOST_IN_BLOCK = 16
SHARES = np.array([0, 2, 3, 4], np.int64)  # of 4


class NotFinite(CodecError):
    """Coefficients hold NaN or infinity."""


class TooLarge(CodecError):
    """A magnitude, or the number of outliers, cannot be written."""


class Loops(Protocol):
    """n is the number of coefficients that a level sends, of C x P; classes are uint8 `[n]`.

    Magnitudes are those of `quantised`, so none is beyond `MAX_MAGNITUDE`.
    """

    @property
    def name(self) -> str:
        """As a person is told."""
        ...

    def centred(self, rows: Array, mean: Array, order: Array) -> Array:
        """`rows - mean`, float32 `[batch, C, P]`, the positions in the order of `order`."""
        ...

    def restored(self, rows: Array, mean: Array, order: Array) -> Array:
        """Undoes `centred`."""
        ...

    def in_blocks(self, rows: Array, matrix: Array) -> Array:
        """Every block of float32 `[blocks, n, inner]` with `matrix`, `[n, n]`, along `n`.

        n is at most `MOST_IN_BLOCK`.
        """
        ...

    def picked(self, values: Array, step: float, order: Array) -> Array:
        """Those at `order` in steps, float32 `[n]`, of float32 `[C x P]`; may raise `NotFinite`."""
        ...

    def outliers(self, values: Array, step: float, unsent: Array, names: Array) -> Array:
        """Those at `unsent` beyond `MAX_DROPPED_STEPS`, as `OUTLIER` with their `names`.

        May raise `NotFinite` or `TooLarge`.
        """
        ...

    def quantised(self, steps: Array, classes: Array, thresholds: Array) -> Array:
        """Signed magnitudes, int32 `[n]`: where error and bits together cost least.

        May raise `TooLarge`, as NaN is as well.
        """
        ...

    def placed(self, magnitudes: Array, classes: Array, offsets: Array) -> Array:
        """Where the decoder puts signed magnitudes, int64 `[n]` in 1/64 step."""
        ...

    def written(self, magnitudes: Array, plan: SymbolPlan, lanes: int, outliers: Array) -> bytes:
        """One sample's payload."""
        ...

    def read(
        self, payloads: Sequence[bytes], plan: SymbolPlan, offsets: Array, coefficients: int
    ) -> tuple[Array, list[Array]]:
        """Values, int32 `[samples, n]` in 1/64 step, and each sample's `OUTLIER`s.

        `CodecError` for damage: for that of the first sample that has any.
        """
        ...

    def raw_bits(self, magnitudes: Array) -> int:
        """How many raw bits tell signed magnitudes, int32, beside their symbols."""
        ...

    def narrowed(self, values: Array) -> tuple[Array, Array, Array]:
        """Int32 or int64 as int16, and the rows and columns of what does not fit, which is 0."""
        ...

    def spread(self, values: Array, order: Array, scale: float, size: int) -> Array:
        """Zeros, float32 `[batch, size]`, but values, int16 `[batch, n]`, x `scale` at `order`."""
        ...

    def plan(self, classes: Array, model: SymbolModel) -> SymbolPlan:
        """`SymbolPlan.of`."""
        ...

    def expected(
        self, kept: Array, ring: Array, classes: Array, rings: Array
    ) -> tuple[Array, Array]:
        """What a difference starts from, int64 `[n]`, and the classes of the differences.

        `ring` is that of each coefficient, uint8 `[n]`, `rings` their bytes in the payload.
        """
        ...

    def ring_energies(self, steps: Array, kept: Array, ring: Array) -> tuple[Array, Array]:
        """Of each ring, float64 `[RINGS]`, and of what each share leaves, `[shares, RINGS]`."""
        ...
