"""Non-maximum suppression: of boxes that show the same thing, the one that scores best."""

from __future__ import annotations

import numpy as np
from splitpoint.codec import Array

_BLOCK = 128  # boxes that are compared with each other at a time


def iou(one: Array, other: Array) -> Array:
    """Intersection over union of each of `[n, 4]` with each of `[m, 4]`: float64 `[n, m]`.

    0 where neither of the two has an area.
    """
    # An area may be too much for float32; and rows of one coordinate are several times as fast.
    x0, y0, x1, y1 = one.T.astype(np.float64)[:, :, np.newaxis]
    left, top, right, bottom = other.T.astype(np.float64)
    both = np.minimum(x1, right)
    both -= np.maximum(x0, left)
    high = np.minimum(y1, bottom)
    high -= np.maximum(y0, top)
    both = np.maximum(both, 0, out=both)
    both *= np.maximum(high, 0, out=high)
    union = (x1 - x0) * (y1 - y0) + (right - left) * (bottom - top)
    union -= both
    found: Array = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    return found


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
