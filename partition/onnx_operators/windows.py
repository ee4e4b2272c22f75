"""Pooling, and what moves values between space and channels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .node import Node, Operator
from .padding import padded, pads_of

_MAX = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_AVERAGE = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


def _max_pool(node: Node, x: Tensor) -> Tensor:
    spatial, kernel = x.ndim - 2, node.get("kernel_shape")
    stride = node.get("strides", [1] * spatial)
    dilation = node.get("dilations", [1] * spatial)
    before, after = pads_of(node, x, kernel, stride, dilation)
    up = bool(node.get("ceil_mode", 0))
    pool = _MAX[spatial - 1]
    if before == after and all(2 * p <= k for p, k in zip(before, kernel, strict=True)):
        result: Tensor = pool(x, kernel, stride, before, dilation, up)
        return result
    y = pool(padded(x, before, after, -math.inf), kernel, stride, 0, dilation, up)
    return _begun_inside(y, x, before, stride)


def _begun_inside(y: Tensor, x: Tensor, before: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Without the windows that lie in the padding behind `x` alone, which `ceil_mode` adds."""
    for axis, (pad, step) in enumerate(zip(before, stride, strict=True), start=2):
        y = y.narrow(axis, 0, min(y.shape[axis], -(-(x.shape[axis] + pad) // step)))
    return y


def _average_pool(node: Node, x: Tensor) -> Tensor:
    spatial, kernel = x.ndim - 2, node.get("kernel_shape")
    stride = node.get("strides", [1] * spatial)
    dilation = node.get("dilations", [1] * spatial)
    if any(d != 1 for d in dilation):
        raise node.cannot("averages with a dilation")
    before, after = pads_of(node, x, kernel, stride, dilation)
    up, all_count = bool(node.get("ceil_mode", 0)), bool(node.get("count_include_pad", 0))
    pool = _AVERAGE[spatial - 1]
    if before == after:
        return pool(x, kernel, stride, before, up, all_count)
    y = pool(padded(x, before, after, 0.0), kernel, stride, 0, up)
    if not all_count:
        ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype)
        y = y / pool(padded(ones, before, after, 0.0), kernel, stride, 0, up)
    return _begun_inside(y, x, before, stride)


def _spatial(x: Tensor) -> Sequence[int]:
    return range(2, x.ndim)


def _global_average(node: Node, x: Tensor) -> Tensor:
    return x.mean(list(_spatial(x)), keepdim=True)


def _global_max(node: Node, x: Tensor) -> Tensor:
    return x.amax(list(_spatial(x)), keepdim=True)


def _depth_to_space(node: Node, x: Tensor) -> Tensor:
    r = node.get("blocksize")
    if node.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, r)
    n, c, h, w = x.shape
    y = x.reshape(n, r, r, c // (r * r), h, w).permute(0, 3, 4, 1, 5, 2)
    return y.reshape(n, c // (r * r), h * r, w * r)


def _space_to_depth(node: Node, x: Tensor) -> Tensor:
    r = node.get("blocksize")
    n, c, h, w = x.shape
    y = x.reshape(n, c, h // r, r, w // r, r).permute(0, 3, 5, 1, 2, 4)
    return y.reshape(n, c * r * r, h // r, w // r)


WINDOWS: dict[str, Operator] = {
    "AveragePool": Operator(_average_pool),
    "DepthToSpace": Operator(_depth_to_space),
    "GlobalAveragePool": Operator(_global_average),
    "GlobalMaxPool": Operator(_global_max),
    "MaxPool": Operator(_max_pool),
    "SpaceToDepth": Operator(_space_to_depth),
}
