"""A tensor as channels over positions, and the orthonormal DCT along the positions.

Every tensor is seen as `[batch, channels, positions]`: channels are what a dense transform mixes,
positions what a cosine transform runs over. Maps have a plane of positions, sequences of tokens a
line, or the plane that their count gives away: 197 tokens are a class token and 14 x 14 patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .spec import Array

# A longer extent would need a matrix of many megabytes: its positions stay as they are.
MAX_DCT = 1024
MAX_PREFIX_TOKENS, MIN_GRID = 8, 4  # class and register tokens before a grid of patches
MAX_CHANNELS = 512  # of a vector without positions


@lru_cache(maxsize=64)
def dct_matrix(size: int) -> Array:
    """The orthonormal DCT-II, float64 `[size, size]`; its transpose is the inverse.

    Row k is sqrt(2 / size) cos(pi k (2 n + 1) / (2 size)), row 0 is sqrt(1 / size) (Ahmed,
    Natarajan, Rao, 1974).
    """
    phases = np.outer(np.arange(size), 2 * np.arange(size) + 1) * (np.pi / (2 * size))
    matrix: Array = np.cos(phases) * np.sqrt(2 / size)
    matrix[0] = np.sqrt(1 / size)
    matrix.setflags(write=False)
    return matrix


@dataclass(frozen=True, slots=True)
class Grid:
    """How one tensor is arranged as `[batch, channels, positions]`.

    `prefix` positions come before a block of `extents`, over which the DCT runs.
    """

    split_shape: tuple[int, ...]  # of one sample, the batch dimension taken apart
    order: tuple[int, ...]  # axes of split_shape: batch, channels, the rest
    channels: int
    prefix: int
    extents: tuple[int, ...]
