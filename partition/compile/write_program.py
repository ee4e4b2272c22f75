"""A captured part of a model becomes a segment as data, in the form that `run.program` reads."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from ..capture.batch_shape import batch_multiple, fake_value
from ..capture.capture import CapturedModel
from ..errors import CaptureError
from ..run.program import ENUMS


def program_of(
    model: CapturedModel,
    entering: Sequence[Node],
    leaving: Sequence[Node],
    weight_names: Mapping[Node, str],
) -> dict[str, Any]:
    """The operations that compute `leaving` from `entering`.

    Tensors that merely pass through are no part of the program. Raises `CaptureError` for an
    operation that is not from ATen.
    """
    wanted = [node for node in leaving if node not in entering]
    needed: set[Node] = set()
    stack = list(wanted)
    while stack:
        node = stack.pop()
        if node in needed or node in entering or node in weight_names or _is_size(node):
            continue
        if node.op != "call_function":
            raise CaptureError(f"internal error: {node.name!r} is read across a cut that lacks it")
        needed.add(node)
        stack += node.all_input_nodes
    order = [node for node in model.program.graph.nodes if node in needed]
    layers = {node: layer.name for layer in model.layers for node in layer.nodes}
    read = {argument for node in order for argument in node.all_input_nodes}
    return {
        "inputs": [node.name for node in entering if node in read],
        "outputs": [node.name for node in wanted],
        "weights": sorted({weight_names[node] for node in read if node in weight_names}),
        "nodes": [
            {
                "name": node.name,
                "op": _op_text(node),
                "args": [_to_json(argument, weight_names) for argument in node.args],
                "kwargs": {k: _to_json(v, weight_names) for k, v in node.kwargs.items()},
                "layer": layers.get(node),
            }
            for node in order
        ],
    }


def with_turned(program: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """The same program where the weights called `names` are stored transposed."""

    def read(value: Any) -> Any:
        if isinstance(value, list):
            return [read(item) for item in value]
        if isinstance(value, dict) and value.get("w") in names:
            return {"t": f"{value['w']}.t"}  # no other tensor's name has a dot
        return value

    first = [
        {"name": f"{name}.t", "op": "aten.t.default", "args": [{"w": name}], "kwargs": {}}
        for name in program["weights"]
        if name in names
    ]
    rest = [
        node
        | {"args": read(node["args"]), "kwargs": {k: read(v) for k, v in node["kwargs"].items()}}
        for node in program["nodes"]
    ]
    return program | {"nodes": [*first, *rest]}


def _is_size(node: Node) -> bool:
    return isinstance(fake_value(node), (int, torch.SymInt))


def _op_text(node: Node) -> str:
    if node.target is operator.getitem:
        return "getitem"
    target = node.target
    if isinstance(target, torch._ops.OpOverload) and target.namespace == "aten":
        return str(target)
    raise CaptureError(
        f"the operation {target} of {node.name!r} is not supported",
        "replace it by operations of torch itself, or decompose it before compiling",
    )


def _to_json(value: Any, weight_names: Mapping[Node, str]) -> Any:
    if isinstance(value, Node):
        if value in weight_names:
            return {"w": weight_names[value]}
        size = fake_value(value)
        return _size_to_json(size) if _is_size(value) else {"t": value.name}
    if isinstance(value, (list, tuple)):
        return [_to_json(item, weight_names) for item in value]
    if isinstance(value, torch.SymInt):
        return _size_to_json(value)
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    for kind, enum in ENUMS.items():
        if isinstance(value, enum):
            return {kind: str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": "run"}
    raise CaptureError(f"an operation has an argument of type {type(value).__name__}, {value!r}")


def _size_to_json(size: int | torch.SymInt) -> Any:
    factor = batch_multiple(size)
    return int(size) if factor is None else {"batch": factor}
