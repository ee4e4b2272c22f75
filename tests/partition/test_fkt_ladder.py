"""Which levels a boundary gets, for models that suffer early, late, and not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pytest
from fkt_tables import INPUTS, MAP, rows_like_calibration, spec_of
from splitpoint.codec import Array
from splitpoint.codec.codec_set import CodecSource
from splitpoint.codec.fkt.grid import Grid
from splitpoint.codec.fkt.table import MAX_LEVELS
from splitpoint.partition.bundle.bundle import Boundary
from splitpoint.partition.bundle.ladder import CodecLevel
from splitpoint.partition.calibrate import fkt_ladder
from splitpoint.partition.calibrate.axis_klt import AxisMoments, axes_of
from splitpoint.partition.calibrate.fkt_fit import LEVEL_LOSSES
from splitpoint.partition.calibrate.fkt_ladder import (
    FOLDS,
    MOST_DROP,
    TableFit,
    Tables,
    fitted_ladder,
    usual_losses,
    with_coarser,
)
from splitpoint.partition.calibrate.fkt_transform import Blocks, Moments
from splitpoint.partition.tasks.similarity import Similarity

BOUNDARY = Boundary(id=1, after="layer", tensors=(MAP,))
ARRAYS = [
    Grid.of(MAP).tensor(row[None], MAP.shape) for row in rows_like_calibration(MAP, INPUTS, 1)
]


@pytest.fixture(scope="module")
def fit() -> TableFit:
    return new_fit()


def new_fit() -> TableFit:
    grid, noise = Grid.of(MAP), np.random.default_rng(0)
    rows = [grid.rows(array) for array in ARRAYS]
    gradients = [noise.normal(size=(2, *row.shape[1:])).astype(np.float32) for row in rows]
    axes = AxisMoments.of(grid, rows[0], gradients[0])
    blocks = Blocks.of(MAP, axes_of(grid, axes))
    parts = [Moments.of(blocks, *own) for own in zip(rows, gradients, strict=True)]
    folds = [Moments.total(parts[number::FOLDS]) for number in range(FOLDS)]
    return TableFit(BOUNDARY, {"x": blocks}, {"x": folds}, {"x": ARRAYS})


class Told:
    """A judge of a model of which so much is lost at a level's step: None is no likeness."""

    def __init__(self, lost: Callable[[float], float], *, alike: bool = True) -> None:
        self._lost, self._alike = lost, alike

    def level(
        self,
        boundary: Boundary,
        codec: str,
        sources: Sequence[CodecSource],
        values: Mapping[str, Sequence[Array]],
    ) -> CodecLevel:
        assert len(sources) == FOLDS
        coder = sources[0].named(codec, boundary.id).coders["x"]  # type: ignore[attr-defined]
        lost = self._lost(coder.level.step)
        return CodecLevel(
            codec=codec, nbytes=100 / coder.level.step, p95_bytes=1, encode_ms=1, decode_ms=1,
            judged=INPUTS, agreed=None, loss=lost,
            similarity=Similarity(1 - lost, 0, 1) if self._alike else None,
        )  # fmt: skip


def ladder(fit: TableFit, judge: Told) -> tuple[Tables, list[CodecLevel], int]:
    told: list[None] = []
    tables, levels = fitted_ladder(BOUNDARY, fit, judge, {"x": ARRAYS}, lambda: told.append(None))  # type: ignore[arg-type]
    assert [level.codec for level in levels] == [f"fkt@{n + 1}" for n in range(len(levels))]
    assert tables["x"].levels == len(levels)
    assert all(a.nbytes < b.nbytes for a, b in pairwise(levels))
    return tables, levels, len(told)


def step_of(fit: TableFit, level: int) -> float:
    """Of one of the usual levels."""
    return float(2.0 ** (fit.tables(LEVEL_LOSSES)[-1]["x"].log_step[level - 1] / 8))


def test_a_model_that_suffers_at_once_has_the_usual_levels(fit: TableFit) -> None:
    tables, levels, judged = ladder(fit, Told(lambda step: min(MOST_DROP * 2 * step, 1.0) + 0.06))
    assert judged == len(levels) == len(LEVEL_LOSSES)
    usual = fit.tables(LEVEL_LOSSES)[-1]["x"]
    for name, array in usual.to_arrays().items():
        np.testing.assert_array_equal(tables["x"].to_arrays()[name], array)


def test_a_model_that_bears_more_has_levels_down_to_where_it_suffers(fit: TableFit) -> None:
    coarsest = step_of(fit, 1)
    tables, levels, _ = ladder(fit, Told(lambda step: min(0.01 * (step / coarsest) ** 2, 1.0)))
    drops = [level.drop for level in levels]
    assert len(levels) > len(LEVEL_LOSSES)
    assert drops[0] is not None
    assert MOST_DROP / 2.5 < drops[0] <= MOST_DROP
    assert 2.0 ** (tables["x"].log_step[0] / 8) > coarsest


def test_levels_end_where_nothing_is_lost(fit: TableFit) -> None:
    free = step_of(fit, 3)
    _, levels, _ = ladder(fit, Told(lambda step: 0.0 if step <= 1.01 * free else 0.01))
    assert [level.loss for level in levels[-2:]] == [0.01, 0.0]
    _, levels, judged = ladder(fit, Told(lambda _: 0.0))
    assert [level.loss for level in levels] == [0.0] * (MAX_LEVELS - len(LEVEL_LOSSES) + 1)
    assert judged == len(levels) + 1


def test_where_nothing_says_what_is_lost_the_loss_does(fit: TableFit) -> None:
    _, levels, _ = ladder(fit, Told(lambda _: 0.001, alike=False))
    assert len(levels) == len(LEVEL_LOSSES)


def test_large_tensors_have_fewer_levels_as_far() -> None:
    large = Boundary(id=1, after=None, tensors=(spec_of((1, 8, 300, 300)),))
    for boundary in (BOUNDARY, large):
        losses = with_coarser(usual_losses(boundary))
        assert 0.4 < losses[0] < 0.7
        assert all(1.3 < a / b < 5 for a, b in pairwise(losses))
    assert len(with_coarser(usual_losses(large))) == MAX_LEVELS // 2


@pytest.mark.parametrize("step", [2, 4, INPUTS])
def test_each_fold_has_tables_where_not_all_inputs_fit(
    step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = -(-INPUTS * ARRAYS[0].size // step)
    monkeypatch.setattr(fkt_ladder, "MAX_FIT_COEFFICIENTS", most)
    fitted: list[int] = []
    fit_table = fkt_ladder.fit_table

    def counted(spec, blocks, moments, coefficients, losses):  # type: ignore[no-untyped-def]
        fitted.append(len(coefficients))
        return fit_table(spec, blocks, moments, coefficients, losses)

    monkeypatch.setattr(fkt_ladder, "fit_table", counted)
    assert len(new_fit().tables(LEVEL_LOSSES)) == FOLDS + 1
    *without_one, of_all = sorted(fitted)
    assert without_one == [of_all - of_all // FOLDS] * FOLDS
    assert of_all <= INPUTS // step + FOLDS
