"""How like the answers of a changed model are to the exact model's own, which are the truth here.

Both measures are the usual ones of their tasks, taken over all pictures together, so that a picture
has no value of its own. Their intervals are the percentile bootstrap's over the pictures (B. Efron,
Ann. Statist. 7, 1979). For its lower end there is one picture more, as full as the average, on
which nothing agrees: else a few pictures that all agree would promise that all others will. Of `n`
that agree perfectly the average precision is at least about 1 - 3 / n, as a share of which no
exception was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from splitpoint.codec import Array

from .detections import Detections
from .nms import iou

_DRAWS, _TOGETHER = 1000, 100  # of the bootstrap; how many of them are in memory
_QUANTILES = (0.025, 0.975)
_CLASSES = 256  # of a map


@dataclass(frozen=True, slots=True)
class Similarity:
    """From 0 (nothing is as it was) to 1, and the 95 % interval among all pictures there could be.

    All NaN where the truth holds nothing, so that nothing could be found again.
    """

    value: float
    low: float
    high: float


_NOTHING = Similarity(np.nan, np.nan, np.nan)


def average_precision(
    found: Sequence[Detections], truth: Sequence[Detections], min_iou: float = 0.5
) -> Similarity:
    """Mean average precision: are the true boxes found, and do they score more than all others?

    `found` and `truth` hold the detections of one picture each. Per class, the boxes of all
    pictures come in order of their scores, equal ones in that of the pictures; each hits the true
    box of its picture that is not hit yet with which it has the largest IoU, if that is at least
    `min_iou`. The average precision is the area under precision over recall, with precision made
    monotonous, at all points (M. Everingham et al., "The Pascal Visual Object Classes Challenge: A
    Retrospective", IJCV 2015, which also says that a box that was hit already cannot be hit again).
    The mean is over the classes that occur in the truth. A class that occurs only in `found` does
    not count: of boxes that score little there are always some.

    Give a truth of the boxes that somebody would act on (`of_score`), and all that are found.
    Boxes without area take no part.
    """
    found, truth = [_solid(one) for one in found], [_solid(one) for one in truth]
    true_classes = sorted({int(c) for one in truth for c in one.classes})
    rankings = [_Ranking.of(found, truth, c, min_iou) for c in true_classes]

    def measure(weights: Array) -> Array:
        return _mean([ranking.precision(weights) for ranking in rankings], len(weights))

    return _similarity(measure, len(truth))


def mean_iou(class_maps: Sequence[Array], truth_maps: Sequence[Array]) -> Similarity:
    """Mean intersection over union: how well do the regions of each class cover the true ones?

    Each map is uint8, of the same shape as its truth. Per class, the pixels of all pictures that
    have it in both are divided by those that have it in either; the mean is over the classes that
    occur in the truth (J. Long et al., "Fully Convolutional Networks for Semantic Segmentation",
    CVPR 2015). A pixel that should not be of a class is missing from the region that it should be
    in, so that it counts where its own class does not.
    """
    if not truth_maps:
        return _NOTHING
    counts = [_overlaps(one, true) for one, true in zip(class_maps, truth_maps, strict=True)]
    both, ours, true = (np.array(count, np.float64) for count in zip(*counts, strict=True))
    occurs = np.flatnonzero(true.sum(axis=0))
    both, ours, true = (_and_average(count[:, occurs]) for count in (both, ours, true))
    both[-1] = 0

    def measure(weights: Array) -> Array:
        either = weights @ (ours + true - both)
        shares = np.divide(weights @ both, either, out=np.zeros_like(either), where=either > 0)
        shares[weights @ true == 0] = np.nan
        return _mean(list(shares.T), len(weights))

    return _similarity(measure, len(counts))


@dataclass(frozen=True, slots=True, eq=False)
class _Ranking:
    """Boxes of one class, best first: the picture of each and whether it hits; and of the truth,
    how many there are in each picture, and in the average one."""

    pictures: Array
    hits: Array
    true: Array

    @classmethod
    def of(
        cls, found: Sequence[Detections], truth: Sequence[Detections], number: int, min_iou: float
    ) -> _Ranking:
        scores, pictures, hits = [np.empty(0)], [np.empty(0, np.intp)], [np.empty(0, bool)]
        true = np.zeros(len(truth))
        for picture, (ours, own) in enumerate(zip(found, truth, strict=True)):
            order = np.flatnonzero(ours.classes == number)
            order = order[np.argsort(-ours.scores[order], kind="stable")]
            own_boxes = own.boxes[own.classes == number]
            scores.append(ours.scores[order])
            pictures.append(np.full(len(order), picture))
            hits.append(_hits(iou(ours.boxes[order], own_boxes), min_iou))
            true[picture] = len(own_boxes)
        order = np.argsort(-np.concatenate(scores), kind="stable")
        # What comes after the last hit changes nothing, and may be most of it.
        last = np.concatenate(hits)[order].nonzero()[0].max(initial=-1)
        order = order[: last + 1]
        return cls(np.concatenate(pictures)[order], np.concatenate(hits)[order], _and_average(true))

    def precision(self, weights: Array) -> Array:
        """The average precision where picture i is there `weights[:, i]` times; NaN without truth.

        `weights` are `[draws, pictures + 1]`, the last of which is one with truth alone.
        """
        boxes = weights[:, self.pictures]
        hit = boxes * self.hits
        so_far = boxes.cumsum(axis=1)
        precision = np.divide(hit.cumsum(axis=1), so_far, out=np.zeros_like(hit), where=so_far > 0)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        true = weights @ self.true
        found: Array = np.full_like(true, np.nan)
        np.divide((hit * best).sum(axis=1), true, out=found, where=true > 0)
        return found


def _hits(ious: Array, min_iou: float) -> Array:
    """Whether each row, best first, hits a column that no row before it hit."""
    ious = ious.copy()
    hits = np.zeros(len(ious), bool)
    if ious.shape[1]:
        for row, values in enumerate(ious):
            best = int(values.argmax())
            if values[best] >= min_iou:
                hits[row] = True
                ious[:, best] = -1
    return hits


def _solid(one: Detections) -> Detections:
    kept = (one.boxes[:, :2] < one.boxes[:, 2:]).all(axis=1)
    return Detections(one.boxes[kept], one.scores[kept], one.classes[kept])


def _overlaps(ours: Array, true: Array) -> tuple[Array, Array, Array]:
    """Pixels of each class: in both maps, in ours, in the true one."""
    same = true[ours == true]
    both, one, other = (np.bincount(m.ravel(), minlength=_CLASSES) for m in (same, ours, true))
    return both, one, other


def _and_average(counts: Array) -> Array:
    """What the pictures hold, and behind them what the average one does."""
    return np.concatenate([counts, counts.mean(axis=0, keepdims=True)])


def _mean(values: Sequence[Array], draws: int) -> Array:
    """The mean over those of `[classes][draws]` that are numbers, NaN where none is."""
    table = np.array(values, np.float64).reshape(-1, draws)
    known = ~np.isnan(table)
    count = known.sum(axis=0)
    total = np.where(known, table, 0).sum(axis=0)
    found: Array = np.full(draws, np.nan)
    np.divide(total, count, out=found, where=count > 0)
    return found


def _similarity(measure: Callable[[Array], Array], pictures: int) -> Similarity:
    """The measure of all pictures, and its interval.

    `measure` takes weights `[draws, pictures + 1]`, how often a picture is there.
    """
    (value,) = measure(np.array([[1.0] * pictures + [0.0]]))
    if np.isnan(value):
        return _NOTHING
    rng = np.random.default_rng(0)  # equal answers have equal intervals
    ends = []
    for more, quantile in zip((1, 0), _QUANTILES, strict=True):
        drawn = []
        for _ in range(_DRAWS // _TOGETHER):
            count = pictures + more
            weights = np.zeros((_TOGETHER, pictures + 1))
            weights[:, :count] = rng.multinomial(count, [1 / count] * count, _TOGETHER)
            drawn.append(measure(weights))
        known = np.concatenate(drawn)
        ends.append(float(np.quantile(known[~np.isnan(known)], quantile)))
    return Similarity(float(value), min(ends[0], float(value)), max(ends[1], float(value)))
