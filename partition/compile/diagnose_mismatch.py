"""Why segments may differ from the unsplit model, as far as running the model again can tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from splitpoint.codec import Array

from ..relative_error import relative_error

Unsplit = Callable[[Sequence[int]], list[Array]]
"""The unsplit model's outputs for these samples of the example."""


def cause_of_difference(
    unsplit: Unsplit, tolerance: float, samples: Sequence[int]
) -> tuple[str, str]:
    """What is wrong with the model, in words that follow the difference, and the remedy."""
    together, again = unsplit(samples), unsplit(samples)
    if _differ(together, again, tolerance):
        return (
            "and so do two runs of the unsplit model on the same input",
            "take out what is not deterministic at inference: random numbers outside of torch, "
            "counters, the time",
        )
    alone = [unsplit([sample]) for sample in samples]
    # Along which dimension samples lie does not matter here: sorted values are equal or not.
    joined = [np.concatenate([one[i].ravel() for one in alone]) for i in range(len(together))]
    if _differ([np.sort(a.ravel()) for a in together], [np.sort(a) for a in joined], tolerance):
        return (
            "and the unsplit model answers otherwise to a batch than to its samples alone",
            "take out what depends on the batch at inference: its statistics, or an if on its size",
        )
    return (
        "which is the same every time it runs",
        "a branch on a Python value or an attribute that changes is exported as it was then",
    )


def _differ(found: Sequence[Array], expected: Sequence[Array], tolerance: float) -> bool:
    return any(not relative_error(a, b) <= tolerance for a, b in zip(found, expected, strict=True))
