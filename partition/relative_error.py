"""How far an array is from the one that is expected, where either may hold NaN or infinity."""

from __future__ import annotations

import numpy as np
from splitpoint.codec import Array


def relative_error(found: Array, expected: Array) -> float:
    """Largest difference, relative to the largest finite magnitude expected.

    Infinite for other shapes, for NaN on either side, and for infinities that are not the same in
    the same places: none of them may hide behind a difference, which would be NaN and compare as
    neither larger nor smaller.
    """
    if found.shape != expected.shape:
        return float("inf")
    if not found.size:
        return 0.0
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(expected)
    if not np.isfinite(found[finite]).all():
        return float("inf")
    if not np.array_equal(found[~finite], expected[~finite]):  # NaN is not equal to itself
        return float("inf")
    difference = float(np.abs(found[finite] - expected[finite]).max(initial=0))
    scale = float(np.abs(expected[finite]).max(initial=0))
    return difference / scale if scale else difference
