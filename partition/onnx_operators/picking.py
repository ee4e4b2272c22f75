"""Operators that pick values by an index, or put them there."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .node import Node, Operator, axis_of


def _counted(index: Tensor, extent: int) -> Tensor:
    """The index as torch wants it: of 64 bits, and counted from the front."""
    index = index.long()
    return torch.where(index < 0, index + extent, index)


def _gather(node: Node, x: Tensor, index: Any) -> Tensor:
    axis = axis_of(node, x, 0)
    constant = node.constants.get(1)
    if constant is not None and constant.ndim == 0:
        return x.select(axis, int(constant))
    if constant is None:
        index = _counted(index, x.shape[axis])
    else:
        index = torch.from_numpy(constant % x.shape[axis])
    if axis == 0 and x.ndim == 2 and constant is None:
        return F.embedding(index, x)
    picked = x.index_select(axis, index.reshape(-1).long())
    return picked.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


def _gather_elements(node: Node, x: Tensor, index: Tensor) -> Tensor:
    axis = axis_of(node, x, 0)
    return x.gather(axis, _counted(index, x.shape[axis]))


def _gather_nd(node: Node, x: Tensor, index: Tensor) -> Tensor:
    if node.get("batch_dims", 0):
        raise node.cannot("picks along batch dimensions")
    return x[tuple(index.long().unbind(-1))]


def _scatter_elements(node: Node, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    if node.get("reduction", "none") != "none":
        raise node.cannot("adds up what it puts in the same place")
    axis = axis_of(node, x, 0)
    return x.scatter(axis, _counted(index, x.shape[axis]), updates)


def _scatter_nd(node: Node, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    if node.get("reduction", "none") != "none":
        raise node.cannot("adds up what it puts in the same place")
    return x.index_put(tuple(index.long().unbind(-1)), updates)


def _top_k(node: Node, x: Tensor, count: list[int] | None = None) -> Any:
    k = count[0] if isinstance(count, list) else node.get("k") if count is None else count
    largest, ordered = bool(node.get("largest", 1)), bool(node.get("sorted", 1))
    return tuple(torch.topk(x, k, axis_of(node, x, -1), largest, ordered))


def _extreme(function: Any) -> Operator:
    def compute(node: Node, x: Tensor) -> Tensor:
        if node.get("select_last_index", 0):
            raise node.cannot("returns the last of equal places")
        found: Tensor = function(x, axis_of(node, x, 0), bool(node.get("keepdims", 1)))
        return found

    return Operator(compute)


def _one_hot(node: Node, index: Tensor, depth: Any, values: Tensor) -> Tensor:
    count = depth[0] if isinstance(depth, list) else depth
    # Not F.one_hot: what is out of range is "off" everywhere.
    hot = _counted(index, count).unsqueeze(-1) == torch.arange(count)
    axis = node.get("axis", -1)
    chosen = torch.where(hot, values[1], values[0])
    return chosen if axis in (-1, index.ndim) else chosen.movedim(-1, axis)


def _triangle(node: Node, x: Tensor, diagonal: Any = 0) -> Tensor:
    shift = diagonal[0] if isinstance(diagonal, list) else diagonal or 0
    return x.triu(shift) if node.get("upper", 1) else x.tril(shift)


def _running_sum(node: Node, x: Tensor, axis: Any) -> Tensor:
    dim = axis[0] if isinstance(axis, list) else axis
    if node.get("reverse", 0):
        x = x.flip(dim)
    y = x.cumsum(dim)
    y = y - x if node.get("exclusive", 0) else y
    return y.flip(dim) if node.get("reverse", 0) else y


def _grid_sample(node: Node, x: Tensor, grid: Tensor) -> Tensor:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(
        node.get("mode", "bilinear"), node.get("mode", "bilinear")
    )
    edges = node.get("padding_mode", "zeros")
    return F.grid_sample(x, grid, mode, edges, bool(node.get("align_corners", 0)))


PICKING: dict[str, Operator] = {
    "ArgMax": _extreme(torch.argmax),
    "ArgMin": _extreme(torch.argmin),
    "CumSum": Operator(_running_sum, sizes=(1,)),
    "Gather": Operator(_gather),
    "GatherElements": Operator(_gather_elements),
    "GatherND": Operator(_gather_nd),
    "GridSample": Operator(_grid_sample),
    "OneHot": Operator(_one_hot, sizes=(1,)),
    "ScatterElements": Operator(_scatter_elements),
    "ScatterND": Operator(_scatter_nd),
    "TopK": Operator(_top_k, sizes=(1,)),
    "Trilu": Operator(_triangle, sizes=(1,)),
}
