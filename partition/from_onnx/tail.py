"""Cuts off the tail of a graph whose sizes depend on values: what follows a built-in NMS.

No segment can hold such operations. What comes before them is as good an answer: the boxes and
scores to choose from. The same goes for the last choice of detectors without NMS: its rows are in
the order of scores, of which two runtimes, or two batches, never round all in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx

from ..errors import ModelError
from ..onnx_operators.operators import label_of
from .graph_input import declared

_OF_VALUES = frozenset(("Compress", "NonMaxSuppression", "NonZero", "Unique"))
_CHOICE = "TopK"
_SIZES = frozenset(("Shape", "Size"))
# Of these a tail is no tail, but a part of the model.
_LEARNT = frozenset(("Conv", "ConvTranspose", "GRU", "Gemm", "LSTM", "RNN", "RoiAlign"))
# After the last of these, graphs only prepare what is to be chosen from.
_WEIGHTED = _LEARNT | {"Einsum", "MatMul"}
_MOVERS = frozenset(("Gather", "Identity", "Slice", "Squeeze", "Transpose", "Unsqueeze"))
_REMEDY = "export the model without it: without NMS, say, with the boxes and scores as outputs"


def without_tail(model: Any, path: Path, *, chooses: bool = False) -> tuple[str, ...]:
    """Cuts the graph before the first operation that makes a size of values, if there is one.

    Of a model that `chooses` the best of its rows at its end, before that choice, too. What crosses
    there are outputs then; returned is a line that says so. Raises `ModelError`, naming the node,
    where such an operation is no part of a tail.
    """
    ends = _OF_VALUES | {_CHOICE} if chooses else _OF_VALUES
    graph = model.graph
    _prune(graph)
    values = {value.name for value in declared(model)}
    inputs, after, tail, before = set(values), set[str](), list[Any](), list[Any]()
    for node in graph.node:
        reads = set(_reads(node))
        if reads & after or (node.op_type in ends and reads & values):
            tail.append(node)
            after.update(name for name in node.output if name)
        elif reads & values and node.op_type not in _SIZES:
            before.append(node)
            values.update(name for name in node.output if name)
    if not tail:
        return ()
    crossing = _crossing(before, tail, values, inputs)
    does = "chooses by" if tail[0].op_type == _CHOICE else "makes sizes of"
    what = f"the node {label_of(tail[0])!r} ({tail[0].op_type}) {does} tensors' values"
    if not crossing or any(node.op_type in _LEARNT for node in tail):
        raise ModelError(f"{what}, which no segment can hold", _REMEDY)
    kept = [output for output in graph.output if output.name not in after]
    crossing = [name for name in crossing if name not in {output.name for output in kept}]
    types = _types(model)
    outputs = [
        *kept,
        *(
            onnx.helper.make_tensor_value_info(name, types.get(name, onnx.TensorProto.FLOAT), None)
            for name in crossing
        ),
    ]
    del graph.output[:]
    graph.output.extend(outputs)
    _prune(graph)
    used = {name for node in graph.node for name in _reads(node)}
    still = [value for value in graph.input if value.name in used]
    del graph.input[:]
    graph.input.extend(still)
    names = ", ".join(repr(output.name) for output in outputs)
    return (f"{path.name} is cut before its tail, as {what}; its outputs are {names}",)


def _crossing(
    before: Sequence[Any], tail: Sequence[Any], values: set[str], inputs: set[str]
) -> list[str]:
    """The values that cross the narrowest cut between the last weights and the tail.

    Of equally narrow ones the last, but before what only moves values about.
    """
    wanted = {name for node in tail for name in _reads(node) if name in values}
    needed: list[Any] = []
    reached = set(wanted)
    for node in reversed(before):
        if reached.intersection(node.output):
            needed.append(node)
            reached.update(name for name in _reads(node) if name in values)
    needed.reverse()
    last_use = {
        name: index for index, node in enumerate(needed) for name in _reads(node) if name in values
    } | dict.fromkeys(wanted, len(needed))
    found: list[list[str]] = [[]]
    alive: list[str] = []
    for index, node in enumerate(needed):
        alive += [name for name in node.output if name in last_use]
        alive = [name for name in alive if last_use[name] > index]
        found.append(list(alive))
    first = max((i for i, n in enumerate(needed, 1) if n.op_type in _WEIGHTED), default=1)
    if first >= len(found):
        return found[-1]
    narrowest = min(map(len, found[first:]))
    place = max(i for i in range(first, len(found)) if len(found[i]) == narrowest)
    while (
        place > first
        and needed[place - 1].op_type in _MOVERS
        and len(found[place - 1]) == narrowest
    ):
        place -= 1
    return [name for name in found[place] if name not in inputs]


def _reads(node: Any) -> Iterator[str]:
    """What it takes, also inside of the graphs that it holds."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for part in inner.node:
                yield from _reads(part)
            yield from (output.name for output in inner.output)


def _prune(graph: Any) -> None:
    """Takes out the nodes that no output needs."""
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(_reads(node))
    if len(kept) < len(graph.node):
        nodes = kept[::-1]
        del graph.node[:]
        graph.node.extend(nodes)


def _types(model: Any) -> dict[str, int]:
    """Numbers of the dtypes that ONNX infers for values."""
    inferred = onnx.shape_inference.infer_shapes(model)
    return {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
