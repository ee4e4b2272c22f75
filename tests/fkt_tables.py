"""Small tables of the transform codec, fitted to made-up tensors that are alike in each shape."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from splitpoint.codec import Array, TensorSpec
from splitpoint.codec.fkt.codec import Fkt
from splitpoint.codec.fkt.coefficients import CoefficientCoder
from splitpoint.codec.fkt.grid import Grid
from splitpoint.codec.fkt.table import FktTable
from splitpoint.partition.calibrate.axis_klt import AxisMoments, axes_of
from splitpoint.partition.calibrate.fkt_fit import fit_table
from splitpoint.partition.calibrate.fkt_transform import Blocks, Moments

INPUTS, PROJECTIONS = 40, 3
LEVEL_FREE_SEED = 1_000  # seeds below are those of calibration


def spec_of(shape: tuple[int, ...], batch_dim: int = 0, name: str = "x") -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=shape, batch_dim=batch_dim)


MAP = spec_of((1, 6, 8, 8))
SPECS = {
    "map": MAP,
    "map with a long side": spec_of((1, 4, 48, 6)),
    "channels last": spec_of((1, 6, 6, 10)),
    "tokens": spec_of((1, 17, 12)),
    "tokens without a square": spec_of((1, 23, 8)),
    "vector": spec_of((1, 60)),
    "prime vector": spec_of((1, 53)),
    "video": spec_of((1, 4, 3, 5, 5)),
    "windows": spec_of((8, 9, 12)),
    "batch last": spec_of((5, 24, 1), 2),
}
each_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def _mixing(channels: int) -> Array:
    rng = np.random.default_rng(channels)
    mixed = rng.normal(0, 1, (channels, channels)) / np.sqrt(channels)
    found: Array = mixed * 0.7 ** np.arange(channels)[None, ::-1].clip(max=12)
    return found


def rows_like_calibration(spec: TensorSpec, count: int, seed: int) -> Array:
    """Low-pass noise mixed over the channels, with an own mean for each, float32 `[n, C, P]`."""
    grid, rng = Grid.of(spec), np.random.default_rng(seed)
    waves = [matrix if matrix is None else matrix.T for matrix in grid.cosines()]
    noise = rng.normal(0, 1, (count, grid.channels, grid.positions))
    slow = grid.along((noise / (0.15 + grid.frequencies())).astype(np.float32), waves)
    means = np.random.default_rng(grid.channels).normal(0, 2, (grid.channels, 1))
    found: Array = (_mixing(grid.channels) @ slow + means).astype(np.float32)
    return found


def like_calibration(spec: TensorSpec, count: int = 1, seed: int = LEVEL_FREE_SEED) -> Array:
    """`count` samples in one tensor that the table of `spec` was made for, but has not seen."""
    rows = rows_like_calibration(spec, count, seed)
    return Grid.of(spec).tensor(rows, spec.shape_at(count))


def slow_stream(
    spec: TensorSpec, frames: int, *, change: float, seed: int = LEVEL_FREE_SEED
) -> list[Array]:
    """Frames of which each keeps all but a share `change` of the variance of the one before."""
    keeps = np.sqrt(1 - change)
    grid = Grid.of(spec)
    mean = rows_like_calibration(spec, 64, 7).mean(0)
    state = rows_like_calibration(spec, 1, seed) - mean
    found = []
    for frame in range(frames):
        found.append(grid.tensor((state + mean).astype(np.float32), spec.shape_at(1)))
        fresh = rows_like_calibration(spec, 1, seed + 1 + frame) - mean
        state = keeps * state + np.sqrt(change) * fresh
    return found


@lru_cache(maxsize=64)
def table_of(spec: TensorSpec) -> FktTable:
    """The table fitted to `INPUTS` samples, with random gradients that favour low frequencies."""
    grid, rng = Grid.of(spec), np.random.default_rng(5)
    rows = rows_like_calibration(spec, INPUTS, 1)
    waves = [matrix if matrix is None else matrix.T for matrix in grid.cosines()]
    shape = (INPUTS, PROJECTIONS, grid.channels, grid.positions)
    slow = rng.normal(0, 0.3, shape) / (0.3 + grid.frequencies())
    gradients = [grid.along(own.astype(np.float32), waves) for own in slow]
    axes = AxisMoments.of(grid, rows[:1], gradients[0])
    for row, own in zip(rows[1:], gradients[1:], strict=True):
        axes.add(AxisMoments.of(grid, row[None], own))
    blocks = Blocks.of(spec, axes_of(grid, axes))
    parts = [Moments.of(blocks, row[None], own) for row, own in zip(rows, gradients, strict=True)]
    return fit_table(spec, blocks, Moments.total(parts), blocks.coefficients(rows))


@lru_cache(maxsize=256)
def coder_of(spec: TensorSpec, level: int) -> CoefficientCoder:
    return CoefficientCoder(table_of(spec), level)


def codec_of(spec: TensorSpec, level: int) -> Fkt:
    """The transform codec for a boundary with this tensor alone."""
    return Fkt(f"fkt@{level}", {spec.name: coder_of(spec, level)})


def middle_level(spec: TensorSpec) -> int:
    return (table_of(spec).levels + 1) // 2
