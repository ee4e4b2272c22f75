"""Operations that no segment can hold, found in an exported graph before anything is cut."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ..errors import CaptureError
from .batch_shape import batch_multiple, fake_value
from .export_errors import NMS, NMS_REMEDY
from .layers import op_name

Tag = torch.Tag

# Arguments that say whether an operation draws random numbers; those without one always do.
_SWITCHES = ("train", "training", "dropout_p")
_UNBACKED = ("u", "zu")  # what torch calls sizes and numbers that it does not know before a run


def check_operations(program: ExportedProgram, prefix: str) -> None:
    """Raises `CaptureError` for control flow, random numbers, and shapes that depend on values.

    It names the layer and the operation. `prefix` is cut off the layers' names.
    """
    for node in _alive(program):
        where, name = place_of(node, prefix), op_name(node)
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            raise CaptureError(
                f"{where} branches or loops inside of the graph (torch.{name})",
                "compute both sides and choose with torch.where, or write the loop out",
            )
        if "nms" in name and str(node.target).startswith("torchvision."):
            raise CaptureError(f"{where} {NMS}", NMS_REMEDY)
        if _draws(node):
            raise CaptureError(
                f"{where} draws random numbers ({name}), also in eval mode",
                "give the dropout training=self.training"
                if "dropout" in name
                else "leave that out at inference, or take the numbers as an input",
            )
        _check_value(fake_value(node), where, name)


def _check_value(value: Any, where: str, name: str) -> None:
    """Only tensors and sizes that grow with the batch can be made again by a segment."""
    leaves = value if isinstance(value, (tuple, list)) else (value,)
    extents: list[Any] = [
        e for leaf in leaves if isinstance(leaf, torch.Tensor) for e in leaf.shape
    ]
    for extent in [*extents, *(leaf for leaf in leaves if isinstance(leaf, torch.SymInt))]:
        try:
            batch_multiple(extent)
        except CaptureError as error:
            if any(str(symbol).startswith(_UNBACKED) for symbol in extent.node.expr.free_symbols):
                raise _of_values(where, "a size", name) from error
            raise CaptureError(f"{where} ({name}): {error.what}", error.remedy) from error
    if any(isinstance(leaf, (torch.SymFloat, torch.SymBool)) for leaf in leaves):
        raise _of_values(where, "a Python number", name)


def _of_values(where: str, what: str, name: str) -> CaptureError:
    return CaptureError(
        f"{where} makes {what} of the values of a tensor ({name})",
        "keep it a tensor of a fixed shape, without item(), int(), nonzero() or x[mask], or export "
        "the part before it",
    )


def place_of(node: Node, prefix: str) -> str:
    """`layer 'blocks.0.attention'`, or that it stands in the model's own forward method."""
    stack = node.meta.get("nn_module_stack") or {"": ("", "")}
    path = str(next(reversed(stack.values()))[0]).removeprefix(prefix)
    return f"layer {path!r}" if path and path != prefix.rstrip(".") else "the model's forward"


def _alive(program: ExportedProgram) -> list[Node]:
    """The operations that an output depends on, in order."""
    found: set[Node] = set()
    waiting = [node for node in program.graph.nodes if node.op == "output"]
    while waiting:
        for argument in waiting.pop().all_input_nodes:
            if argument not in found:
                found.add(argument)
                waiting.append(argument)
    return [n for n in program.graph.nodes if n in found and n.op == "call_function"]


def _draws(node: Node) -> bool:
    if Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    schema: Any = getattr(node.target, "_schema", None)
    for place, argument in enumerate(schema.arguments):
        if argument.name in _SWITCHES:
            given = node.args[place] if len(node.args) > place else argument.default_value
            return bool(node.kwargs.get(argument.name, given))
    return True
