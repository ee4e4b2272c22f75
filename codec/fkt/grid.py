"""A tensor as channels over positions, and transforms along the positions.

Every tensor is seen as `[batch, channels, positions]`: channels are what a dense transform mixes,
positions what a transform of its own runs over, axis by axis. Maps have a plane of positions,
sequences of tokens a line, or the plane that their count gives away: 197 tokens are a class token
and 14 x 14 patches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..simple.affine import channel_axis
from ..spec import Array, TensorSpec

# A longer extent would need a matrix of many megabytes: its positions stay as they are.
MAX_DCT = 1024
MAX_PREFIX_TOKENS, MIN_SIDE = 8, 4  # class and register tokens before a square of patches
MAX_CHANNELS = 512  # of a vector without positions


@lru_cache(maxsize=64)
def dct_matrix(size: int) -> Array:
    """The orthonormal DCT-II, float32 `[size, size]`; its transpose is the inverse.

    Row k is sqrt(2 / size) cos(pi k (2 n + 1) / (2 size)), row 0 is sqrt(1 / size) (Ahmed,
    Natarajan, Rao, 1974).
    """
    phases = np.outer(np.arange(size), 2 * np.arange(size) + 1) * (np.pi / (2 * size))
    matrix = np.cos(phases) * np.sqrt(2 / size)
    matrix[0] = np.sqrt(1 / size)
    found: Array = matrix.astype(np.float32)
    found.setflags(write=False)
    return found


Product = Callable[[Array, int, Array], Array]
"""An array, one of its axes, and what that is multiplied with."""


def whole_product(block: Array, axis: int, matrix: Array) -> Array:
    """`matrix`, `[n, n]`, times the axis, which has n positions, of float32 `[batch, C, ...]`."""
    found: Array
    if axis == block.ndim - 1:  # one product of all rows, not one for each plane
        flat = block @ matrix.T
        found = flat.reshape(block.shape)
    elif axis == block.ndim - 2:
        found = matrix @ block
    else:
        found = np.moveaxis(np.moveaxis(block, axis, -1) @ matrix.T, -1, axis)
    return found


@dataclass(frozen=True, slots=True)
class Grid:
    """How a tensor is arranged as `[batch, channels, positions]`.

    `prefix` positions come first and stay as they are, the others are a block of `extents` in
    row-major order.
    """

    split_shape: tuple[int, ...]  # one sample, with the batch apart from its dimension's factor
    order: tuple[int, ...]  # axes of split_shape: batch, channels, the rest
    channels: int
    prefix: int
    extents: tuple[int, ...]

    @classmethod
    def of(cls, spec: TensorSpec) -> Grid:
        """The arrangement that the tensor's shape suggests."""
        dim = spec.batch_dim
        split = (*spec.shape[:dim], 1, *spec.shape[dim:])
        axis = _channel_axis(spec)
        if axis is None:
            # A vector: any arrangement is a valid one, and neighbours tend to belong together.
            size = math.prod(split)
            channels = max(n for n in range(1, min(size, MAX_CHANNELS) + 1) if size % n == 0)
            order = (dim, *(i for i in range(len(split)) if i != dim))
            return cls(split, order, channels, 0, (size // channels,))
        axis += axis >= dim
        rest = tuple(i for i in range(len(split)) if i not in (dim, axis))
        extents = tuple(split[i] for i in rest if split[i] > 1) or (1,)
        prefix = 0
        if len(extents) == 1:
            prefix, extents = _patches(extents[0])
        return cls(split, (dim, axis, *rest), split[axis], prefix, extents)

    @property
    def positions(self) -> int:
        """How many positions a channel has."""
        return self.prefix + math.prod(self.extents)

    def rows(self, array: Array) -> Array:
        """`[batch, channels, positions]` of a tensor of any batch size."""
        dim = self.order[0]
        split = list(self.split_shape)
        split[dim] = array.shape[dim] // split[dim + 1]
        found: Array = array.reshape(split).transpose(self.order)
        return found.reshape(split[dim], self.channels, self.positions)

    def unrolled(self, batch: int) -> tuple[int, ...]:
        """The shape of rows whose positions are taken apart again, in the order of `order`."""
        return (batch, *(self.split_shape[axis] for axis in self.order[1:]))

    def tensor(self, rows: Array, shape: tuple[int, ...]) -> Array:
        """The tensor of that full shape from its rows."""
        found: Array = rows.reshape(self.unrolled(len(rows))).transpose(np.argsort(self.order))
        return np.ascontiguousarray(found.reshape(shape))

    def cosines(self) -> list[Array | None]:
        """The DCT of every axis; None for axes that are too long."""
        return [dct_matrix(n) if n <= MAX_DCT else None for n in self.extents]

    def frequencies(self, axes: Sequence[Array] = ()) -> Array:
        """How fast each coefficient's wave oscillates, 0 to about 1, float64 `[positions]`.

        `axes` are the frequencies along each axis. Without them they go from slow to fast, and of
        an extent that is not transformed all are 0.5. The prefix has a frequency of 0.
        """
        if not axes:
            axes = [np.arange(n) / n if n <= MAX_DCT else np.full(n, 0.5) for n in self.extents]
        squares = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij"))
        return np.concatenate([np.zeros(self.prefix), np.sqrt(squares).ravel()])

    def along(
        self, rows: Array, matrices: Sequence[Array | None], product: Product | None = None
    ) -> Array:
        """Every axis of the block multiplied with its matrix, in the shape of `rows`.

        `product` takes the place of `whole_product`.
        """
        product = product or whole_product
        block = rows[..., self.prefix :].reshape(*rows.shape[:2], *self.extents)
        for axis, matrix in enumerate(matrices, start=2):
            if matrix is not None:
                block = product(block, axis, matrix)
        found: Array = np.ascontiguousarray(block.reshape(*rows.shape[:2], -1))
        if self.prefix:
            found = np.concatenate([rows[..., : self.prefix], found], axis=2)
        return found


def _channel_axis(spec: TensorSpec) -> int | None:
    """The axis of the channels: that of the affine codecs, and the first after the batch of video.

    None for vectors.
    """
    axis = channel_axis(spec)
    if axis is None and len(spec.shape) >= 3:
        axis = {3: 2}.get(len(spec.shape), 1)
        if axis == spec.batch_dim:
            axis = next(i for i in range(len(spec.shape)) if i != spec.batch_dim)
    return axis


def _patches(tokens: int) -> tuple[int, tuple[int, ...]]:
    """How many tokens come before a square of patches, and the square; no prefix if there is none.

    The fewest tokens that leave a square count.
    """
    for prefix in range(min(MAX_PREFIX_TOKENS, tokens) + 1):
        side = math.isqrt(tokens - prefix)
        if side >= MIN_SIDE and side * side == tokens - prefix:
            return prefix, (side, side)
    return 0, (tokens,)
