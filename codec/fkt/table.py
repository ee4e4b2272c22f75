"""What the transform codec knows of one tensor at one boundary, from calibration.

A coefficient is `forward[band(p)] @ A_p(x - mean)`, where A multiplies every axis of the positions
with a matrix, in units in which one step of error costs the model the same loss in every direction.
`log_scale` is how large it usually is. At a level, the ratio of that to the step is the
coefficient's class, and everything that the entropy stage does hangs on the class alone: how
probable each symbol is, from where on a magnitude is rounded up, and where in its bin the decoder
puts it. Classes follow from integers, so that two machines never disagree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import CodecError
from ..native import readable
from ..spec import Array, TensorSpec
from .axes import as_multiplied
from .grid import Grid, whole_product
from .loops import Loops
from .native_loops import best_loops
from .rans import MAX_LANES, TOTAL, least_lanes
from .symbol_plan import SymbolModel
from .symbols import FINE, LAST_SINGLE, SYMBOLS

OCTAVE = 8  # log_scale and log_step count eighths of an octave
# Class 0 begins where the usual magnitude is 0.16 of a step: such a coefficient hardly ever rounds
# to anything but 0, and smaller ones are not sent at all.
FIRST_CLASS, CLASS_WIDTH, CLASSES = -21, 2, 40
MAX_THRESHOLD = 0.75  # of a symbol, from its magnitude on, in steps
MAX_FITTED = 256  # positions of an axis that has a matrix of its own
MAX_LEVELS, MAX_LOG_STEP = 16, 400


@dataclass(frozen=True, kw_only=True, eq=False)
class FktTable:
    """The arrays of one tensor. C channels, P positions, B bands of frequency, L levels.

    `axes` are the matrices of the axes of at most `MAX_FITTED` positions, one after the other,
    float32; longer axes have the DCT. `forward` is `[B, K, C / K, C / K]` float32: for every band a
    matrix for each of K blocks of neighbouring channels. `band` is `[P]` uint8, `mean` `[C, M]`
    float32: that of every single token, and last that of all other positions. `log_scale` is
    `[C, P]` int8, `log_step` and `lanes` are `[L]` int16, coarsest level first,
    `frequencies` `[CLASSES, 16]` uint16 with rows that add up to 2^12, `offsets` `[CLASSES, 16]`
    int8: where a symbol's magnitudes lie, in 1/64 step from its first one. `thresholds`
    `[CLASSES, 16]` float32: from how many steps on a value becomes symbol s rather than s - 1.
    Raises `CodecError` when arrays do not fit together.
    """

    spec: TensorSpec
    mean: Array
    axes: Array
    forward: Array
    band: Array
    log_scale: Array
    log_step: Array
    lanes: Array
    frequencies: Array
    offsets: Array
    thresholds: Array
    loops: Loops = field(default_factory=best_loops)
    grid: Grid = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", Grid.of(self.spec))
        self._check()
        for name in ("offsets", "thresholds"):  # which the loops read as they lie in memory
            object.__setattr__(self, name, readable(getattr(self, name)))

    @classmethod
    def from_arrays(cls, spec: TensorSpec, arrays: Mapping[str, Array]) -> FktTable:
        """The table of `spec` from arrays by name; `CodecError` for missing or misfit ones."""
        try:
            own: dict[str, Any] = {name: arrays[name] for name in ARRAYS}
            return cls(spec=spec, **own)
        except KeyError as error:
            raise CodecError(f"the codec table of {spec.name!r} lacks {error}") from error

    def to_arrays(self) -> dict[str, Array]:
        """What `from_arrays` reads."""
        return {name: getattr(self, name) for name in ARRAYS}

    @property
    def levels(self) -> int:
        """How many levels there are."""
        return len(self.log_step)

    @cached_property
    def backward(self) -> Array:
        """The inverses of `forward`, float32; `CodecError` where there is none."""
        return self._inverted(self.forward)

    def _inverted(self, matrices: Array) -> Array:
        try:
            with np.errstate(over="ignore"):
                found: Array = np.linalg.inv(matrices.astype(np.float64)).astype(np.float32)
        except np.linalg.LinAlgError:
            found = np.full_like(matrices, np.nan)
        if not np.isfinite(found).all():
            self._refuse("its transform cannot be undone")
        return found

    @cached_property
    def model(self) -> SymbolModel:
        """What the entropy stage makes of the frequencies."""
        return SymbolModel(self.frequencies)

    @cached_property
    def axis_matrices(self) -> list[Array | None]:
        """What every axis is multiplied with: see `as_multiplied`; None where there is nothing."""
        found, start = self.grid.cosines(), 0
        for axis, size in enumerate(self.grid.extents):
            if size <= MAX_FITTED:
                found[axis] = self.axes[start : start + size * size].reshape(size, size)
                start += size * size
        return as_multiplied(found, self.grid.extents)

    @cached_property
    def axis_inverses(self) -> list[Array | None]:
        """Their inverses; `CodecError` where there is none."""
        own = [None if m is None else self._inverted(m) for m in self.axis_matrices]
        return as_multiplied(own, self.grid.extents)

    @cached_property
    def mean_coefficients(self) -> Array:
        """What the axes make of the mean, `[C, P]`."""
        grid, own = self.grid, self.mean[:, :-1]
        rest = np.repeat(self.mean[:, -1:], grid.positions - grid.prefix, axis=1)
        found: Array = self.along(np.concatenate([own, rest], 1)[None])[0]
        return found

    def transform(self, rows: Array) -> Array:
        """Coefficients `[batch, C, P]`, in units of loss, of rows in that shape."""
        return self.components(self.along(rows))

    def along(self, rows: Array) -> Array:
        """Every axis of rows, float32 `[batch, C, P]`, multiplied with its matrix."""
        return self.grid.along(rows, self.axis_matrices, self._product)

    def _product(self, block: Array, axis: int, matrix: Array) -> Array:
        extent, size = block.shape[axis], len(matrix)
        if size == extent:
            return whole_product(block, axis, matrix)
        inner = math.prod(block.shape[axis + 1 :])
        return self.loops.in_blocks(block.reshape(-1, size, inner), matrix).reshape(block.shape)

    def components(self, coefficients: Array) -> Array:
        """`transform` of what its axes have been multiplied with already."""
        banded, found = self.banded(coefficients), np.empty_like(coefficients)
        found[..., self.band_order[0]] = banded
        return found

    def banded(self, coefficients: Array) -> Array:
        """`components`, but the positions in the order of `band_order`."""
        order, _ = self.band_order
        return self._mixed(
            self.loops.centred(coefficients, self.mean_coefficients, order), self.forward
        )

    def inverse(self, coefficients: Array) -> Array:
        """Undoes `transform`."""
        return self.unbanded(coefficients.take(self.band_order[0], axis=2))

    def unbanded(self, coefficients: Array) -> Array:
        """The rows of coefficients whose positions are in the order of `band_order`."""
        order, _ = self.band_order
        mixed = self._mixed(coefficients, self.backward)
        found = self.loops.restored(mixed, self.mean_coefficients, order)
        return self.grid.along(found, self.axis_inverses, self._product)

    def check_inverse(self) -> None:
        """`CodecError` where the transform cannot be undone; else all that it takes is at hand."""
        _ = self.backward, self.axis_inverses, self.mean_coefficients

    def _mixed(self, rows: Array, matrices: Array) -> Array:
        """Every band's matrices over the channels; the positions are in the order of the bands."""
        blocks, size = matrices.shape[1:3]
        split = rows.reshape(len(rows), blocks, size, -1)
        mixed = np.empty_like(split)
        for matrix, (start, end) in zip(matrices, pairwise([0, *self.band_order[1]]), strict=True):
            np.matmul(matrix, split[..., start:end], out=mixed[..., start:end])
        return mixed.reshape(rows.shape)

    @cached_property
    def band_order(self) -> tuple[Array, list[int]]:
        """The positions, band after band (int32), and where each band ends among them."""
        order = np.argsort(self.band, kind="stable").astype(np.int32)
        return order, np.cumsum(np.bincount(self.band, minlength=len(self.forward))).tolist()

    def _check(self) -> None:
        if self.spec.dtype != "float32" or self.log_step.ndim != 1:
            self._refuse(f"it is of {self.spec.dtype}, with levels {list(self.log_step.shape)}")
        channels, positions = self.grid.channels, self.grid.positions
        shapes = {
            "mean": ("float32", (channels, self.grid.prefix + 1)),
            "axes": ("float32", (sum(n * n for n in self.grid.extents if n <= MAX_FITTED),)),
            "band": ("uint8", (positions,)),
            "log_scale": ("int8", (channels, positions)),
            "log_step": ("int16", self.log_step.shape[:1]),
            "lanes": ("int16", self.log_step.shape[:1]),
            "frequencies": ("uint16", (CLASSES, SYMBOLS)),
            "offsets": ("int8", (CLASSES, SYMBOLS)),
            "thresholds": ("float32", (CLASSES, SYMBOLS)),
        }
        for name, (dtype, shape) in shapes.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != shape:
                self._refuse(f"{name} is {array.dtype} {list(array.shape)}")
        if (
            self.forward.dtype != np.float32
            or self.forward.ndim != 4
            or self.forward.shape[2] != self.forward.shape[3]
            or self.forward.shape[1] * self.forward.shape[2] != channels
            or self.band.max() >= len(self.forward)
        ):
            self._refuse(f"forward is {self.forward.dtype} {list(self.forward.shape)}")
        for name in ("mean", "axes", "forward", "thresholds"):
            if not np.isfinite(getattr(self, name)).all():
                self._refuse(f"{name} is not finite")
        single = np.arange(1, LAST_SINGLE + 1)
        if (np.abs(self.thresholds[:, single] - single) > MAX_THRESHOLD).any():
            self._refuse("thresholds are out of range")
        if (np.abs(self.offsets.astype(np.int64)) > FINE // 2).any():
            self._refuse("offsets are out of range")
        if (
            not 1 <= self.levels <= MAX_LEVELS
            or (np.abs(self.log_step.astype(np.int64)) > MAX_LOG_STEP).any()
        ):
            self._refuse("log_step is out of range")
        if (self.frequencies < 1).any() or (self.frequencies.sum(1, dtype=np.int64) != TOTAL).any():
            self._refuse("frequencies do not add up")
        lanes = self.lanes
        if (lanes < 1).any() or (lanes > MAX_LANES).any():
            self._refuse("lanes is out of range")

    def _refuse(self, why: str) -> None:
        raise CodecError(f"the codec table of {self.spec.name!r} does not fit: {why}")


ARRAYS = (
    "mean", "axes", "forward", "band", "log_scale", "log_step", "lanes", "frequencies",
    "offsets", "thresholds",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Level:
    """One level of a table, worked out: which coefficients are sent, in what order, and how.

    `order` are indices into the C x P coefficients, those that are usually largest first; `classes`
    are theirs. `unsent` are the others. All are int32 but `classes`. `banded` and `unsent_banded`
    are where they lie when the positions are in the order of the bands. `step` is in units of loss.
    """

    step: float
    order: Array
    classes: Array
    unsent: Array
    banded: Array
    unsent_banded: Array
    lanes: int

    @classmethod
    def of(cls, table: FktTable, level: int) -> Level:
        """Level 1 is the coarsest."""
        log_step = int(table.log_step[level - 1])
        ratio = table.log_scale.ravel().astype(np.int64) - log_step - FIRST_CLASS
        sent, unsent = np.flatnonzero(ratio >= 0), np.flatnonzero(ratio < 0)
        order = sent[np.argsort(-ratio[sent], kind="stable")]
        return cls(
            step=2.0 ** (log_step / OCTAVE),
            order=order.astype(np.int32),
            classes=np.minimum(ratio[order] // CLASS_WIDTH, CLASSES - 1).astype(np.uint8),
            unsent=unsent.astype(np.int32),
            banded=banded_places(table, order),
            unsent_banded=banded_places(table, unsent),
            lanes=max(int(table.lanes[level - 1]), least_lanes(len(order))),
        )


def banded_places(table: FktTable, places: Array) -> Array:
    """Where coefficients lie, int32, when the positions are in the order of the bands."""
    positions, rank = table.grid.positions, np.empty(table.grid.positions, np.int64)
    rank[table.band_order[0]] = np.arange(positions)
    found: Array = (places // positions * positions + rank[places % positions]).astype(np.int32)
    return found
