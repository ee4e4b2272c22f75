"""Boxes that a model found: as they travel in an answer, and as a program reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from splitpoint.codec import Array, TensorSpec

MAX_CLASS = 1 << 24  # up to here float32 holds every whole number


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Boxes of one picture.

    `boxes` float `[n, 4]`: x0, y0, x1, y1 in pixels of the model's input; they may reach beyond it.
    `scores` float `[n]` from 0 to 1, `classes` int64 `[n]`.
    """

    boxes: Array
    scores: Array
    classes: Array

    def __len__(self) -> int:
        return len(self.scores)

    def of_score(self, min_score: float) -> Detections:
        """Those that score at least so much."""
        kept = self.scores >= min_score
        return Detections(self.boxes[kept], self.scores[kept], self.classes[kept])


def detections_spec(max_detections: int) -> TensorSpec:
    """The tensor that answers a detector.

    A row is x0, y0, x1, y1, score, class; the best come first, behind the last are rows of zeros.
    """
    shape = (1, max_detections, 6)
    return TensorSpec(name="detections", dtype="float32", shape=shape, batch_dim=0)


def detections_of(answer: Array) -> Detections:
    """What `[max_detections, 6]` holds, without the rows of zeros.

    Rows that no head writes (NaN, infinity, impossible scores or classes) are left out: the answer
    may come from anywhere.
    """
    score, number = answer[:, 4], answer[:, 5]
    kept = np.isfinite(answer).all(axis=1) & (score > 0) & (number >= 0) & (number < MAX_CLASS)
    rows = answer[kept]
    return Detections(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64))
