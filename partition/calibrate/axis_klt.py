"""What the positions of a tensor are transformed with: a task-aware KLT for every axis.

As for the channels (fkt_transform.py), the eigenvectors of F^1/2 C F^1/2 are the transform, C and F
being the covariance of an axis' positions and the Fisher information with respect to them. C alone
gives next to a DCT; F knows that the middle of a picture decides more than its border. F is taken
to the power 1/2 first, because errors at the border cost more than its estimate for all channels
alike says: measured, see docs/codec.md.

Long axes have cosines in blocks instead. What their positions hold in common no longer depends on
where they are, and a wave over the whole axis would spread what is in one place over all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from splitpoint.codec import Array
from splitpoint.codec.fkt.grid import MAX_DCT, Grid, dct_matrix
from splitpoint.codec.fkt.table import MAX_FITTED

POWER = 0.5  # of the Fisher information
RIDGE = 1e-2  # of its mean
MANY_VALUES = 500_000  # of an input: of larger maps only some lines are looked at
# Positions of an axis that is fitted to inputs. Blocks take 9 % fewer bytes at 56 positions and 1 %
# more at 28 (see docs/codec.md).
MAX_KLT = 40
BLOCK = 8  # positions that have cosines of their own, on longer axes


@dataclass(slots=True)
class AxisMoments:
    """Sums of products of an axis' positions, `[n, n]` for each axis of at most `MAX_KLT`.

    `second` is of values, `fisher` of the output's gradients.
    """

    second: list[Array]
    fisher: list[Array]

    @classmethod
    def of(cls, grid: Grid, rows: Array, gradients: Array) -> AxisMoments:
        """Of one input, `[1, C, P]`, and its gradients, `[projections, C, P]`.

        Every channel counts alike, whatever its spread and the output's feeling for it. The mean
        stays in, so that the first component is next to constant.
        """
        block = rows[..., grid.prefix :]
        spread = np.maximum(_size(block - block.mean(-1, keepdims=True)), 1e-3 * _size(block))
        return cls(_products(grid, rows / spread), _products(grid, gradients / _size(gradients)))

    def add(self, other: AxisMoments) -> None:
        """Counts another input too."""
        for mine, theirs in ((self.second, other.second), (self.fisher, other.fisher)):
            for sums, more in zip(mine, theirs, strict=True):
                sums += more


def _size(rows: Array) -> Array:
    """Of every channel, `[C, 1]`; never next to nothing, so that one can divide by it."""
    found = np.sqrt((rows.astype(np.float64) ** 2).sum((0, 2)))[:, None]
    least = max(1e-6 * float(found.max(initial=0)), 1e-30)
    larger: Array = np.maximum(found, least).astype(np.float32)
    return larger


def _products(grid: Grid, rows: Array) -> list[Array]:
    block = rows[..., grid.prefix :].reshape(*rows.shape[:2], *grid.extents)
    found = []
    for axis, size in enumerate(grid.extents, start=2):
        if size <= MAX_KLT:
            lines = np.moveaxis(block, axis, -1)
            if len(grid.extents) > 1:  # the lines beside each other say nearly the same
                lines = lines[..., :: max(block.size // (len(block) * MANY_VALUES), 1), :]
            lines = lines.reshape(-1, size)
            found.append((lines.T @ lines).astype(np.float64))
    return found


def axes_of(grid: Grid, moments: AxisMoments) -> Sequence[Array | None]:
    """A matrix for every axis of the grid, float32: fitted, or cosines in blocks or over it all.

    A table holds no matrix of more than `MAX_FITTED` positions: such an axis has one DCT.
    """
    found = grid.cosines()
    fitted = iter(zip(moments.second, moments.fisher, strict=True))
    for axis, size in enumerate(grid.extents):
        if size <= MAX_KLT:
            found[axis] = _klt(*next(fitted))
        elif size <= MAX_FITTED:
            found[axis] = block_cosines(size)
    return found


def frequencies_of(grid: Grid) -> Array:
    """`Grid.frequencies` of what `axes_of` makes."""
    return grid.frequencies([_frequencies(size) for size in grid.extents])


def _frequencies(size: int) -> Array:
    if MAX_KLT < size <= MAX_FITTED:
        return np.concatenate([np.arange(n) / n for n in _blocks(size)])
    return np.arange(size) / size if size <= MAX_DCT else np.full(size, 0.5)


def block_cosines(size: int) -> Array:
    """The DCT of each block of positions, float32 `[size, size]`."""
    found, start = np.zeros((size, size), np.float32), 0
    for block in _blocks(size):
        end = start + block
        found[start:end, start:end] = dct_matrix(block)
        start = end
    return found


def _blocks(size: int) -> list[int]:
    """As many of `BLOCK` as fit, and the rest."""
    return [min(BLOCK, size - start) for start in range(0, size, BLOCK)]


def _klt(second: Array, fisher: Array) -> Array:
    size, trace = len(fisher), max(float(np.trace(fisher)), 1e-30)
    values, vectors = np.linalg.eigh(fisher * size / trace + RIDGE * np.eye(size))
    root = (vectors * np.maximum(values, RIDGE / 2) ** (POWER / 2)) @ vectors.T
    _, components = np.linalg.eigh(root @ second @ root)
    found: Array = (components[:, ::-1].T @ root).astype(np.float32)
    return found
