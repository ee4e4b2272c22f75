"""Where the batch goes when a constant shape is put on a tensor that was written for one batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_SAME = 1e-3  # of the largest magnitude; other samples differ by far more


def place_in(after: Sequence[int], once: Tensor, thrice: Tensor, fixed: int) -> int | None:
    """The dimension of the shape `after` that has to grow with the batch; None if none has to.

    `once` is the tensor before it for `fixed` samples, `thrice` for these, others, and these again.
    A reshape keeps the order in memory, so that the batch comes after as many values as before.
    """
    found = _around_the_batch(once, thrice, fixed)
    if found is None:
        return None
    outer, inner = found
    before = 1
    for place, extent in enumerate(after):
        if before == outer:
            return place
        if outer % before or extent % (outer // before):
            return None
        if before * extent == outer:
            following = list(after[place + 1 :])
            # Heads that are split take the batch along; where they are joined, it joins the rows.
            joined = len(following) <= len(inner) and following[:1] != [fixed]
            return place if joined or not following else place + 1
        if outer < before * extent:
            return place
        before *= extent
    return None


def _around_the_batch(once: Tensor, thrice: Tensor, fixed: int) -> tuple[int, list[int]] | None:
    """How many values come before the batch's index, and the extents after it; None for no batch.

    One dimension may hold both: that of 12 heads for each sample is one of 12 x batch.
    """
    changed = [d for d, n in enumerate(once.shape) if thrice.shape[d] != n]
    if once.ndim != thrice.ndim or len(changed) != 1:
        return None
    (place,) = changed
    extent = once.shape[place]
    once, thrice = once.double().nan_to_num(), thrice.double().nan_to_num()  # masks hold infinity
    finite = once[once.abs() < torch.finfo(torch.float32).max]
    limit = _SAME * float(finite.abs().max()) if finite.numel() else 0.0
    errors: dict[int, float] = {}
    for outer in (n for n in range(1, extent + 1) if extent % n == 0):
        split = thrice.reshape(*once.shape[:place], outer, 3, -1, *once.shape[place + 1 :])
        first = split.select(place + 1, 0).reshape(once.shape)
        errors[outer] = float((first - once).abs().max()) if once.numel() else 0.0
    outer = min(errors, key=errors.__getitem__)  # rows of one sample may be alike
    if errors[outer] > limit:
        return None
    rest = extent // outer // fixed
    inner = [rest] * (rest > 1) + list(once.shape[place + 1 :])
    return math.prod(once.shape[:place]) * outer, inner
