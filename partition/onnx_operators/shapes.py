"""Operators that change a tensor's shape, or the order of its dimensions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .batch_place import place_in
from .node import Node, Operator, as_tensor, axis_of, simple


def _reshape(node: Node, x: Tensor, shape: list[Any]) -> Tensor:
    zero_is_kept = not node.get("allowzero", 0)
    target = [x.shape[i] if s == 0 and zero_is_kept else s for i, s in enumerate(shape)]
    if node.batch.learning:
        _learn(node, x, target)
    if "grown" in node.learnt:
        target = list(node.learnt["target"])
        grown = node.learnt["grown"]
        target[grown] = node.batch.grown(target[grown])
    return x.reshape(target)


def _learn(node: Node, x: Tensor, target: list[Any]) -> None:
    """Which of a constant shape's extents is the batch, or a multiple of it."""
    if not node.batch.is_tripled:
        node.learnt.update(asked=target, target=list(x.reshape(target).shape), once=x)
        return
    once, asked = node.learnt.pop("once"), node.learnt.pop("asked")
    if asked != target:  # it is computed from the batch
        return
    place = place_in(node.learnt["target"], once, x, node.batch.fixed)
    if place is not None and node.learnt["target"][place] % node.batch.fixed == 0:
        node.learnt["grown"] = place


def _flatten(node: Node, x: Tensor) -> Tensor:
    axis = axis_of(node, x, 1)
    if axis == 1:
        return x.flatten(1) if x.ndim > 1 else x.unsqueeze(1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(node.get("perm") or list(reversed(range(x.ndim))))


def _concat(node: Node, *inputs: Tensor) -> Tensor:
    axis = node.get("axis")
    if axis % inputs[0].ndim != 0:
        fixed = node.batch.fixed
        lengths = [value.shape[0] for value in inputs]
        if node.batch.is_tripled and len({*lengths}) == 2 and fixed == 1:
            node.learnt["single"] = [place for place, n in enumerate(lengths) if n == 1]
        for place in node.learnt.get("single", ()):  # a constant that all samples share
            value = inputs[place]
            shared = value.expand(node.batch.now, *value.shape[1:])
            inputs = (*inputs[:place], shared, *inputs[place + 1 :])
    return torch.cat(inputs, axis)


def _split(node: Node, x: Tensor, lengths: list[int] | None = None) -> Any:
    axis = axis_of(node, x, 0)
    lengths = lengths or node.get("split")
    if lengths is None:
        count = len(node.outputs)
        part = -(-x.shape[axis] // count)
        lengths = [min(part, x.shape[axis] - i * part) for i in range(count)]
    if len(lengths) == 1:
        return (x,)
    return tuple(torch.split(x, lengths, axis))


def _slice(
    node: Node,
    x: Tensor,
    starts: list[int] | None = None,
    ends: list[int] | None = None,
    axes: list[int] | None = None,
    steps: list[int] | None = None,
) -> Tensor:
    starts = node.get("starts") if starts is None else starts
    ends = node.get("ends") if ends is None else ends
    axes = axes or node.get("axes") or list(range(len(starts)))
    for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(axes), strict=True):
        if step < 0:
            x, start, end, step = _backwards(x, axis, start, end, step)
        index: list[Any] = [slice(None)] * x.ndim
        index[axis] = slice(start, end, step)
        x = x[tuple(index)]
    return x


def _backwards(x: Tensor, axis: int, start: int, end: int, step: int) -> Any:
    """The same slice of the mirrored tensor, with a step forwards."""
    extent = x.shape[axis]
    first, last, _ = slice(start, end, step).indices(extent)
    return x.flip(axis), extent - 1 - first, extent - 1 - last, -step


def _squeeze(node: Node, x: Tensor, axes: list[int] | None = None) -> Tensor:
    axes = axes or node.get("axes")
    if axes is not None:
        return x.squeeze([a % x.ndim for a in axes])
    if node.batch.learning:  # the last look is at three times the batch, which is not squeezed
        node.learnt["axes"] = [d for d, extent in enumerate(x.shape) if extent == 1]
    return x.squeeze(node.learnt.get("axes", [d for d, e in enumerate(x.shape) if e == 1]))


def _unsqueeze(node: Node, x: Tensor, axes: list[int] | None = None) -> Tensor:
    axes = axes or node.get("axes")
    ndim = x.ndim + len(axes)
    for axis in sorted(a % ndim for a in axes):
        x = x.unsqueeze(axis)
    return x


def _expand(node: Node, x: Tensor, shape: list[Any]) -> Tensor:
    ndim = max(x.ndim, len(shape))
    own = [1] * (ndim - x.ndim) + list(x.shape)
    asked = [1] * (ndim - len(shape)) + shape
    pairs = zip(own, asked, strict=True)
    return x.expand([a if isinstance(b, int) and b == 1 else b for a, b in pairs])


def _tile(node: Node, x: Tensor, repeats: list[int]) -> Tensor:
    return x.repeat(repeats)


def _shape(node: Node, x: Any) -> list[Any]:
    shape = list(as_tensor(x).shape)
    return shape[node.get("start", 0) : node.get("end", len(shape))]


def _filled(node: Node, shape: list[Any]) -> Tensor:
    value = node.get("value")
    filler = torch.zeros(1) if value is None else torch.from_numpy(value.copy())
    return filler.reshape(()).expand(shape).clone()


def _range(node: Node, start: Any, limit: Any, step: Any) -> Tensor:
    first, last, by = (v[0] if isinstance(v, list) else v for v in (start, limit, step))
    return torch.arange(first, last, by)


_PAD_MODES = {"constant": "constant", "edge": "replicate", "reflect": "reflect", "wrap": "circular"}


def _pad(
    node: Node, x: Tensor, pads: list[int] | None = None, value: Any = None, axes: Any = None
) -> Tensor:
    pads = node.get("pads") if pads is None else pads
    if value is None:
        filler = node.get("value", 0.0)
    elif 2 in node.constants:
        filler = node.number(2, 0.0)
    else:
        raise node.cannot("pads with a value that it computes")
    mode = _PAD_MODES[node.get("mode", "constant")]
    axes = [a % x.ndim for a in axes or range(x.ndim)]
    half = len(axes)
    around = {a: (pads[i], pads[half + i]) for i, a in enumerate(axes) if pads[i] or pads[half + i]}
    if not around:
        return x
    first = min(around)
    if mode != "constant" and first >= 2:  # then torch wants all dimensions but two
        first = 2
    flat = [p for a in range(x.ndim - 1, first - 1, -1) for p in around.get(a, (0, 0))]
    if mode == "constant":
        return torch.nn.functional.pad(x, flat, value=filler)
    return torch.nn.functional.pad(x, flat, mode=mode)


SHAPES: dict[str, Operator] = {
    "Concat": Operator(_concat),
    "ConstantOfShape": Operator(_filled, sizes=(0,)),
    "Expand": Operator(_expand, sizes=(1,)),
    "Flatten": Operator(_flatten),
    "Pad": Operator(_pad, sizes=(1, 3)),
    "Range": Operator(_range, sizes=(0, 1, 2)),
    "Reshape": Operator(_reshape, sizes=(1,)),
    "Shape": Operator(_shape),
    "Size": simple(lambda x: x.numel()),
    "Slice": Operator(_slice, sizes=(1, 2, 3, 4)),
    "Split": Operator(_split, sizes=(1,)),
    "Squeeze": Operator(_squeeze, sizes=(1,)),
    "Tile": Operator(_tile, sizes=(1,)),
    "Transpose": Operator(_transpose),
    "Unsqueeze": Operator(_unsqueeze, sizes=(1,)),
}
