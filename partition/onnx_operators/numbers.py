"""Operators on Python numbers: sizes, and what graphs make of them before they reshape by it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnx

from .node import Compute, Node

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
_WHOLE = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)


def _each(function: Callable[..., Any]) -> Compute:
    """Number by number; a single one is used for all of a list."""

    def compute(node: Node, *inputs: Any) -> Any:
        lengths = {len(value) for value in inputs if isinstance(value, list)}
        if not lengths:
            return function(*inputs)
        length = max(lengths)
        if not lengths <= {1, length}:
            raise node.cannot(f"combines lists of {sorted(lengths)} sizes")
        rows = [
            value * (length // len(value)) if isinstance(value, list) else [value] * length
            for value in inputs
        ]
        return [function(*row) for row in zip(*rows, strict=True)]

    return compute


def _divided(a: Any, b: Any) -> Any:
    if isinstance(a, float) or isinstance(b, float):
        return a / b
    return a // b  # of sizes, which are not negative


def _cast(node: Node, value: Any) -> Any:
    to = node.get("to")
    if to in _WHOLE:
        return _each(lambda v: int(v) if isinstance(v, (float, bool)) else v)(node, value)
    if to in _FLOATS:
        return _each(float)(node, value)
    if to == onnx.TensorProto.BOOL:
        return _each(bool)(node, value)
    raise node.cannot("makes a size of an odd type")


def _gather(node: Node, values: Any, index: Any) -> Any:
    return [values[i] for i in index] if isinstance(index, list) else values[index]


def _concat(node: Node, *inputs: Any) -> Any:
    return [value for given in inputs for value in given]


def _slice(
    node: Node, values: Any, start: Any = None, end: Any = None, axes: Any = None, step: Any = None
) -> Any:
    first, last = (node.get(n) if g is None else g for n, g in (("starts", start), ("ends", end)))
    return values[slice(first[0], last[0], 1 if step is None else step[0])]


def _filled(node: Node, shape: Any) -> Any:
    value = node.get("value")
    (number,) = [0.0] if value is None else value.reshape(-1).tolist()
    if len(shape) != 1 or not isinstance(shape[0], int) or shape[0] > 64:
        return NotImplemented
    return [number] * shape[0]


def _range(node: Node, start: Any, limit: Any, step: Any) -> Any:
    if not all(isinstance(value, int) for value in (start, limit, step)):
        return NotImplemented
    found = range(start, limit, step)
    return list(found) if len(found) <= 64 else NotImplemented


def _reshape(node: Node, values: Any, shape: Any) -> Any:
    if shape in ([-1], [1]):
        return values if isinstance(values, list) else [values]
    return values[0] if not shape and isinstance(values, list) else NotImplemented


def _product(node: Node, values: Any, axes: Any = None) -> Any:
    found = math.prod(values)
    return [found] if node.get("keepdims", 1) else found


def _squeezed(node: Node, values: Any, axes: Any = None) -> Any:
    return values[0] if isinstance(values, list) else values


def _unsqueezed(node: Node, value: Any, axes: Any = None) -> Any:
    return NotImplemented if isinstance(value, list) else [value]


# NotImplemented: the operator on tensors is to do it.
NUMBERS: dict[str, Compute] = {
    "Add": _each(lambda a, b: a + b),
    "Cast": _cast,
    "Ceil": _each(lambda a: float(math.ceil(a))),
    "Concat": _concat,
    "ConstantOfShape": _filled,
    "Div": _each(_divided),
    "Equal": _each(lambda a, b: bool(a == b)),
    "Floor": _each(lambda a: float(math.floor(a))),
    "Gather": _gather,
    "Greater": _each(lambda a, b: bool(a > b)),
    "Identity": lambda node, value: value,
    "Less": _each(lambda a, b: bool(a < b)),
    "Max": _each(max),
    "Min": _each(min),
    "Mod": _each(lambda a, b: a % b),
    "Mul": _each(lambda a, b: a * b),
    "Neg": _each(lambda a: -a),
    "Not": _each(lambda a: not a),
    "Pow": _each(lambda a, b: a**b),
    "Range": _range,
    "ReduceProd": _product,
    "Reshape": _reshape,
    "Slice": _slice,
    "Sqrt": _each(math.sqrt),
    "Squeeze": _squeezed,
    "Sub": _each(lambda a, b: a - b),
    "Unsqueeze": _unsqueezed,
    "Where": _each(lambda condition, a, b: a if condition else b),
}
