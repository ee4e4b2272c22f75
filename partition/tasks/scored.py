"""Which rows of scores are good enough, and for which class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from splitpoint.codec import Array

from .detections import Detections


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Row `rows[i]` is of class `classes[i]` with `scores[i]`."""

    rows: Array
    scores: Array
    classes: Array

    def at(self, boxes: Array) -> Detections:
        """With their boxes, of which there is one for each of `rows`."""
        return Detections(boxes, self.scores, self.classes)


def best_class(scores: Array, min_score: float) -> Scored:
    """Each row of `[n, classes]` for the class in which it is best, the first of equal ones.

    A row that holds NaN is for none.
    """
    best = scores.max(axis=1)
    rows = np.flatnonzero(_enough(best, min_score))
    return Scored(rows, best[rows], scores[rows].argmax(axis=1))


def every_class(scores: Array, min_score: float) -> Scored:
    """Each row of `[n, classes]` for every class in which it is good enough."""
    rows, classes = np.nonzero(_enough(scores, min_score))
    return Scored(rows, scores[rows, classes], classes)


def _enough(scores: Array, min_score: float) -> Array:
    """Where there is a score, which neither NaN nor infinity is; 0 marks rows without detection."""
    found: Array = (scores >= min_score) & (scores > 0) & (scores < np.inf)
    return found
