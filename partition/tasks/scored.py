"""Which rows of scores are good enough, and for which class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from splitpoint.codec import Array

from .detections import Detections

# Of more boxes than this the worst are not looked at: time must have a bound, whatever arrives.
MOST_CANDIDATES = 8192

_SMALLEST = float(np.finfo(np.float32).tiny)


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
    rows = _good(best, min_score)
    return Scored(rows, best[rows], scores[rows].argmax(axis=1))


def every_class(scores: Array, min_score: float) -> Scored:
    """Each row of `[n, classes]` for every class in which it is good enough."""
    flat = scores.ravel()
    places = _good(flat, min_score)
    rows, classes = np.divmod(places, scores.shape[1])
    return Scored(rows, flat[places], classes)


def _good(scores: Array, min_score: float) -> Array:
    """Where there is a score: not NaN, not infinity, and not 0, which ends an answer."""
    places = np.flatnonzero(scores >= max(min_score, _SMALLEST))
    found: Array = places[scores[places] < np.inf]
    return found if len(found) <= MOST_CANDIDATES else found[_best(scores[found])]


def _best(scores: Array) -> Array:
    """Where the `MOST_CANDIDATES` best are, in order; of equal ones the first."""
    least = np.partition(scores, -MOST_CANDIDATES)[-MOST_CANDIDATES]
    better = np.flatnonzero(scores > least)
    equal = np.flatnonzero(scores == least)[: MOST_CANDIDATES - len(better)]
    return np.sort(np.concatenate([better, equal]))
