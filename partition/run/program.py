"""A segment as data becomes a torch module: ATen operations in JSON, weights in safetensors.

This is the cloud's form of a segment. It holds no code and is never unpickled.
`compile.write_program` writes it.

A tensor argument is written `{"t": NAME}`, a weight `{"w": NAME}`, and a size that is k times the
batch `{"batch": k}`: each segment recomputes the batch size from the first tensor that enters it,
so that no size has to travel across a cut (ViT and Swin need theirs in every block).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from splitpoint.codec import TensorSpec
from torch.fx import Graph, GraphModule, Node

from ..errors import BundleError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Operations on files have no place in a model.
_FORBIDDEN = {"from_file", "save", "load"}
# Arguments that are constants of torch, by the key under which they are written.
ENUMS = {
    "dtype": torch.dtype,
    "memory_format": torch.memory_format,
    "layout": torch.layout,
}


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
            made.meta["name"] = record["name"]  # fx may give it another
            values[record["name"]] = made
        graph.output(tuple(values[name] for name in program["outputs"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"a segment's program is malformed ({type(error).__name__}: {error})",
            "compile the bundle again",
        ) from error
    return GraphModule(root, graph)


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
        if kind in ENUMS and _NAME.fullmatch(text):
            constant = getattr(torch, text)
            if isinstance(constant, ENUMS[kind]):
                return constant
        raise BundleError(f"a segment has an argument of the unknown kind {kind[:40]!r}")
