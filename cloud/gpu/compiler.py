"""What a compiler gets of a segment, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from splitpoint.codec import TensorSpec
from torch.fx import GraphModule

from .weight_form import Form

Compiled = Callable[..., Sequence[torch.Tensor]]
"""A segment's outputs from its inputs, both in order and on its device.

The first call with so many samples may take minutes, and raise anything.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentSource:
    """A segment in both of its forms: the worker's, whose weights have `form`, and the device's.

    `name` is that of no other segment, of any bundle. `inputs` and `outputs` are in the order of
    the module's. Where it `is_bounded`, the module keeps indices in range, and the ONNX form does
    not.
    """

    name: str
    module: GraphModule
    onnx: Path
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    form: Form
    device: torch.device
    is_bounded: bool = False

    def samples(self, first: torch.Tensor) -> int:
        """How many there are in the first input."""
        spec = self.inputs[0]
        return first.shape[spec.batch_dim] // spec.shape[spec.batch_dim]


Compiler = Callable[[SegmentSource], Compiled]
"""It is called, and calls what it gave, on the stream that computes the segment later."""
