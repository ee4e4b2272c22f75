"""How tensors become channels over positions, and the cosine transform along these."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dctn
from splitpoint.codec import Array, TensorSpec
from splitpoint.codec.fkt.grid import MAX_DCT, Grid, dct_matrix


def spec_of(shape: tuple[int, ...], batch_dim: int = 0) -> TensorSpec:
    return TensorSpec(name="x", dtype="float32", shape=shape, batch_dim=batch_dim)


def dct(grid: Grid, rows: Array) -> Array:
    return grid.along(rows, grid.cosines())


def inverse_dct(grid: Grid, coefficients: Array) -> Array:
    return grid.along(coefficients, [None if m is None else m.T for m in grid.cosines()])


# shape, batch_dim, channels, prefix, extents
KNOWN: list[tuple[tuple[int, ...], int, int, int, tuple[int, ...]]] = [
    ((1, 24, 7, 9), 0, 24, 0, (7, 9)),
    ((1, 14, 14, 48), 0, 48, 0, (14, 14)),  # channels last
    ((1, 197, 32), 0, 32, 1, (14, 14)),
    ((1, 196, 32), 0, 32, 0, (14, 14)),
    ((1, 50, 16), 0, 16, 1, (7, 7)),
    ((1, 31, 16), 0, 16, 6, (5, 5)),  # class and register tokens
    ((1, 47, 16), 0, 16, 0, (47,)),
    ((1, 512), 0, 512, 0, (1,)),
    ((1, 25088), 0, 512, 0, (49,)),
    ((1, 1009), 0, 1, 0, (1009,)),  # a prime
    ((1, 2003), 0, 1, 0, (2003,)),  # a prime beyond the longest transform
    ((1000,), 0, 500, 0, (2,)),
    ((1, 8, 4, 6, 5), 0, 8, 0, (4, 6, 5)),  # video
    ((64, 49, 96), 0, 96, 0, (64, 49)),  # windows of Swin
    ((1, 32, 1, 1), 0, 32, 0, (1,)),
    ((1, 12, 1, 25), 0, 12, 0, (5, 5)),
    ((6, 8, 1), 2, 6, 0, (8,)),
    ((5, 1, 7, 9), 1, 5, 0, (7, 9)),
]
each_known = pytest.mark.parametrize(
    ("shape", "dim", "channels", "prefix", "extents"), KNOWN, ids=[str(row[0]) for row in KNOWN]
)


def noise(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(0.5, 1, shape).astype(np.float32)


@each_known
def test_arrangement(
    shape: tuple[int, ...], dim: int, channels: int, prefix: int, extents: tuple[int, ...]
) -> None:
    grid = Grid.of(spec_of(shape, dim))
    assert (grid.channels, grid.prefix, grid.extents) == (channels, prefix, extents)
    assert grid.channels * grid.positions == np.prod(shape)


@pytest.mark.parametrize("batch", [1, 3])
@each_known
def test_tensor_comes_back_from_its_rows(
    batch: int, shape: tuple[int, ...], dim: int, channels: int, prefix: int, extents: Any
) -> None:
    spec = spec_of(shape, dim)
    grid, array = Grid.of(spec), noise(spec.shape_at(batch))
    rows = grid.rows(array)
    assert rows.shape == (batch, channels, grid.positions)
    found = grid.tensor(rows, spec.shape_at(batch))
    np.testing.assert_array_equal(found, array)
    assert found.flags.c_contiguous
    for sample, part in enumerate(np.split(array, batch, axis=dim)):
        np.testing.assert_array_equal(grid.rows(part)[0], rows[sample])


@pytest.mark.parametrize("batch", [1, 2])
@each_known
def test_transform_is_orthonormal(
    batch: int, shape: tuple[int, ...], dim: int, channels: int, prefix: int, extents: Any
) -> None:
    spec = spec_of(shape, dim)
    grid = Grid.of(spec)
    rows = grid.rows(noise(spec.shape_at(batch)))
    found = dct(grid, rows)
    assert found.shape == rows.shape
    assert found.dtype == np.float32
    energy = (rows.astype(np.float64) ** 2).sum(2)
    np.testing.assert_allclose((found.astype(np.float64) ** 2).sum(2), energy, rtol=1e-5)
    np.testing.assert_allclose(inverse_dct(grid, found), rows, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
@each_known
def test_transform_is_that_of_scipy(
    batch: int,
    shape: tuple[int, ...],
    dim: int,
    channels: int,
    prefix: int,
    extents: tuple[int, ...],
) -> None:
    spec = spec_of(shape, dim)
    grid = Grid.of(spec)
    rows = grid.rows(noise(spec.shape_at(batch)))
    found = dct(grid, rows)
    np.testing.assert_array_equal(found[..., :prefix], rows[..., :prefix])
    block = rows[..., prefix:].reshape(batch, channels, *extents).astype(np.float64)
    axes = [axis for axis, extent in enumerate(extents, start=2) if extent <= MAX_DCT]
    expected = dctn(block, axes=axes, norm="ortho") if axes else block
    np.testing.assert_allclose(
        found[..., prefix:], expected.reshape(batch, channels, -1), atol=2e-5
    )


@pytest.mark.parametrize(
    ("shape", "dim", "channel", "position"),
    [
        ((1, 5, 7, 9), 0, (0, 3, 2, 4), (3, 2 * 9 + 4)),
        ((1, 6, 6, 40), 0, (0, 2, 4, 33), (33, 2 * 6 + 4)),
        ((1, 197, 32), 0, (0, 100, 7), (7, 100)),
        ((64, 49, 96), 0, (3, 5, 90), (90, 3 * 49 + 5)),
        ((1, 8, 4, 6, 5), 0, (0, 7, 3, 2, 1), (7, 3 * 30 + 2 * 5 + 1)),
    ],
)
def test_values_land_where_the_shape_says(
    shape: tuple[int, ...], dim: int, channel: tuple[int, ...], position: tuple[int, int]
) -> None:
    spec = spec_of(shape, dim)
    array = np.zeros(shape, np.float32)
    array[channel] = 1
    rows = Grid.of(spec).rows(array)
    assert rows.sum() == 1
    assert rows[0][position] == 1


@st.composite
def specs(draw: st.DrawFn) -> TensorSpec:
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=5)))
    return spec_of(shape, draw(st.integers(0, len(shape) - 1)))


@given(specs(), st.integers(1, 3))
def test_any_shape_comes_back_from_its_coefficients(spec: TensorSpec, batch: int) -> None:
    grid, array = Grid.of(spec), noise(spec.shape_at(batch))
    found = grid.tensor(inverse_dct(grid, dct(grid, grid.rows(array))), array.shape)
    np.testing.assert_allclose(found, array, atol=1e-5)
    assert grid.frequencies().shape == (grid.positions,)


@given(specs())
def test_memory_order_does_not_change_rows(spec: TensorSpec) -> None:
    grid, array = Grid.of(spec), noise(spec.shape_at(2))
    np.testing.assert_array_equal(grid.rows(np.asfortranarray(array)), grid.rows(array))


@pytest.mark.parametrize("size", [1, 2, 49, 1009, MAX_DCT])
def test_matrix_times_its_transpose_is_the_unit(size: int) -> None:
    matrix = dct_matrix(size).astype(np.float64)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(size), atol=1e-5)
    assert not dct_matrix(size).flags.writeable


def test_a_constant_is_all_in_the_first_coefficient() -> None:
    grid = Grid.of(spec_of((1, 3, 8, 8)))
    found = dct(grid, np.ones((1, 3, 64), np.float32))
    np.testing.assert_allclose(found[..., 0], 8, rtol=1e-6)
    np.testing.assert_allclose(found[..., 1:], 0, atol=1e-5)


def test_frequencies_grow_with_the_wave() -> None:
    grid = Grid.of(spec_of((1, 17, 8)))
    frequencies = grid.frequencies()
    assert (grid.prefix, frequencies[:2].tolist()) == (1, [0, 0])
    square = frequencies[1:].reshape(4, 4)
    assert (np.diff(square, axis=0) > 0).all()
    assert (np.diff(square, axis=1) > 0).all()
    np.testing.assert_array_equal(square, square.T)
    assert (Grid.of(spec_of((1, 2003))).frequencies() == 0.5).all()
