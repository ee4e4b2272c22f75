"""Padding in ONNX's words: pads before all dimensions, then pads after them; or by a rule."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from .node import Node


def pads_of(
    node: Node, x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Values put before and after each spatial dimension of `x`."""
    spatial = x.ndim - 2
    rule = node.get("auto_pad", "NOTSET")
    if rule in ("NOTSET", ""):
        pads = node.get("pads", [0] * 2 * spatial)
        return list(pads[:spatial]), list(pads[spatial:])
    if rule == "VALID":
        return [0] * spatial, [0] * spatial
    before, after = [], []
    for extent, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True):
        total = max(((extent + s - 1) // s - 1) * s + (k - 1) * d + 1 - extent, 0)
        less, more = total // 2, total - total // 2
        before.append(more if rule == "SAME_LOWER" else less)
        after.append(less if rule == "SAME_LOWER" else more)
    return before, after


def padded(x: Tensor, before: Sequence[int], after: Sequence[int], value: float) -> Tensor:
    """`x` with a constant around its last dimensions; a negative number takes away."""
    flat = [p for pair in zip(reversed(before), reversed(after), strict=True) for p in pair]
    return F.pad(x, flat, value=value) if any(flat) else x
