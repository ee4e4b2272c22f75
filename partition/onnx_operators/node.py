"""A node of an ONNX graph, as its operator sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from splitpoint.codec import Array
from torch import Tensor

from ..errors import ModelError

# What an operator makes of its inputs: a tensor, several, or Python numbers (see `GraphBatch`).
Compute = Callable[..., Any]


class GraphBatch:
    """How many samples the graph was written for, and how many it runs on now.

    Sizes are Python numbers while the graph runs: the batch, which may be a symbol, would not
    survive in a tensor.

    A graph for one fixed batch has it in its constants. To find those that must grow, the graph
    runs twice while it is `learning`: with the `fixed` batch, and with three times that.
    """

    def __init__(self, fixed: int) -> None:
        self.fixed = fixed
        self.learning = False
        self.now: int | torch.SymInt = fixed

    @property
    def is_tripled(self) -> bool:
        """Whether this is the second of the two runs."""
        return self.learning and self.now == 3 * self.fixed

    def grown(self, extent: int) -> int | torch.SymInt:
        """An extent of the fixed batch, or of a multiple of it, at today's."""
        return extent // self.fixed * self.now


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operation: its attributes, and the inputs that are constants, by their place.

    `learnt` is what an operator found out about the batch.
    """

    name: str
    kind: str
    opset: int
    attributes: Mapping[str, Any]
    constants: Mapping[int, Array]
    outputs: tuple[str, ...]  # their names, "" for one that nobody wants
    batch: GraphBatch
    learnt: dict[str, Any] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)

    def number(self, place: int, default: float) -> float:
        """The constant input at `place`, a single number; `default` where there is none."""
        value = self.constants.get(place)
        return default if value is None else float(value.reshape(()))

    @property
    def wanted(self) -> int:
        """How many outputs there have to be: up to the last one that has a name."""
        return max((place for place, name in enumerate(self.outputs, 1) if name), default=0)

    def cannot(self, what: str, remedy: str = "") -> ModelError:
        """The error to raise when the node does what is not supported here."""
        return ModelError(
            f"the node {self.name!r} ({self.kind}) {what}",
            remedy
            or "export the model without it, or write a function that returns the model in "
            "torch and name it as package.module:function",
        )


@dataclass(frozen=True, slots=True)
class Operator:
    """How an ONNX operator is computed: `compute(node, *inputs)`.

    The inputs at `sizes` are lists of Python numbers, the others tensors. A missing optional input
    is None.
    """

    compute: Compute
    sizes: tuple[int, ...] = ()


def is_python(value: Any) -> bool:
    """Whether it is a number or a list of numbers, and no tensor."""
    return isinstance(value, (bool, int, float, list, torch.SymInt))


def as_tensor(value: Any) -> Any:
    """Python numbers as a tensor, int64 or float32; tensors and None as they are."""
    if not is_python(value):
        return value
    if isinstance(value, list):
        array = np.array(value, dtype=object)
        numbers = array.ravel().tolist()
        if any(isinstance(v, torch.SymInt) for v in numbers):
            return torch.stack([_scalar(v) for v in numbers]).reshape(array.shape)
        kind = torch.float32 if any(isinstance(v, float) for v in numbers) else torch.int64
        kind = torch.bool if _all_bool(numbers) else kind
        return torch.tensor(numbers, dtype=kind).reshape(array.shape)
    return _scalar(value) if isinstance(value, torch.SymInt) else torch.tensor(value)


def _scalar(size: Any) -> Tensor:
    """Unlike `torch.tensor`, this keeps a symbol."""
    return torch.scalar_tensor(size, dtype=torch.int64)


def _all_bool(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(v, bool) for v in values)


def axis_of(node: Node, x: Tensor, default: int) -> int:
    """The attribute `axis`, counted from the front."""
    axis: int = node.get("axis", default)
    return axis + x.ndim if axis < 0 else axis


def simple(function: Compute) -> Operator:
    """An operator without attributes that torch has by the same arguments."""
    return Operator(lambda node, *inputs: function(*inputs))


def is_small_integers(array: Array) -> bool:
    """Whether a constant may be a shape, axes or an index: such are Python numbers throughout."""
    return array.dtype in (np.int64, np.int32) and array.ndim <= 1 and array.size <= 64
