"""Axes in blocks: one small matrix for every few neighbours, in both forms of the loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fkt_tables import SPECS, like_calibration, table_of
from hypothesis import given
from hypothesis import strategies as st
from splitpoint.codec.fkt.axes import as_multiplied, block_of, whole_of
from splitpoint.codec.fkt.codec import Fkt
from splitpoint.codec.fkt.coefficients import CoefficientCoder
from splitpoint.codec.fkt.grid import dct_matrix, whole_product
from splitpoint.codec.fkt.loops import MOST_IN_BLOCK, Loops
from splitpoint.codec.fkt.native_loops import NativeLoops
from splitpoint.codec.fkt.numpy_loops import NumpyLoops
from splitpoint.codec.fkt.table import FktTable
from splitpoint.codec.native import EXTENSION, why_not

needs_c = pytest.mark.skipif(EXTENSION is None, reason=why_not())
MAP = SPECS["map"]  # 6 channels of 8 x 8


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def in_blocks_of(size: int, loops: Loops) -> FktTable:
    """A table whose two axes of eight have cosines in blocks."""
    table = table_of(MAP)
    axis = whole_of(dct_matrix(size), 8).ravel()
    return replace(table, axes=np.concatenate([axis, axis]), loops=loops)


@pytest.mark.parametrize("size", [2, 4, 7, 8, 16])
def test_a_block_is_found(size: int) -> None:
    whole = whole_of(dct_matrix(size), 112)
    np.testing.assert_array_equal(block_of(whole), dct_matrix(size), strict=True)


def test_what_is_not_all_the_same_stays_whole() -> None:
    last = whole_of(dct_matrix(8), 24)
    last[-1, -1] += 1e-6
    beside = whole_of(dct_matrix(8), 24)
    beside[0, 20] = 1e-6
    below, wide = beside.T.copy(), whole_of(dct_matrix(17), 34)
    for matrix in (last, beside, below, wide, noise(24, 24), dct_matrix(24)):
        assert block_of(matrix) is matrix


def test_only_the_last_whole_matrix_is_turned() -> None:
    small, none, whole = as_multiplied([whole_of(dct_matrix(4), 8), None, noise(6, 6)], [8, 5, 6])
    assert none is None
    assert small is not None
    assert small.shape == (4, 4)
    assert whole is not None
    assert whole.flags.f_contiguous


@needs_c
@given(
    blocks=st.integers(1, 40), size=st.integers(1, MOST_IN_BLOCK), inner=st.integers(1, 33),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_both_forms_give_the_same_bits(blocks: int, size: int, inner: int, seed: int) -> None:
    assert EXTENSION is not None
    rows, matrix = noise(blocks, size, inner, seed=seed), noise(size, size, seed=seed + 1)
    own = NativeLoops(EXTENSION).in_blocks(rows, matrix)
    np.testing.assert_array_equal(NumpyLoops().in_blocks(rows, matrix), own, strict=True)
    np.testing.assert_allclose(own, matrix @ rows, atol=1e-4)


@needs_c
@pytest.mark.parametrize("value", [np.inf, np.nan, 3e38])
def test_what_is_no_number_stays_where_it_is(value: float) -> None:
    assert EXTENSION is not None
    rows = noise(3, 4, 5)
    rows[1, 2, 3] = value
    for loops in (NumpyLoops(), NativeLoops(EXTENSION)):
        found = loops.in_blocks(rows, np.full((4, 4), 2, np.float32))
        assert np.isfinite(found[[0, 2]]).all()
        assert np.isfinite(np.delete(found[1], 3, axis=1)).all()
        assert not np.isfinite(found[1, :, 3]).any()


@needs_c
def test_arrays_that_do_not_fit_are_refused() -> None:
    assert EXTENSION is not None
    call, out = EXTENSION.in_blocks, np.empty(24, np.float32)
    for size, inner in ((5, 1), (0, 1), (4, 0), (-4, 1), (17, 1), (4, 7), (4, 2**62)):
        with pytest.raises(ValueError, match="do not fit"):
            call(noise(24), noise(4, 4), size, inner, out)
    with pytest.raises(ValueError, match="do not fit"):
        call(noise(24), noise(3, 4), 4, 1, out)
    with pytest.raises(ValueError, match="do not fit"):
        call(noise(24), noise(4, 4), 4, 1, out[:20])


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(
    "loops", [NumpyLoops(), pytest.param(NativeLoops(EXTENSION), marks=needs_c)], ids=["numpy", "C"]
)
def test_the_transform_is_that_of_the_whole_matrix(size: int, loops: Loops) -> None:
    table = in_blocks_of(size, loops)
    assert [len(matrix) for matrix in table.axis_matrices if matrix is not None] == [size, size]
    rows = table.grid.rows(like_calibration(MAP, 3))
    wholes = [whole_of(dct_matrix(size), 8)] * 2
    expected = table.components(table.grid.along(rows, wholes, whole_product))
    np.testing.assert_allclose(table.transform(rows), expected, atol=1e-3)
    np.testing.assert_allclose(table.inverse(table.transform(rows)), rows, atol=1e-3)


@needs_c
@pytest.mark.parametrize("size", [2, 4])
def test_payloads_of_both_forms_are_the_same(size: int) -> None:
    assert EXTENSION is not None
    tables = [in_blocks_of(size, loops) for loops in (NumpyLoops(), NativeLoops(EXTENSION))]
    for level in (1, 4):
        codecs = [Fkt(f"fkt@{level}", {MAP.name: CoefficientCoder(t, level)}) for t in tables]
        array = like_calibration(MAP, 3)
        first, second = (codec.encode(array, MAP) for codec in codecs)
        assert first == second
        decoded = [codec.decode(first, MAP, 3) for codec in codecs]
        np.testing.assert_array_equal(*decoded, strict=True)
