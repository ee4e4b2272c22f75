"""Quantised magnitudes as sixteen symbols and raw bits, and raw bits as bytes.

Magnitudes 0 to 9 are symbols of their own. Larger ones share symbols that cover 2, 4, 8, 16, 32 and
at last 2^20 magnitudes; which of them it is follows in raw bits. Signs are raw bits too.
"""

from __future__ import annotations

import numpy as np

from ..spec import Array
from .bits import bits_of, numbers_of

SYMBOLS, LAST_SINGLE = 16, 9
FIRST = np.array([*range(10), 10, 12, 16, 24, 40, 72], np.int64)  # smallest magnitude of a symbol
EXTRA_BITS = np.array([0] * 10 + [1, 2, 3, 4, 5, 20], np.int64)
MAX_MAGNITUDE = int(FIRST[-1] + (1 << EXTRA_BITS[-1]) - 1)
FINE = 64  # the decoder places values at multiples of 1/64 step
# A coefficient that is not sent is carried apart from the others beyond this many steps.
MAX_DROPPED_STEPS = 2.0

_OF_SMALL = np.repeat(np.arange(SYMBOLS - 1), np.diff(FIRST)).astype(np.uint8)


def symbols_of(magnitudes: Array) -> Array:
    """The symbol of each magnitude (0 to `MAX_MAGNITUDE`), uint8."""
    found: Array = np.full(magnitudes.shape, SYMBOLS - 1, np.uint8)
    small = magnitudes < len(_OF_SMALL)
    found[small] = _OF_SMALL[magnitudes[small]]
    return found


def raw_bit_counts(symbols: Array) -> Array:
    """Raw bits of each symbol: its sign, unless it is 0, and what tells its magnitude."""
    counts: Array = _RAW_BITS[symbols]
    return counts


_RAW_BITS = EXTRA_BITS + (np.arange(SYMBOLS) > 0)


def raw_bits(magnitudes: Array, negative: Array, symbols: Array) -> Array:
    """The bits of all coefficients, uint8 of 0 and 1: first all signs, then what else is needed."""
    large = np.flatnonzero(symbols > LAST_SINGLE)
    own = symbols[large]
    rest = bits_of(magnitudes[large] - FIRST[own], EXTRA_BITS[own])
    return np.concatenate([negative[symbols > 0].astype(np.uint8), rest])


def magnitudes_of(symbols: Array, negative: Array, extra: Array) -> Array:
    """Signed magnitudes, int64, of symbols that are not 0, from their signs and further bits."""
    found: Array = FIRST[symbols]
    large = np.flatnonzero(symbols > LAST_SINGLE)
    found[large] += numbers_of(extra, EXTRA_BITS[symbols[large]])
    return np.where(negative, -found, found)
