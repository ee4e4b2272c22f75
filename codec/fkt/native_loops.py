"""The transform codec's inner loops in C, each bit for bit as `NumpyLoops` has it.

Which of the two this machine has, `best_loops` says.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import NoReturn

import numpy as np

from ..errors import CodecError
from ..native import EXTENSION, Extension, readable, why_not
from ..spec import Array
from .loops import OUTLIER, RINGS, SHARES, Loops, NotFinite, TooLarge
from .numpy_loops import NumpyLoops
from .rans import INFORMATION, least_lanes
from .symbol_plan import TOGETHER, SymbolModel, SymbolPlan

# `sp_status` of native/loops.h.
_NOT_FINITE, _TOO_LARGE = 2, 3
_DAMAGE = {
    5: "payload ends within its head",
    6: "payload has a damaged head",
    7: "payload names a coefficient that there is not",
    8: "entropy-coded payload ends within its lanes",
    9: "entropy-coded payload is damaged",
    10: "entropy-coded payload has not the length its symbols ask for",
}
_HEAD_BYTES = 4


class NativeLoops:
    """See `Loops`. What may be a view of a user's array is made `readable` first."""

    name = "C"

    def __init__(self, extension: Extension) -> None:
        self._c = extension

    def centred(self, rows: Array, mean: Array, order: Array) -> Array:  # noqa: D102
        found = np.empty(rows.shape, np.float32)
        self._c.centre(readable(rows), mean, order, found)
        return found

    def restored(self, rows: Array, mean: Array, order: Array) -> Array:  # noqa: D102
        found = np.empty(rows.shape, np.float32)
        self._c.restore(readable(rows), mean, order, found)
        return found

    def in_blocks(self, rows: Array, matrix: Array) -> Array:  # noqa: D102
        found = np.empty(rows.shape, np.float32)
        _, size, inner = rows.shape
        self._c.in_blocks(readable(rows), readable(matrix), size, inner, found)
        return found

    def picked(self, values: Array, step: float, order: Array) -> Array:  # noqa: D102
        found = np.empty(len(order), np.float32)
        _check(self._c.pick(values, step, order, found))
        return found

    def outliers(self, values: Array, step: float, unsent: Array, names: Array) -> Array:  # noqa: D102
        found = self._c.outliers(values, step, unsent, names)
        if not isinstance(found, bytes):
            _refuse(found)
        return np.frombuffer(found, OUTLIER)

    def quantised(self, steps: Array, classes: Array, thresholds: Array) -> Array:  # noqa: D102
        found = np.empty(len(steps), np.int32)
        _check(self._c.quantise(steps, classes, thresholds, found))
        return found

    def placed(self, magnitudes: Array, classes: Array, offsets: Array) -> Array:  # noqa: D102
        found = np.empty(len(magnitudes), np.int64)
        _check(self._c.place(magnitudes, classes, offsets, found))
        return found

    def written(self, magnitudes: Array, plan: SymbolPlan, lanes: int, outliers: Array) -> bytes:  # noqa: D102
        found = self._c.write(*_ways(plan), magnitudes, outliers, lanes)
        if not isinstance(found, bytes):
            _refuse(found)
        return found

    def read(  # noqa: D102
        self, payloads: Sequence[bytes], plan: SymbolPlan, offsets: Array, coefficients: int
    ) -> tuple[Array, list[Array]]:
        found = np.empty((len(payloads), len(plan.classes)), np.int32)
        least = least_lanes(len(plan.classes))
        ends = self._c.read(*_ways(plan), offsets, found, tuple(payloads), coefficients, least)
        for status, _ in ends:
            _check(status)
        outliers = [
            np.frombuffer(payload, OUTLIER, count, _HEAD_BYTES)
            for payload, (_, count) in zip(payloads, ends, strict=True)
        ]
        return found, outliers

    def narrowed(self, values: Array) -> tuple[Array, Array, Array]:  # noqa: D102
        small = np.empty(values.shape, np.int16)
        if self._c.narrow(values, small):
            rows, columns = np.nonzero(small != values)
        else:
            rows = columns = np.zeros(0, np.int64)
        return small, rows, columns

    def spread(self, values: Array, order: Array, scale: float, size: int) -> Array:  # noqa: D102
        found = np.empty((len(values), size), np.float32)
        self._c.spread(readable(values), order, scale, len(values), found)
        return found

    def plan(self, classes: Array, model: SymbolModel) -> SymbolPlan:  # noqa: D102
        single, sparse = np.empty(len(classes), np.int32), np.empty(len(classes), np.int32)
        first = np.empty(len(classes), np.uint8)
        alone = self._c.order_plan(classes, model.mostly_zero, single, sparse, first)
        groups = -(-(len(classes) - alone) // TOGETHER)
        return SymbolPlan(
            model, classes, single[:alone], sparse[: len(classes) - alone], first[: alone + groups]
        )

    def expected(  # noqa: D102
        self, kept: Array, ring: Array, classes: Array, rings: Array
    ) -> tuple[Array, Array]:
        base, left = np.empty(len(kept), np.int64), np.empty(len(kept), np.uint8)
        self._c.expect(kept, ring, classes, rings, base, left)
        return base, left

    def raw_bits(self, magnitudes: Array) -> int:  # noqa: D102
        found: int = self._c.raw_bits(magnitudes)
        return found

    def ring_energies(self, steps: Array, kept: Array, ring: Array) -> tuple[Array, Array]:  # noqa: D102
        found = np.empty((1 + len(SHARES), RINGS), np.float64)
        self._c.ring_energies(steps, kept, ring, found)
        return found[0], found[1:]


def _ways(plan: SymbolPlan) -> tuple[Array, ...]:
    """As the extension takes a plan with its model."""
    model = plan.model
    return (
        model.shares, model.table.symbols, INFORMATION,
        plan.classes, plan.single, plan.sparse, plan.first,
    )  # fmt: skip


def _check(status: int) -> None:
    if status:
        _refuse(status)


def _refuse(status: int) -> NoReturn:
    if status == _NOT_FINITE:
        raise NotFinite("coefficients hold NaN or infinity")
    if status == _TOO_LARGE:
        raise TooLarge("coefficients are too large to be written")
    raise CodecError(_DAMAGE[status])


@lru_cache(maxsize=1)
def best_loops() -> Loops:
    """Those in C where the extension is there; else numpy's, and a warning says what that costs."""
    if EXTENSION is not None:
        return NativeLoops(EXTENSION)
    logging.getLogger("splitpoint.codec").warning(
        "the codec fkt runs in numpy and takes several times as long (%s); "
        "with a C compiler and Python's headers at hand, install splitpoint again",
        why_not(),
    )
    return NumpyLoops()
