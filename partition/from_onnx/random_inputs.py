"""Random inputs that a graph has something to answer to.

To noise, a detector answers near nothing: 0.00006 in all places. Runtimes round such values
differently, and an error relative to them says nothing about the graph. So the noise is moved
uphill until the answers are of a size that can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from splitpoint.codec import Array
from torch import Tensor

from .graph_input import GraphInput
from .module import OnnxModule

_SILENT = 0.003  # the largest magnitude of an output that is all rounding
_STEP = 0.1  # of inputs with a deviation of 1
_MOST_STEPS = 10


def random_inputs(module: OnnxModule, inputs: Sequence[GraphInput], seed: int) -> dict[str, Array]:
    """Inputs of the fixed batch, by the graph's names."""
    drawn = {module.parameters_of[i.name]: torch.from_numpy(_random(i, seed)) for i in inputs}
    answered = roused(module, drawn)
    return {i.name: answered[module.parameters_of[i.name]].numpy() for i in inputs}


def joined(module: OnnxModule, samples: Sequence[Mapping[str, Array]]) -> dict[str, Tensor]:
    """Several of them as one batch, by the module's names."""
    return {
        own: torch.from_numpy(np.concatenate([sample[name] for sample in samples]))
        for name, own in module.parameters_of.items()
    }


def _random(value: GraphInput, seed: int) -> Array:
    """Normal values for floats; pixels for bytes; 0 or 1 for other integers, as masks have it."""
    draw = np.random.default_rng(seed)
    if np.issubdtype(value.dtype, np.floating):
        return draw.standard_normal(value.shape).astype(value.dtype)
    if value.dtype == np.uint8:
        return draw.integers(0, 256, value.shape, dtype=np.uint8)
    found = draw.integers(0, 2, value.shape).astype(value.dtype)
    found[..., 0] = 1
    return found


def roused(module: torch.nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`inputs` with its floats changed, where `module` has outputs that are nearly nothing.

    Outputs stay silent where no gradient leads out of it.
    """
    given = {name: value.clone() for name, value in inputs.items()}
    moved = [value for value in given.values() if value.is_floating_point()]
    with torch.inference_mode():
        if not any(_is_silent(value) for value in module(**inputs).values()):
            return given
    for _ in range(_MOST_STEPS):
        for value in moved:
            value.requires_grad_(True)
        answers = [value for value in module(**given).values() if value.requires_grad]
        tops = [value.abs().amax().log() for value in answers if _is_silent(value)]
        if not tops:
            break
        slopes = torch.autograd.grad(torch.stack(tops).sum(), moved, allow_unused=True)
        with torch.no_grad():
            for value, slope in zip(moved, slopes, strict=True):
                if slope is not None:
                    value += _STEP * slope.sign()
    return {name: value.detach() for name, value in given.items()}


def _is_silent(value: Tensor) -> bool:
    if not value.is_floating_point() or not value.numel():
        return False
    return 0 < float(value.detach().abs().amax()) < _SILENT
