"""Groups the nodes of a canonical graph into layers with the user's names."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx import Node

from ..bundle.flops import FREE, flops_of
from .batch_shape import fake_value, shape_of_one


@dataclass(slots=True, kw_only=True)
class LayerNodes:
    """A layer before it is costed: its name, op kind, module and nodes in execution order."""

    name: str
    op: str
    path: str  # of the module, as torch names it
    nodes: list[Node]

    @property
    def output(self) -> Node:
        """The node whose value is the layer's output; of several parts (a chunk's) the first."""
        last = self.nodes[-1]
        if last.target is not operator.getitem:
            return last
        return next(
            node
            for node in self.nodes
            if node.target is operator.getitem and node.args[0] is last.args[0]
        )


@dataclass(frozen=True, slots=True)
class _Call:
    """Which call of which module a node belongs to; `key` tells two calls of one module apart."""

    key: str
    path: str
    kind: str


def group_layers(nodes: Sequence[Node], prefix: str) -> list[LayerNodes]:
    """Layers of data-carrying nodes in order; `prefix` is cut off the modules' paths.

    Neighbouring nodes of one call of a leaf module are one layer, unless several of them compute
    (multi-head attention is written as one module, but is many operations). What stands in the
    forward method of a module with children is one layer an operation, called `MODULE.OP`. An
    operation with several outputs and the nodes that pick them are one layer.
    Repeated names get `#2`, `#3`, … in execution order.
    """
    parents = {
        ".".join(call.path.split(".")[:depth])
        for call in map(_call_of, nodes)
        for depth in range(call.path.count(".") + 1)
    }
    layers: list[LayerNodes] = []
    calls: list[_Call] = []
    for node in nodes:
        call, op = _call_of(node), op_name(node)
        if node.target is operator.getitem and layers and node.args[0] in layers[-1].nodes:
            layers[-1].nodes.append(node)
            continue
        is_leaf = call.path not in parents and call.path != ""
        if (
            layers
            and is_leaf
            and calls[-1] == call
            and _counts(op) + sum(_counts(op_name(n)) for n in layers[-1].nodes) <= _limit(call)
        ):
            layers[-1].nodes.append(node)
            layers[-1].op = _main_op(layers[-1].nodes)
            continue
        layers.append(
            LayerNodes(name=call.path if is_leaf else "", op=op, path=call.path, nodes=[node])
        )
        calls.append(call)
    _name(layers, calls, prefix)
    return layers


def _name(layers: list[LayerNodes], calls: list[_Call], prefix: str) -> None:
    shared = Counter(
        (call.key, call.path) for call, layer in zip(calls, layers, strict=True) if layer.name
    )
    seen: Counter[str] = Counter()
    for layer, call in zip(layers, calls, strict=True):
        if not layer.name or shared[call.key, call.path] > 1:
            layer.name = f"{call.path}.{layer.op}" if call.path else layer.op
        # torch.compile puts a module around the user's.
        parts = [part for part in layer.name.split(".") if part != "_orig_mod"]
        layer.name = ".".join(parts).removeprefix(prefix)
        seen[layer.name] += 1
        if seen[layer.name] > 1:
            layer.name = f"{layer.name}#{seen[layer.name]}"


def op_name(node: Node) -> str:
    """`conv2d` for `aten.conv2d.default`; the plain name of a Python function."""
    packet = getattr(node.target, "overloadpacket", None)
    if packet is not None:
        return str(packet.__name__)
    return str(getattr(node.target, "__name__", node.target))


def layer_flops(layer: LayerNodes) -> int | None:
    """Operations of the layer for one sample, None if any of its nodes is unsupported."""
    counts = [node_flops(node) for node in layer.nodes]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def node_flops(node: Node) -> int | None:
    """Operations of one node for one sample, None if its op is unsupported."""
    inputs = [
        shape_of_one(value)
        for argument in node.all_input_nodes
        if isinstance(value := fake_value(argument), torch.Tensor)
    ]
    value = fake_value(node)
    first = value[0] if isinstance(value, (tuple, list)) else value
    return flops_of(op_name(node), inputs, shape_of_one(first))


def layer_parameters(layer: LayerNodes, parameters: dict[Node, tuple[str, torch.Tensor]]) -> int:
    """How many parameter and buffer values the layer reads."""
    read = {argument for node in layer.nodes for argument in node.all_input_nodes}
    return sum(math.prod(parameters[node][1].shape) for node in read if node in parameters)


def parameter_bytes(layer: LayerNodes, parameters: dict[Node, tuple[str, torch.Tensor]]) -> int:
    """Their bytes."""
    read = {argument for node in layer.nodes for argument in node.all_input_nodes}
    return sum(parameters[node][1].nbytes for node in read if node in parameters)


# The wrapper that turns pixels into the model's input is one layer, whatever it is made of.
NORMALISE_KIND = "Normalise"


def _limit(call: _Call) -> int:
    return 99 if call.kind == NORMALISE_KIND else 1


def _counts(op: str) -> int:
    return 0 if op in FREE else 1


def _main_op(nodes: Sequence[Node]) -> str:
    ops = [op_name(node) for node in nodes]
    return next((op for op in ops if _counts(op)), ops[-1])


def _call_of(node: Node) -> _Call:
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return _Call("", "", "")
    key, (path, kind) = next(reversed(stack.items()))
    return _Call(str(key), str(path), str(kind).rsplit(".", 1)[-1])
