"""The axes' matrices: what they concentrate, what they weigh, and that gradients follow."""

from __future__ import annotations

import numpy as np
import pytest
from splitpoint.codec import Array, TensorSpec
from splitpoint.codec.fkt.grid import Grid, dct_matrix
from splitpoint.codec.fkt.table import MAX_FITTED
from splitpoint.partition.calibrate.axis_klt import (
    MAX_KLT,
    AxisMoments,
    axes_of,
    frequencies_of,
)
from splitpoint.partition.calibrate.fkt_transform import Blocks


def spec_of(shape: tuple[int, ...]) -> TensorSpec:
    return TensorSpec(name="x", dtype="float32", shape=shape, batch_dim=0)


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def axes_for(grid: Grid, rows: Array, gradients: Array) -> list[Array | None]:
    found = AxisMoments.of(grid, rows[:1], gradients)
    for row in rows[1:]:
        found.add(AxisMoments.of(grid, row[None], gradients))
    return list(axes_of(grid, found))


@pytest.mark.parametrize("shape", [(1, 6, 8, 5), (1, 17, 12), (1, 60), (1, 4, 3, 5, 5), (1, 1009)])
def test_a_gradient_of_coefficients_tells_the_same_change(shape: tuple[int, ...]) -> None:
    """g . x is the same number before and behind the axes, which are no rotations."""
    grid = Grid.of(spec_of(shape))
    rows = noise(5, grid.channels, grid.positions)
    weights = np.linspace(0.2, 2, grid.positions).astype(np.float32)
    gradients = noise(7, grid.channels, grid.positions, seed=1) * weights
    blocks = Blocks.of(spec_of(shape), axes_for(grid, rows, gradients))
    before = (rows[:1] * gradients).sum((1, 2))
    behind = (blocks.coefficients(rows[:1]) * blocks.gradients(gradients)).sum((1, 2))
    np.testing.assert_allclose(behind, before, rtol=2e-3, atol=2e-3)


def test_energy_gathers_in_the_first_coefficients() -> None:
    """Of waves that a cosine transform does not know, better than with one."""
    grid = Grid.of(spec_of((1, 8, 16, 16)))
    y, x = np.mgrid[:16, :16]
    shapes = np.exp(-((y - 4.3) ** 2 + (x - 11) ** 2) / 9), np.exp(-((y - 9) ** 2) / 4) * (x > 7)
    rows = np.einsum("ncs,shw->nchw", noise(30, 8, 2), np.stack(shapes)).reshape(30, 8, 256)
    rows = rows.astype(np.float32)
    axes = axes_for(grid, rows, noise(4, 8, 256, seed=2))

    def share(found: Array) -> float:
        energy = (found.reshape(30, 8, 16, 16) ** 2).sum((0, 1))
        return float(energy[:4, :4].sum() / energy.sum())

    assert share(grid.along(rows, axes)) > 0.99
    assert share(grid.along(rows, grid.cosines())) < 0.9


def test_where_outputs_look_errors_count_more() -> None:
    grid = Grid.of(spec_of((1, 8, 12, 12)))
    importance = np.full((12, 12), 0.1)
    importance[4:8, 4:8] = 1
    gradients = noise(50, 8, 144, seed=3) * importance.ravel().astype(np.float32)
    axes = axes_for(grid, noise(20, 8, 144), gradients)
    inverses = [np.linalg.inv(matrix) for matrix in axes if matrix is not None]
    errors = grid.along(noise(200, 8, 144, seed=4), inverses).reshape(200, 8, 12, 12)
    spread = errors.std((0, 1))
    assert spread[5:7, 5:7].mean() < 0.7 * spread[[0, 0, -1, -1], [0, -1, 0, -1]].mean()


@pytest.mark.parametrize("value", [0.0, 3.0])
@pytest.mark.parametrize("gradient", [0.0, 1.0])
def test_a_tensor_that_tells_nothing(value: float, gradient: float) -> None:
    grid = Grid.of(spec_of((1, 4, 6, 6)))
    rows = np.full((3, 4, 36), value, np.float32)
    for matrix in axes_for(grid, rows, np.full((2, 4, 36), gradient, np.float32)):
        assert matrix is not None
        assert np.isfinite(matrix).all()
        assert np.linalg.cond(matrix) < 100


def test_long_axes_have_cosines_in_blocks() -> None:
    """What is in one place stays there, and slow waves of all blocks are in one band."""
    spec = spec_of((1, 2, MAX_KLT + 3, 3))
    grid = Grid.of(spec)
    rows = noise(2, grid.channels, grid.positions)
    axes = axes_for(grid, rows, rows)
    bump = np.zeros((1, 1, grid.positions), np.float32)
    bump.reshape(-1, 3)[12] = 1
    spread = grid.along(bump, axes).reshape(-1, 3).any(axis=1)
    assert np.flatnonzero(spread).tolist() == list(range(8, 16))
    lines = frequencies_of(grid).reshape(-1, 3)[:, 0]
    assert lines[:16].tolist() == [k / 8 for k in range(8)] * 2
    long, _ = axes
    assert long is not None
    np.testing.assert_allclose(long @ long.T, np.eye(len(long)), atol=1e-6)
    band = Blocks.of(spec, axes).band.reshape(-1, 3)
    assert len(set(band[:80:8, 0])) == 1


def test_longer_axes_keep_the_cosines() -> None:
    grid = Grid.of(spec_of((1, 2, MAX_FITTED + 1, 3)))
    rows = noise(2, grid.channels, grid.positions)
    long, short = axes_for(grid, rows, rows)
    np.testing.assert_array_equal(long, dct_matrix(MAX_FITTED + 1))
    assert short is not None
    assert short.shape == (3, 3)
