"""Keeps the indices of a segment in range on a GPU, where one beyond it costs all the device.

What frames bring is looked at before it gets there. This is for what a segment works out itself, or
takes from where nobody could look: it is clamped, and the answer of such a frame is as wrong as the
frame is.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence, Set
from typing import Any

import torch
from splitpoint.partition.run.index_operands import IndexOperand, index_operands, is_uncheckable
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from ..errors import ServeError

_MASKS = (torch.bool, torch.uint8)


def bound_indices(module: GraphModule, unknown: Set[tuple[str, int]]) -> bool:
    """Clamps those of its indices that are `unknown` (see `Indexes`); whether there are any.

    Raises `ServeError` for a segment that a frame could make fail otherwise.
    """
    changed = False
    for node in list(module.graph.nodes):
        if node.op != "call_function":
            continue
        op = str(node.target)
        if is_uncheckable(op):
            raise ServeError(
                f"{node.meta.get('layer') or op} ({op}) may fail for what a client sends, and "
                "would take the GPU from all others",
                "serve the model with --device cpu",
            )
        for count, operand in enumerate(index_operands(op, node.args)):
            if (node.meta.get("name", ""), count) in unknown:
                with module.graph.inserting_before(node):
                    bounded = _bounded(module.graph, node, operand)
                node.args = operand.replaced(node.args, bounded)
                changed = True
    if changed:
        module.graph.lint()
        module.recompile()
    return changed


def _bounded(graph: Graph, node: Node, operand: IndexOperand) -> Node:
    def call(function: Any, *args: Any) -> Node:
        return graph.call_function(function, args)

    if operand.inner is not None:
        return call(_index_or_mask, node.args[0], node.args[operand.place], operand.inner)
    size: Any = operand.extent
    if size is None and operand.dim is None:
        size = call(torch.ops.aten.sym_numel.default, node.args[0])
    elif size is None:
        size = call(torch.ops.aten.sym_size.int, node.args[0], operand.dim)
    least = call(operator.neg, size) if operand.signed else 0
    most = call(operator.sub, size, 1)
    return call(torch.ops.aten.clamp.default, operand.of(node.args), least, most)


def _index_or_mask(x: Tensor, indices: Sequence[Tensor | None], inner: int) -> Tensor:
    """The one at `inner` in range; a mask is nothing but true or false, and stays as it is."""
    dim = 0
    for index in indices[:inner]:
        dim += index.ndim if index is not None and index.dtype in _MASKS else 1
    index = indices[inner]
    assert index is not None
    if index.dtype in _MASKS:
        return index
    size = x.shape[dim]
    return index.clamp(-size, size - 1)
