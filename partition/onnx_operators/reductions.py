"""Operators that make one value of many, and softmax."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .node import Node, Operator, axis_of

Reduce = Callable[[Tensor, list[int], bool], Tensor]


def _over_axes(function: Reduce) -> Operator:
    """With the axes as an attribute or, in newer opsets, as an input."""

    def compute(node: Node, x: Tensor, axes: list[int] | None = None) -> Tensor:
        given = axes or node.get("axes")
        if not given:
            if node.get("noop_with_empty_axes", 0):
                return x
            given = list(range(x.ndim))
        dims = [a % x.ndim for a in given]
        return function(x, dims, bool(node.get("keepdims", 1)))

    return Operator(compute, sizes=(1,))


def _product(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    for dim in sorted(dims, reverse=True):
        x = x.prod(dim, keepdim=keep)
    return x


def _softmax(function: Callable[[Tensor, int], Tensor]) -> Operator:
    """Before opset 13 all dimensions from the axis on are one."""

    def compute(node: Node, x: Tensor) -> Tensor:
        axis = axis_of(node, x, -1 if node.opset >= 13 else 1)
        if node.opset >= 13 or axis == x.ndim - 1:
            return function(x, axis)
        return function(x.flatten(axis), axis).reshape(x.shape)

    return Operator(compute)


REDUCTIONS: dict[str, Operator] = {
    "LogSoftmax": _softmax(lambda x, axis: x.log_softmax(axis)),
    "ReduceL1": _over_axes(lambda x, dims, keep: x.abs().sum(dims, keepdim=keep)),
    "ReduceL2": _over_axes(lambda x, dims, keep: x.square().sum(dims, keepdim=keep).sqrt()),
    "ReduceLogSum": _over_axes(lambda x, dims, keep: x.sum(dims, keepdim=keep).log()),
    "ReduceLogSumExp": _over_axes(lambda x, dims, keep: torch.logsumexp(x, dims, keep)),
    "ReduceMax": _over_axes(lambda x, dims, keep: x.amax(dims, keepdim=keep)),
    "ReduceMean": _over_axes(lambda x, dims, keep: x.mean(dims, keepdim=keep)),
    "ReduceMin": _over_axes(lambda x, dims, keep: x.amin(dims, keepdim=keep)),
    "ReduceProd": _over_axes(_product),
    "ReduceSum": _over_axes(lambda x, dims, keep: x.sum(dims, keepdim=keep)),
    "ReduceSumSquare": _over_axes(lambda x, dims, keep: x.square().sum(dims, keepdim=keep)),
    "Softmax": _softmax(lambda x, axis: x.softmax(axis)),
}
