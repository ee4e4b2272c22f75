"""Operators on Python numbers: sizes, and what graphs make of them before they reshape by it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from splitpoint.codec import Array

from .node import Compute, Node

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
_WHOLE = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)


def _each(function: Callable[..., Any]) -> Compute:
    """Number by number, with numpy's broadcasting of lists, and of lists of lists."""

    def compute(node: Node, *inputs: Any) -> Any:
        arrays = [np.array(value, dtype=object) for value in inputs]
        found = np.frompyfunc(function, len(arrays), 1)(*arrays)
        return found.tolist() if isinstance(found, np.ndarray) else found

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


def _structure(function: Callable[..., Array]) -> Compute:
    """What moves numbers about, on numpy's arrays of objects, which hold symbols as well."""

    def compute(node: Node, value: Any, *others: Any) -> Any:
        found = function(node, np.array(value, dtype=object), *others)
        return found.tolist() if isinstance(found, np.ndarray) else found

    return compute


def _slice(
    node: Node, x: Array, start: Any = None, end: Any = None, axes: Any = None, step: Any = None
) -> Array:
    first, last = (node.get(n) if g is None else g for n, g in (("starts", start), ("ends", end)))
    axes = axes or node.get("axes") or range(len(first))
    for axis, a, b, by in zip(axes, first, last, step or [1] * len(first), strict=True):
        index = [slice(None)] * x.ndim
        index[axis] = slice(a, b, by)
        x = x[tuple(index)]
    return x


def _squeezed(node: Node, x: Array, axes: Any = None) -> Array:
    return np.squeeze(x, tuple(axes or node.get("axes", ())) or None)


def _unsqueezed(node: Node, x: Array, axes: Any = None) -> Array:
    return np.expand_dims(x, tuple(axes or node.get("axes")))


def _concat(node: Node, *inputs: Any) -> Any:
    arrays = [np.array(value, dtype=object) for value in inputs]
    return np.concatenate(arrays, node.get("axis")).tolist()


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


def _product(node: Node, values: Any, axes: Any = None) -> Any:
    found = math.prod(values)
    return [found] if node.get("keepdims", 1) else found


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
    "Gather": _structure(lambda node, x, i: np.take(x, i, node.get("axis", 0))),
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
    "Reshape": _structure(lambda node, x, shape: x.reshape(shape)),
    "Slice": _structure(_slice),
    "Sqrt": _each(math.sqrt),
    "Squeeze": _structure(_squeezed),
    "Sub": _each(lambda a, b: a - b),
    "Transpose": _structure(lambda node, x: x.transpose(node.get("perm"))),
    "Unsqueeze": _structure(_unsqueezed),
    "Where": _each(lambda condition, a, b: a if condition else b),
}
