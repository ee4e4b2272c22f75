"""In which order, and as what, the symbols of a tensor's coefficients go through the entropy stage.

Coefficients of classes that are mostly 0 go four at a time: one symbol of sixteen says which of the
four are not 0, and a second pass tells the magnitudes of those. That costs no more bits than one
symbol each, and less than half of the time. All other coefficients are symbols of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..spec import Array
from .rans import PRECISION_BITS, TOTAL, SymbolTable
from .symbols import SYMBOLS

TOGETHER = 4
_MOSTLY_ZERO = TOTAL * 3 // 4
_PLACES = np.array([8, 4, 2, 1])
_BITS = (np.arange(SYMBOLS)[:, None] & _PLACES > 0).astype(np.uint8)  # of a mask


class SymbolModel:
    """The frequencies of every context: classes, a certain 0, masks, and magnitudes but 0.

    `frequencies` is `[classes, 16]` and adds up to 2^12 in each row. What follows from it is
    computed in integers, so that both ends agree. `shares` are width x 2^16 + start of every symbol
    of every context, uint32 `[contexts, 16]`.
    """

    def __init__(self, frequencies: Array) -> None:
        plain = frequencies.astype(np.int64)
        count, zero = len(plain), plain[:, :1]
        self.certain, self.masks, self.nonzero = count, count + 1, 2 * count + 1
        self.mostly_zero = zero[:, 0] >= _MOSTLY_ZERO
        certain = np.zeros((1, SYMBOLS), np.int64)
        certain[0, 0] = TOTAL
        ones = _BITS.sum(1, dtype=np.int64)
        together = (zero ** (TOGETHER - ones) * (TOTAL - zero) ** ones) >> (
            PRECISION_BITS * (TOGETHER - 1)
        )
        others = np.zeros_like(plain)
        others[:, :-1] = plain[:, 1:] * TOTAL // (TOTAL - zero)
        rows = np.concatenate(
            [plain, certain, _adding_up(together, SYMBOLS), _adding_up(others, SYMBOLS - 1)]
        )
        self.widths = rows.astype(np.uint32)
        self.starts = (np.cumsum(rows, axis=1) - rows).astype(np.uint32)
        self.shares = self.widths << 16 | self.starts
        self.table = SymbolTable(rows)


def _adding_up(rows: Array, symbols: int) -> Array:
    """Frequencies of at least 1 for the first so many symbols, that add up to 2^12."""
    found = np.zeros_like(rows)
    found[:, :symbols] = 1 + rows[:, :symbols] * (TOTAL - symbols) // TOTAL
    found[np.arange(len(rows)), rows.argmax(1)] += TOTAL - found.sum(1)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class SymbolPlan:
    """Where `n` coefficients of given classes go: `single` and `sparse` are their indices, int32.

    `classes` are uint8 `[n]`. `first` are the contexts of the first pass, uint8: those of the
    single ones, then those of the masks.
    """

    model: SymbolModel
    classes: Array
    single: Array
    sparse: Array
    first: Array

    @classmethod
    def of(cls, classes: Array, model: SymbolModel) -> SymbolPlan:
        """The plan for coefficients of these classes."""
        sparse_class = model.mostly_zero[classes]
        single, sparse = np.flatnonzero(~sparse_class), np.flatnonzero(sparse_class)
        # Four that go together should be alike; the first one's class stands for all.
        sparse = sparse[np.argsort(classes[sparse], kind="stable")[::-1]]
        leaders = classes[sparse[::TOGETHER]]
        first = np.concatenate([classes[single], (model.masks + leaders).astype(np.uint8)])
        return cls(model, classes, single.astype(np.int32), sparse.astype(np.int32), first)

    def symbols(self, symbols: Array) -> tuple[Array, Array, Array]:
        """First-pass symbols, second-pass symbols and their contexts, from `[n]` of symbols."""
        sparse = symbols[self.sparse]
        padded = np.zeros(-(-len(sparse) // TOGETHER) * TOGETHER, np.int64)
        padded[: len(sparse)] = sparse > 0
        masks = padded.reshape(-1, TOGETHER) @ _PLACES
        rest = self.sparse[sparse > 0]
        return (
            np.concatenate([symbols[self.single].astype(np.int64), masks]),
            symbols[rest].astype(np.int64) - 1,
            self.model.nonzero + self.classes[rest].astype(np.int64),
        )

    def nonzero(self, first: Array) -> Array:
        """Which coefficients the second pass is about, from the first-pass symbols."""
        masks = _BITS[first[len(self.single) :]].ravel()[: len(self.sparse)]
        found: Array = self.sparse[masks > 0]
        return found
