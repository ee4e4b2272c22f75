"""The transform of the codec `fkt` for a tensor, from what calibration saw of it.

It is a task-aware KLT: with C the covariance of the channels and F the Fisher information of the
model's output with respect to them, the eigenvectors U of F^1/2 C F^1/2 give components
U^T F^1/2 x that are uncorrelated and in which every unit of error costs the same: half its square
is the expected divergence of the output, in nats. Both are taken apart by frequency: errors of low
frequencies add up in what the network pools, and high ones hardly matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from splitpoint.codec import Array, TensorSpec
from splitpoint.codec.fkt.grid import Grid

from .axis_klt import frequencies_of

# Between bands of frequencies, 1 being the highest on one axis.
BAND_EDGES = (0.036, 0.086, 0.143, 0.21, 0.32, 0.45, 0.65)
RIDGE = 1e-3  # added to F, as a share of its largest diagonal entry
SHRINK = 200  # a band's moments count as if it had been seen as often with those of all bands
MAX_MATRIX_ENTRIES, MAX_BLOCK = 800_000, 384  # of `forward`, and of one of its matrices' sides


@dataclass(frozen=True, slots=True)
class Blocks:
    """How a tensor's transform is divided: its grid, blocks of channels, and bands of positions.

    `axes` are the matrices of the grid's axes, `turned` their inverses' transposes.
    """

    grid: Grid
    blocks: int
    band: Array
    axes: Sequence[Array | None]
    turned: Sequence[Array | None]

    @classmethod
    def of(cls, spec: TensorSpec, axes: Sequence[Array | None]) -> Blocks:
        """Small enough matrices, and every band with at least one position."""
        grid = Grid.of(spec)
        channels = grid.channels
        size = max(n for n in range(1, min(channels, MAX_BLOCK) + 1) if channels % n == 0)
        most = max(MAX_MATRIX_ENTRIES // (channels * size), 1)
        edges = BAND_EDGES[:: -(-len(BAND_EDGES) // (most - 1))] if most > 1 else ()
        band = np.digitize(frequencies_of(grid), edges)
        if grid.prefix:  # single tokens are like nothing else
            band[: grid.prefix] = -1
        band = np.unique(band, return_inverse=True)[1].astype(np.uint8)
        turned = [
            None if m is None else np.linalg.inv(m.astype(np.float64)).T.astype(np.float32)
            for m in axes
        ]
        return cls(grid, channels // size, band, axes, turned)

    @property
    def bands(self) -> int:
        """How many bands there are."""
        return int(self.band.max()) + 1

    def coefficients(self, rows: Array) -> Array:
        """`[n, C, P]` of rows in that shape, their axes multiplied with `axes`."""
        return self.grid.along(rows, self.axes)

    def gradients(self, rows: Array) -> Array:
        """`[n, C, P]`: with respect to `coefficients`, from gradients with respect to rows."""
        return self.grid.along(rows, self.turned)

    def products(self, coefficients: Array) -> Array:
        """Sums of x x^T over samples and positions, float64 `[bands, blocks, size, size]`."""
        split = coefficients.reshape(len(coefficients), self.blocks, -1, self.grid.positions)
        return np.stack(
            [
                np.einsum("nkip,nkjp->kij", part, part, optimize=True)
                for part in (split[..., self.band == band] for band in range(self.bands))
            ]
        ).astype(np.float64)


@dataclass(slots=True)
class Moments:
    """Sums over inputs of one tensor, and of the output's gradients there.

    `first` is `[C, M]` (see `FktTable.mean`), `second` and `fisher` are those of `Blocks.products`.
    """

    inputs: int
    first: Array
    second: Array
    fisher: Array

    @classmethod
    def of(cls, blocks: Blocks, rows: Array, gradients: Array) -> Moments:
        """Of one input, `[1, C, P]`, and its gradients, `[projections, C, P]`."""
        prefix = blocks.grid.prefix
        rest = rows[0, :, prefix:].mean(-1, dtype=np.float64, keepdims=True)
        return cls(
            inputs=1,
            first=np.concatenate([rows[0, :, :prefix].astype(np.float64), rest], 1),
            second=blocks.products(blocks.coefficients(rows)),
            fisher=blocks.products(blocks.gradients(gradients)) / len(gradients),
        )

    def add(self, other: Moments) -> None:
        """Counts another's inputs too."""
        self.inputs += other.inputs
        self.first += other.first
        self.second += other.second
        self.fisher += other.fisher

    @classmethod
    def total(cls, parts: Sequence[Moments]) -> Moments:
        """The sum of several."""
        return cls(
            inputs=sum(part.inputs for part in parts),
            first=np.sum([part.first for part in parts], 0),
            second=np.sum([part.second for part in parts], 0),
            fisher=np.sum([part.fisher for part in parts], 0),
        )


def transform_of(blocks: Blocks, moments: Moments) -> tuple[Array, Array]:
    """`FktTable.mean` and `FktTable.forward`."""
    mean = moments.first / moments.inputs
    counts = np.bincount(blocks.band, minlength=blocks.bands).astype(np.float64)
    second = moments.second.copy()
    grid, prefix = blocks.grid, blocks.grid.prefix
    # What the axes make of a constant, squared, is how much of the mean each position holds.
    constant = np.concatenate([np.zeros(prefix), np.ones(grid.positions - prefix)])
    share = blocks.coefficients(constant.astype(np.float32)[None, None])[0, 0] ** 2
    shares = [np.eye(blocks.bands)[band] for band in blocks.band[:prefix]]
    shares.append(np.bincount(blocks.band, share, blocks.bands))
    for place, own in enumerate(shares):
        parts = mean[:, place].reshape(blocks.blocks, -1)
        outer = np.einsum("ki,kj->kij", parts, parts)
        second -= moments.inputs * own[:, None, None, None] * outer
    covariance = _shrunk(second / moments.inputs, counts, moments.inputs)
    fisher = _shrunk(moments.fisher / moments.inputs, counts, moments.inputs)
    forward = np.empty(covariance.shape, np.float32)
    for place in np.ndindex(forward.shape[:2]):
        forward[place] = _klt(covariance[place], fisher[place])
    return mean.astype(np.float32), forward


def _shrunk(sums: Array, counts: Array, inputs: int) -> Array:
    """Moments per coefficient of every band, drawn towards those of all bands.

    Few positions make a noisy estimate; what they keep of their own is their size.
    """
    pooled = sums.sum(0) / counts.sum()
    found = sums / counts[:, None, None, None]
    size = np.trace(found, axis1=2, axis2=3) / np.maximum(
        np.trace(pooled, axis1=1, axis2=2), np.finfo(np.float64).tiny
    )
    seen = (counts * inputs)[:, None, None, None]
    shrunk: Array = (seen * found + SHRINK * size[..., None, None] * pooled) / (seen + SHRINK)
    return shrunk


def _klt(covariance: Array, fisher: Array) -> Array:
    """Components in the order of their variance, from channels."""
    largest = float(fisher.diagonal().max())
    if largest <= 0:  # nothing depends on these channels
        fisher, largest = np.zeros_like(fisher), 1e-12
    values, vectors = np.linalg.eigh(fisher + RIDGE * largest * np.eye(len(fisher)))
    root = vectors * np.sqrt(np.maximum(values, RIDGE * largest / 2)) @ vectors.T
    _, components = np.linalg.eigh(root @ covariance @ root)
    forward: Array = components[:, ::-1].T @ root
    return forward
