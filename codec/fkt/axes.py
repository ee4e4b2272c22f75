"""The matrices of a table's axes, in the form in which multiplying with them takes least time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..spec import Array
from .loops import MOST_IN_BLOCK


def as_multiplied(matrices: Sequence[Array | None], extents: Sequence[int]) -> list[Array | None]:
    """One small matrix `[n, n]` where it is that of every n neighbours; else as it is, `[N, N]`.

    `extents` are how many positions the axes have. The last one is multiplied with the transpose of
    a whole matrix: twice as fast where that is contiguous.
    """
    found = [None if matrix is None else block_of(matrix) for matrix in matrices]
    last = found[-1]
    if last is not None and len(last) == extents[-1]:
        found[-1] = np.asfortranarray(last)
    return found


def block_of(matrix: Array) -> Array:
    """The matrix of every block, if all along the diagonal are the same and else there is nothing.

    Otherwise `matrix` itself. A block has at most `MOST_IN_BLOCK` positions.
    """
    positions = len(matrix)
    for size in range(2, min(MOST_IN_BLOCK, positions // 2) + 1):
        if positions % size or matrix[0, size:].any():  # as of most, which are no blocks at all
            continue
        block = matrix[:size, :size]
        if np.array_equal(matrix, whole_of(block, positions)):
            return np.ascontiguousarray(block)
    return matrix


def whole_of(block: Array, positions: int) -> Array:
    """The matrix of an axis of so many positions from what `as_multiplied` makes of it."""
    found: Array = np.kron(np.eye(positions // len(block), dtype=np.float32), block)
    return found
