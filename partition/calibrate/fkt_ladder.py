"""Which levels of the codec `fkt` a boundary gets: from nearly lossless to where answers suffer.

What a loss in nats does to answers differs from task to task: a classifier changes its mind at
losses at which a detector still finds every box. So levels aim at the usual losses first. Where the
coarsest of them leaves the answers as they are, there are coarser ones, as long as `MOST_DROP` is
not exceeded. A level that loses nothing at all has no finer one beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from splitpoint.codec import Array, TensorSpec
from splitpoint.codec.codec_set import FKT, CodecSet
from splitpoint.codec.fkt.grid import Grid
from splitpoint.codec.fkt.table import MAX_LEVELS, FktTable

from ..bundle.bundle import Boundary
from ..bundle.ladder import CodecLevel
from .fkt_fit import LEVEL_LOSSES, fit_table
from .fkt_transform import Blocks, Moments
from .judge import Judge
from .side_by_side import side_by_side

FOLDS = 4
EIGHT_LEVELS_VALUES = 250_000  # of a boundary; half as many levels above
# Of a tensor, over the inputs that its table is fitted to, and at most `FOLDS` inputs more.
MAX_FIT_COEFFICIENTS = 24_000_000
# A coarser level is added while no more of the answers change, or of their likeness is lost.
MOST_DROP = 0.05
FITTED_TOGETHER = 2  # tables, each of which needs some times its coefficients' memory
_COARSER = 2**0.5  # times the loss of the next level, about as among the usual ones

Tables = dict[str, FktTable]
"""By tensor."""


def usual_losses(boundary: Boundary) -> list[float]:
    """Those of the levels that any boundary gets; half of them where each takes long to judge."""
    values = sum(math.prod(spec.shape) for spec in boundary.tensors)
    return list(LEVEL_LOSSES if values <= EIGHT_LEVELS_VALUES else LEVEL_LOSSES[1::2])


def with_coarser(losses: Sequence[float]) -> list[float]:
    """Before the usual losses those that are tried where answers bear them, coarsest first."""
    share = len(losses) / len(LEVEL_LOSSES)  # fewer levels lie further apart
    more = round((MAX_LEVELS - len(LEVEL_LOSSES)) * share)
    return [*(losses[0] * _COARSER ** (number / share) for number in range(more, 0, -1)), *losses]


class TableFit:
    """What the tables of one boundary are fitted to: of all inputs, and of all folds but one."""

    def __init__(
        self,
        boundary: Boundary,
        blocks: Mapping[str, Blocks],
        moments: Mapping[str, Sequence[Moments]],
        values: Mapping[str, Sequence[Array]],
    ) -> None:
        self._blocks, self._moments = blocks, moments
        self._specs = [spec for spec in boundary.tensors if spec.name in moments]
        self._coefficients: dict[str, Array] = {}
        self._folds: dict[str, Array] = {}
        for spec in self._specs:
            samples = values[spec.name]
            size = samples[0].size
            stride = -(-len(samples) * size // MAX_FIT_COEFFICIENTS)
            # Whole rounds of the folds: a stride over inputs would leave some folds out.
            some = [i for i in range(len(samples)) if i // FOLDS % stride == 0]
            rows = rows_of(spec, [samples[i] for i in some])
            self._coefficients[spec.name] = blocks[spec.name].coefficients(rows)
            self._folds[spec.name] = np.array(some) % FOLDS

    def tables(self, losses: Sequence[float]) -> list[Tables]:
        """Those that each fold is judged with, and last those of all inputs; empty for no tensor.

        A level for each of `losses`, coarsest first.
        """
        found: list[Tables] = [{} for _ in range(FOLDS + 1)]
        for spec in self._specs:
            # No input is of the fold that is left out last.
            jobs = (partial(self._table, spec, fold, losses) for fold in range(FOLDS + 1))
            fitted = side_by_side(jobs, FITTED_TOGETHER)
            for tables, table in zip(found, fitted, strict=True):
                tables[spec.name] = table
        return found

    def _table(self, spec: TensorSpec, fold: int, losses: Sequence[float]) -> FktTable:
        """Fitted to the inputs of all folds but one."""
        name = spec.name
        others = [part for number, part in enumerate(self._moments[name]) if number != fold]
        kept = self._coefficients[name][self._folds[name] != fold]
        return fit_table(spec, self._blocks[name], Moments.total(others), kept, losses)


def fitted_ladder(
    boundary: Boundary,
    fit: TableFit,
    judge: Judge,
    values: Mapping[str, Sequence[Array]],
    judged: Callable[[], None],
) -> tuple[Tables, list[CodecLevel]]:
    """The tables of a boundary and its levels, coarsest first, both empty where nothing is coded.

    `judged` is called behind each level that was measured.
    """
    losses = usual_losses(boundary)
    tables = fit.tables(losses)
    if not tables[-1]:
        return {}, []

    def measured(level: int) -> CodecLevel | None:
        sources = [CodecSet(lambda _, found=found: found) for found in tables[:FOLDS]]  # type: ignore[misc]
        found = judge.level(boundary, f"{FKT}@{level + 1}", sources, values)
        judged()
        return found

    usual = 0
    found = {usual: measured(usual)}
    if _bears_more(found[usual]):
        usual = len(with_coarser(losses)) - len(losses)
        losses = with_coarser(losses)
        tables = fit.tables(losses)
        found = {usual: measured(usual)}
        for coarser in range(usual - 1, -1, -1):
            level = measured(coarser)
            if not _bears_more(level):
                break
            found[coarser] = level
    for finer in range(usual + 1, len(losses)):
        before = found[finer - 1]
        if before is not None and before.loss == 0:
            break
        found[finer] = measured(finer)
    kept = [level for level in sorted(found) if found[level] is not None]
    return (
        {name: _with_levels(table, kept) for name, table in tables[-1].items()} if kept else {},
        [
            replace(level, codec=f"{FKT}@{number}")
            for number, level in enumerate((found[level] for level in kept), start=1)
            if level is not None
        ],
    )


def _bears_more(level: CodecLevel | None) -> bool:
    """Whether less is lost than may be. Where nothing says so, the loss is the task's measure."""
    return level is not None and level.drop is not None and level.drop <= MOST_DROP


def _with_levels(table: FktTable, levels: Sequence[int]) -> FktTable:
    return replace(table, log_step=table.log_step[levels], lanes=table.lanes[levels])


def rows_of(spec: TensorSpec, values: Sequence[Array]) -> Array:
    """Single samples as `[values, C, P]`."""
    return Grid.of(spec).rows(np.concatenate(values, spec.batch_dim))
