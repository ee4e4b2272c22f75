"""Pieces of a memory of a fixed size: never twice, never lost, never more than there is."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from splitpoint.cloud.between.slab import PIECE, Slab, SlabFull

PIECES = 64


@given(st.lists(st.tuples(st.integers(1, 20 * PIECE), st.integers(0, 9))))
def test_pieces_never_meet_and_none_is_lost(steps: list[tuple[int, int]]) -> None:
    """Each step takes a piece, or gives one back where there is none of that size."""
    slab, taken = Slab(PIECES * PIECE), []
    for nbytes, which in steps:
        try:
            piece = slab.take(nbytes)
        except SlabFull:
            if taken:
                slab.give_back(*taken.pop(which % len(taken)))
            continue
        assert piece[1] >= nbytes
        taken.append(piece)
        ends = sorted((offset, offset + size) for offset, size in taken)
        assert ends[-1][1] <= slab.size
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(ends))
        assert slab.used == sum(size for _, size in taken)
    for piece in taken:
        slab.give_back(*piece)
    assert slab.used == 0
    assert slab.take(slab.size) == (0, slab.size)  # it is whole again


def test_what_is_in_use_stays_at_the_beginning() -> None:
    slab = Slab(PIECES * PIECE)
    first, second, _ = (slab.take(PIECE) for _ in range(3))
    slab.give_back(*first)
    slab.give_back(*second)
    assert slab.take(2 * PIECE) == (0, 2 * PIECE)


def test_a_full_slab_takes_nothing() -> None:
    slab = Slab(2 * PIECE + 1)
    assert slab.size == 2 * PIECE
    piece = slab.take(2 * PIECE)
    with pytest.raises(SlabFull):
        slab.take(1)
    slab.give_back(*piece)
    with pytest.raises(SlabFull):
        slab.take(slab.size + 1)
