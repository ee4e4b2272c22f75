"""From logits to probabilities, float64."""

from __future__ import annotations

import numpy as np
from splitpoint.codec import Array


def logistic(logits: Array) -> Array:
    """Of each for itself."""
    found: Array = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return found


def softmax(logits: Array) -> Array:
    """Over each row of `[n, classes]`."""
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    found: Array = powers / powers.sum(axis=1, keepdims=True)
    return found
