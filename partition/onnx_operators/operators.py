"""All operators that can be read, by ONNX's names."""

from __future__ import annotations

from typing import Any

from ..errors import ModelError
from .node import Operator
from .picking import PICKING
from .pointwise import POINTWISE
from .recurrent import RECURRENT
from .reductions import REDUCTIONS
from .resize import RESIZE
from .shapes import SHAPES
from .weighted import WEIGHTED
from .windows import WINDOWS

_FAMILIES = (PICKING, POINTWISE, RECURRENT, REDUCTIONS, RESIZE, SHAPES, WEIGHTED, WINDOWS)
OPERATORS: dict[str, Operator] = {k: v for family in _FAMILIES for k, v in family.items()}
CONSTANT = "Constant"
_CONTROL_FLOW = ("If", "Loop", "Scan")
_REMEDY = (
    "export the part before it, or write a function that returns the model in torch and name it "
    "as package.module:function"
)


def check_operators(graph: Any) -> None:
    """Raises `ModelError`, naming the node, for control flow and for what cannot be read."""
    unknown = [
        node
        for node in graph.node
        if node.domain not in ("", "ai.onnx")
        or (node.op_type not in OPERATORS and node.op_type != CONSTANT)
    ]
    for node in unknown:
        if node.op_type in _CONTROL_FLOW:
            raise ModelError(
                f"the node {label_of(node)!r} branches or loops inside of the graph "
                f"({node.op_type})",
                "compute both sides and choose with torch.where, or write the loop out",
            )
    if unknown:
        first = unknown[0]
        kinds = sorted({_kind(node) for node in unknown} - {_kind(first)})
        others = f", and so are {', '.join(kinds)}" if kinds else ""
        raise ModelError(
            f"the node {label_of(first)!r} is the operation {_kind(first)}, which is not "
            f"supported{others}",
            _REMEDY,
        )


def label_of(node: Any) -> str:
    """The node's name, or that of its first output for a node without one."""
    return str(node.name or (node.output[0] if node.output else node.op_type))


def _kind(node: Any) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else str(node.op_type)
