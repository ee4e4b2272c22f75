"""Non-maximum suppression: of boxes that show the same thing, the one that scores best."""

from __future__ import annotations

import numpy as np
from splitpoint.codec import Array

_BLOCK = 256  # boxes that are compared with each other at a time


def iou(one: Array, other: Array) -> Array:
    """Intersection over union of each of `[n, 4]` with each of `[m, 4]`: float64 `[n, m]`.

    0 where neither of the two has an area.
    """
    one, other = one.astype(np.float64), other.astype(np.float64)  # an area may be too much for 32
    upper_left = np.maximum(one[:, np.newaxis, :2], other[:, :2])
    lower_right = np.minimum(one[:, np.newaxis, 2:], other[:, 2:])
    sides = np.maximum(lower_right - upper_left, 0)
    both = sides[..., 0] * sides[..., 1]
    union = _areas(one)[:, np.newaxis] + _areas(other) - both
    found: Array = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    return found


def _areas(boxes: Array) -> Array:
    areas: Array = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas


def best_apart(boxes: Array, classes: Array, max_iou: float, most: int) -> Array:
    """Indices of the boxes that stay, in order, at most so many.

    `boxes` `[n, 4]` come best first. One stays unless it has an IoU of more than `max_iou` with a
    better one of its class that stays. Nothing depends on the machine: equal boxes give equal
    answers.
    """
    if max_iou >= 1:
        return np.arange(min(len(boxes), most))
    kept = np.empty(0, np.intp)
    # In blocks, because all pairs of thousands of boxes are too many, and most are never asked for.
    for first in range(0, len(boxes), _BLOCK):
        block = np.arange(first, min(first + _BLOCK, len(boxes)))

        def clash(one: Array, other: Array) -> Array:
            same = classes[one][:, np.newaxis] == classes[other]
            found: Array = (iou(boxes[one], boxes[other]) > max_iou) & same
            return found

        block = block[~clash(block, kept).any(axis=1)]
        clashes = clash(block, block)
        stays = np.ones(len(block), bool)
        for number in range(len(block)):
            if stays[number]:
                stays[number + 1 :] &= ~clashes[number, number + 1 :]
        kept = np.concatenate([kept, block[stays]])
        if len(kept) >= most:
            break
    return kept[:most]
