"""What a frame's outputs mean, by the task of its model: classes, things in the photo, areas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from splitpoint.codec import Array
from splitpoint.partition.tasks.detections import detections_of
from splitpoint.partition.view import View

from .result import Result

TOP = 5
MIN_SCORE = 0.25  # of what is shown; ultralytics and others take the same


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """One class of a classifier, with its softmax score."""

    label: str
    index: int
    score: float

    def to_json(self) -> dict[str, Any]:
        """As `run --json` writes it."""
        return {"label": self.label, "index": self.index, "score": round(self.score, 6)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """Something that a detector found; `box` is x0, y0, x1, y1 in pixels of the photo.

    Where an input was no photo, they are pixels of the input.
    """

    label: str
    index: int
    score: float
    box: tuple[float, float, float, float]

    def to_json(self) -> dict[str, Any]:
        """As `run --json` writes it."""
        return {
            "label": self.label,
            "index": self.index,
            "score": round(self.score, 4),
            "box": [round(side, 1) for side in self.box],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """One class of a segmenter, and its share of what the input shows of the photo."""

    label: str
    index: int
    share: float

    def to_json(self) -> dict[str, Any]:
        """As `run --json` writes it."""
        return {"label": self.label, "index": self.index, "share": round(self.share, 5)}


def classes_in(result: Result, count: int = TOP) -> list[ClassScore]:
    """The first classes of a classifier's answer.

    None where NaN or infinity among the outputs leaves no scores; `-inf` is a class that cannot be.
    """
    if not result.outputs:
        return []
    logits = next(iter(result.outputs.values()))[0].astype(np.float64)
    finite = np.isfinite(logits)
    if not (finite | np.isneginf(logits)).all() or not finite.any():
        return []
    scores = np.exp(logits - logits.max())
    scores /= scores.sum()
    return [
        ClassScore(label=class_label(int(i), result.labels), index=int(i), score=float(scores[i]))
        for i in np.argsort(-scores, kind="stable")[:count]
    ]


def things_in(result: Result, view: View | None, min_score: float = MIN_SCORE) -> list[Thing]:
    """What a detector found, best first; `view` is what its input shows of the photo."""
    if not result.outputs:
        return []
    found = detections_of(next(iter(result.outputs.values()))[0])
    boxes = found.boxes if view is None else view.boxes_in_photo(found.boxes)
    return [
        Thing(
            label=class_label(int(index), result.labels),
            index=int(index),
            score=float(score),
            box=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
        )
        for box, score, index in zip(boxes, found.scores, found.classes, strict=True)
        if score >= min_score
    ]


def areas_in(result: Result, view: View | None) -> list[Area]:
    """The classes of a segmenter's answer, the largest first."""
    if not result.outputs:
        return []
    shown = next(iter(result.outputs.values()))[0]
    if view is not None:
        shown = view.part_with_photo(shown)
    counts = np.bincount(shown.reshape(-1))
    return [
        Area(
            label=class_label(int(i), result.labels),
            index=int(i),
            share=float(counts[i] / shown.size),
        )
        for i in np.argsort(-counts, kind="stable")
        if counts[i]
    ]


def class_map(result: Result, view: View | None) -> Array:
    """A segmenter's answer `[height, width]`, at the size of the photo if there is one.

    Where the input did not show the photo, it is `UNSEEN`.
    """
    found: Array = next(iter(result.outputs.values()))[0]
    return found if view is None else view.map_in_photo(found)


def class_label(index: int, labels: Sequence[str]) -> str:
    """A class's name; its number where it has none."""
    return labels[index] if index < len(labels) else str(index)
