"""Numbers of different lengths as one row of bits, highest bit first."""

from __future__ import annotations

import numpy as np

from ..spec import Array


def bits_of(numbers: Array, counts: Array) -> Array:
    """The lowest `counts[i]` bits of every `numbers[i]` (int64, 0 or more), uint8 of 0 and 1."""
    owner, shift = _places(counts)
    bits: Array = ((numbers[owner] >> shift) & 1).astype(np.uint8)
    return bits


def numbers_of(bits: Array, counts: Array) -> Array:
    """The numbers, int64, that `bits_of` made `bits` of; up to 53 bits each."""
    owner, shift = _places(counts)
    values = bits.astype(np.int64) << shift
    found: Array = np.bincount(owner, values, len(counts)).astype(np.int64)
    return found


def _places(counts: Array) -> tuple[Array, Array]:
    """For every bit: whose it is, and how far it is from that number's last bit."""
    owner = np.repeat(np.arange(len(counts)), counts)
    ends = np.cumsum(counts)
    return owner, ends[owner] - 1 - np.arange(len(owner))
