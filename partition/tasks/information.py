"""How much errors in a detector's outputs cost, for each value of them.

A candidate's score is the probability that it is there: an error e of a probability p costs about
e^2 / (2 p (1 - p)) nats, and one of its logit p (1 - p) e^2 / 2. A box counts as found again where
it covers the true one well enough, which an error of `TOLERANCE` of its side costs; and it counts
as much as it is there. What scores less than an answer holds costs nothing, whatever becomes of
it.

Each function gives the square root of that information for each value of its outputs, which are
those of the decoder that it is named after, of one sample, with the least score of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from splitpoint.codec import Array

from .shares import logistic, softmax

Information = Callable[[Sequence[Array], float], Sequence[Array]]

TOLERANCE = 0.15  # of a side: boxes that are off by so much have an IoU of about 0.7
_LEAST = 1e-6  # of a probability and of what it lacks to 1
_LEAST_SIDE = 1e-3  # of a box


def yolo_costs(outputs: Sequence[Array], min_score: float) -> Sequence[Array]:
    """`[4 + C, N]`."""
    (output,) = outputs
    return [_columns(output.T, 4, output[4:].T, min_score).T]


def yolo_corners_costs(outputs: Sequence[Array], min_score: float) -> Sequence[Array]:
    """`[4 + C, N]`, with corners."""
    (output,) = outputs
    of_boxes, of_scores = decoded_costs([output[:4].T, output[4:].T], min_score)
    return [np.concatenate([of_boxes, of_scores], 1).T]


def yolov5_costs(outputs: Sequence[Array], min_score: float) -> Sequence[Array]:
    """`[N, 5 + C]`: of the product, each factor's error counts as its own."""
    (output,) = outputs
    return [_columns(output, 4, output[:, 5:] * output[:, 4:5], min_score)]


def boxes_of_six_costs(outputs: Sequence[Array], min_score: float) -> Sequence[Array]:
    """`[N, 6]`: corners, score, class. A class is a choice, which has no small errors."""
    (output,) = outputs
    score = output[:, 4:5]
    worth = _worth(score, min_score)
    return [np.concatenate([_corners(output, worth), worth * _of(score), 0 * score], 1)]


def detr_costs(outputs: Sequence[Array], min_score: float) -> Sequence[Array]:
    """Logits `[N, C + 1]` and centres and sizes `[N, 4]`."""
    logits, boxes = outputs
    shares = softmax(logits)
    worth = _worth(shares[:, :-1], min_score)
    return [(worth > 0) / _of(shares), _sized(boxes, worth)]


def rtdetr_costs(outputs: Sequence[Array], min_score: float) -> Sequence[Array]:
    """Logits `[N, C]` and centres and sizes `[N, 4]`."""
    logits, boxes = outputs
    shares = logistic(logits)
    worth = _worth(shares, min_score)
    return [(worth > 0) / _of(shares), _sized(boxes, worth)]


def rtdetr_joined_costs(outputs: Sequence[Array], min_score: float) -> Sequence[Array]:
    """`[N, 4 + C]`."""
    (output,) = outputs
    return [_columns(output, 4, output[:, 4:], min_score)]


def decoded_costs(outputs: Sequence[Array], min_score: float) -> Sequence[Array]:
    """Corners `[N, 4]` and scores `[N, C]`."""
    boxes, scores = outputs
    worth = _worth(scores, min_score)
    return [_corners(boxes, worth), (worth > 0) * _of(scores)]


def decoded_background_costs(outputs: Sequence[Array], min_score: float) -> Sequence[Array]:
    """The same, with the background first, whose score decides nothing."""
    boxes, scores = outputs
    of_boxes, of_scores = decoded_costs([boxes, scores[:, 1:]], min_score)
    return [of_boxes, np.concatenate([0 * scores[:, :1], of_scores], 1)]


def centerface_costs(outputs: Sequence[Array], min_score: float) -> Sequence[Array]:
    """Heat, the logarithms of sizes in cells, offsets in cells, and landmarks, which are unused."""
    heat, scale, _, landmarks = outputs
    there = heat >= min_score
    worth = there * np.sqrt(np.maximum(heat, 0))
    sides = np.exp(np.clip(scale, np.log(_LEAST_SIDE), 20))
    return [
        there * _of(heat),
        # A side's logarithm is off by twice the tolerance where each of its ends is by one.
        np.broadcast_to(worth / (2 * TOLERANCE), scale.shape),
        worth / (TOLERANCE * sides),
        np.zeros_like(landmarks),
    ]


def _columns(rows: Array, first: int, scores: Array, min_score: float) -> Array:
    """Of rows that begin with centre and size, and have probabilities from `first` on."""
    worth = _worth(scores, min_score)
    return np.concatenate([_sized(rows[:, :4], worth), (worth > 0) * _of(rows[:, first:])], 1)


def _worth(scores: Array, min_score: float) -> Array:
    """How much each of `[N, C]` is there, `[N, 1]`: a root, as everything here."""
    best = scores.max(axis=1, keepdims=True)
    found: Array = np.sqrt(np.where(best >= min_score, best, 0))
    return found


def _of(probabilities: Array) -> Array:
    found: Array = np.clip(probabilities, _LEAST, 1 - _LEAST)
    costs: Array = 1 / np.sqrt(found * (1 - found))
    return costs


def _sized(boxes: Array, worth: Array) -> Array:
    """Of centres and sizes `[N, 4]`."""
    sides = np.tile(boxes[:, 2:4], 2)
    costs: Array = worth / (TOLERANCE * np.maximum(sides, _LEAST_SIDE))
    return costs


def _corners(boxes: Array, worth: Array) -> Array:
    """Of x0, y0, x1, y1 `[N, 4]`."""
    sides = np.tile(boxes[:, 2:4] - boxes[:, :2], 2)
    costs: Array = worth / (TOLERANCE * np.maximum(sides, _LEAST_SIDE))
    return costs
