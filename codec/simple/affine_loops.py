"""The inner loops of affine quantisation, in numpy (the reference) and in C, with the same bits."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ..native import EXTENSION, Extension, readable
from ..spec import Array


class AffineLoops(Protocol):
    """Rows are float32 `[batch, channels, values]`, minima and steps `[batch, channels, 1]`."""

    def symbols(self, rows: Array, low: Array, scale: Array, top: int) -> Array:
        """(rows - low) x scale, rounded to 0 to `top`: uint8 in the shape of `rows`."""
        ...

    def values(self, symbols: Array, low: Array, step: Array) -> Array:
        """Symbols x step + low: float32 in the shape of `symbols`."""
        ...

    def packed(self, symbols: Array) -> Array:
        """Two 4-bit symbols to a byte along the last axis of two, the first in the high half."""
        ...

    def unpacked(self, packed: Array, values: int) -> Array:
        """`values` symbols of every row of bytes."""
        ...


class NumpyAffineLoops:
    """See `AffineLoops`."""

    def symbols(self, rows: Array, low: Array, scale: Array, top: int) -> Array:  # noqa: D102
        found: Array = np.rint((rows - low) * scale).clip(0, top).astype(np.uint8)
        return found

    def values(self, symbols: Array, low: Array, step: Array) -> Array:  # noqa: D102
        with np.errstate(over="ignore"):  # a hostile range overflows in its own sample only
            found: Array = symbols * step + low
        return found

    def packed(self, symbols: Array) -> Array:  # noqa: D102
        if symbols.shape[1] % 2:
            symbols = np.pad(symbols, ((0, 0), (0, 1)))
        found: Array = (symbols[:, 0::2] << 4) | symbols[:, 1::2]
        return found

    def unpacked(self, packed: Array, values: int) -> Array:  # noqa: D102
        found = np.empty((len(packed), 2 * packed.shape[1]), np.uint8)
        found[:, 0::2] = packed >> 4
        found[:, 1::2] = packed & 15
        return found[:, :values]


class NativeAffineLoops:
    """See `AffineLoops`."""

    def __init__(self, extension: Extension) -> None:
        self._c = extension

    def symbols(self, rows: Array, low: Array, scale: Array, top: int) -> Array:  # noqa: D102
        found = np.empty(rows.shape, np.uint8)
        self._c.affine_symbols(readable(rows), readable(low), readable(scale), top, found)
        return found

    def values(self, symbols: Array, low: Array, step: Array) -> Array:  # noqa: D102
        found = np.empty(symbols.shape, np.float32)
        self._c.affine_values(readable(symbols), readable(low), readable(step), found)
        return found

    def packed(self, symbols: Array) -> Array:  # noqa: D102
        rows, values = symbols.shape
        found = np.empty((rows, -(-values // 2)), np.uint8)
        self._c.pack_nibbles(readable(symbols), rows, values, found)
        return found

    def unpacked(self, packed: Array, values: int) -> Array:  # noqa: D102
        found = np.empty((len(packed), values), np.uint8)
        self._c.unpack_nibbles(readable(packed), len(packed), values, found)
        return found


BEST: AffineLoops = NumpyAffineLoops() if EXTENSION is None else NativeAffineLoops(EXTENSION)
"""Those in C where the extension is there."""
