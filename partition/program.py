"""A segment as data: a list of ATen operations in JSON, its weights in safetensors beside it.

This is the cloud's form of a segment. It holds no code and is never unpickled. `program_of` takes
it from a captured graph, `load_program` makes a torch module of it again.

A tensor argument is written `{"t": NAME}`, a weight `{"w": NAME}`, and a size that is k times the
batch `{"batch": k}`: each segment recomputes the batch size from the first tensor that enters it,
so that no size has to travel across a cut (ViT and Swin need theirs in every block).
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from splitpoint.codec import TensorSpec
from torch.fx import Graph, GraphModule, Node

from .batch_shape import batch_multiple, fake_value
from .capture import CapturedModel
from .errors import BundleError, CaptureError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Operations on files have no place in a model.
_FORBIDDEN = {"from_file", "save", "load"}
_ENUMS = {
    "dtype": torch.dtype,
    "memory_format": torch.memory_format,
    "layout": torch.layout,
}


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


def load_program(
    program: Mapping[str, Any],
    specs: Sequence[TensorSpec],
    weights: Mapping[str, torch.Tensor],
    device: torch.device,
) -> GraphModule:
    """A module that takes the program's inputs in order and returns a tuple of its outputs.

    `specs` describe the boundary that enters; `weights` must already be on `device`. Raises
    `BundleError` for a program that names an unknown operation, tensor or weight.
    """
    root = torch.nn.Module()
    graph = Graph()
    values: dict[str, Node] = {}
    try:
        for name in program["inputs"]:
            values[name] = graph.placeholder(_identifier(name))
        attributes: dict[str, Node] = {}
        for index, name in enumerate(program["weights"]):
            root.register_buffer(f"weight_{index}", weights[name])
            attributes[name] = graph.get_attr(f"weight_{index}")
        sizes = _BatchSizes(graph, values, specs)
        for record in program["nodes"]:
            function = _function(record["op"])
            decode = _Decoder(values, attributes, sizes, device)
            args = tuple(decode(argument) for argument in record["args"])
            _check_keywords(function, record["kwargs"])
            kwargs = {key: decode(value) for key, value in record["kwargs"].items()}
            made = graph.call_function(function, args, kwargs)
            made.meta["layer"] = record.get("layer")  # whose time a stopwatch adds it to
            values[record["name"]] = made
        graph.output(tuple(values[name] for name in program["outputs"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"a segment's program is malformed ({type(error).__name__}: {error})",
            "compile the bundle again",
        ) from error
    return GraphModule(root, graph)


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


def _function(op: str) -> Any:
    if op == "getitem":
        return operator.getitem
    namespace, name, overload = op.split(".") if op.count(".") == 2 else ("", "", "")
    if namespace == "aten" and name not in _FORBIDDEN and _NAME.fullmatch(name):
        packet = getattr(torch.ops.aten, name)
        function = getattr(packet, overload)
        if isinstance(function, torch._ops.OpOverload) and not function._schema.is_mutable:
            return function
    raise BundleError(f"a segment uses the unknown operation {op[:60]!r}", "update splitpoint")


def _check_keywords(function: Any, kwargs: Mapping[str, Any]) -> None:
    """fx writes keywords into Python source as they are: only the operation's own may pass."""
    allowed = (
        {argument.name for argument in function._schema.arguments}
        if isinstance(function, torch._ops.OpOverload)
        else set()
    )
    if not kwargs.keys() <= allowed:
        raise BundleError("a segment's operation has a keyword that it does not take")


def _identifier(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BundleError(f"a segment has the tensor name {str(name)[:40]!r}", "compile it again")
    return name


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
    for kind, enum in _ENUMS.items():
        if isinstance(value, enum):
            return {kind: str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": "run"}
    raise CaptureError(f"an operation has an argument of type {type(value).__name__}, {value!r}")


def _size_to_json(size: int | torch.SymInt) -> Any:
    factor = batch_multiple(size)
    return int(size) if factor is None else {"batch": factor}


class _BatchSizes:
    """Nodes for k times the batch size, made where they are first needed."""

    def __init__(
        self, graph: Graph, values: Mapping[str, Node], specs: Sequence[TensorSpec]
    ) -> None:
        self._graph = graph
        self._source = next(((values[s.name], s) for s in specs if s.name in values), None)
        self._made: dict[int, Node] = {}

    def times(self, factor: int) -> Node:
        if self._source is None:
            raise BundleError("a segment needs the batch size but has no input")
        if not self._made:
            tensor, spec = self._source
            size = self._graph.call_function(torch.ops.aten.sym_size.int, (tensor, spec.batch_dim))
            extent = spec.shape[spec.batch_dim]
            if extent != 1:
                size = self._graph.call_function(operator.floordiv, (size, extent))
            self._made[1] = size
        if factor not in self._made:
            self._made[factor] = self._graph.call_function(operator.mul, (self._made[1], factor))
        return self._made[factor]


class _Decoder:
    """Turns JSON arguments back into the arguments of torch operations."""

    def __init__(
        self,
        values: Mapping[str, Node],
        weights: Mapping[str, Node],
        sizes: _BatchSizes,
        device: torch.device,
    ) -> None:
        self._values, self._weights = values, weights
        self._sizes, self._device = sizes, device

    def __call__(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self(item) for item in value]
        if not isinstance(value, dict):
            return value
        ((kind, text),) = value.items()
        if kind == "t":
            return self._values[text]
        if kind == "w":
            return self._weights[text]
        if kind == "batch":
            return self._sizes.times(int(text))
        if kind == "float":
            return float(text)
        if kind == "device":
            return self._device
        if kind in _ENUMS and _NAME.fullmatch(text):
            constant = getattr(torch, text)
            if isinstance(constant, _ENUMS[kind]):
                return constant
        raise BundleError(f"a segment has an argument of the unknown kind {kind[:40]!r}")
