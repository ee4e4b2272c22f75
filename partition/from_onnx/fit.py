"""The module of a graph, held against onnxruntime, for as many samples at a time as it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from splitpoint.codec import Array

from ..errors import ModelError
from ..relative_error import relative_error
from .graph_input import GraphInput, common_batch
from .module import OnnxModule
from .oracle import Oracle
from .random_inputs import joined, random_inputs

TOLERANCE = 1e-4
_CHOICE = "TopK"


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedGraph:
    """A module, and inputs of the fixed batch that it was compared on, by the graph's names.

    `answer` are the outputs for the first of them. `one_sample` says why the graph takes its inputs
    in just these shapes; "" where it takes any number of samples.
    """

    module: OnnxModule
    samples: list[dict[str, Array]]
    answer: dict[str, Array]
    one_sample: str


def fitted(model: Any, inputs: Sequence[GraphInput], path: Path) -> FittedGraph:
    """The module that answers as onnxruntime does, alone and, where it can, as a batch.

    Raises `ModelError` where it cannot be made, or answers otherwise.
    """
    batch = common_batch(inputs)
    module = OnnxModule(model, batch or 1)
    oracle = Oracle(model)
    samples = [random_inputs(module, inputs, seed) for seed in range(2)]
    answers = [oracle(sample) for sample in samples]
    _compare_all(module, samples, answers, path)
    if batch is None:
        why = "its inputs have several extents in dimension 0"
    else:
        why = _why_not_free(module, samples, answers)
        if why:  # anew: what the first one has learnt is about batches
            module = OnnxModule(model, batch)
            _compare_all(module, samples, answers, path)
    return FittedGraph(
        module=module,
        samples=samples[:1] if why else samples,
        answer=answers[0],
        one_sample=why,
    )


def _run(module: OnnxModule, samples: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    with torch.inference_mode():
        return {n: value.numpy() for n, value in module(**joined(module, samples)).items()}


def _compare_all(
    module: OnnxModule,
    samples: Sequence[Mapping[str, Array]],
    answers: Sequence[Mapping[str, Array]],
    path: Path,
) -> None:
    for sample, expected in zip(samples, answers, strict=True):
        found = _run(module, [sample])
        for name, value in expected.items():
            error = relative_error(found[name], value)
            if error > TOLERANCE:
                differs = (
                    f"what was made of {path} differs from onnxruntime by {error:.1e} of the "
                    f"largest magnitude in the output {name!r}, and {TOLERANCE:.0e} is allowed"
                )
                choice = module.first_of(_CHOICE)
                if choice:
                    raise ModelError(
                        f"{differs}; its node {choice!r} ({_CHOICE}) chooses by values, whose "
                        "order rounding may turn over",
                        "export the model with what it chooses from as its output",
                    )
                raise ModelError(
                    differs,
                    "write a function that returns the model in torch and name it as "
                    "package.module:function",
                )


def _why_not_free(
    module: OnnxModule, samples: Sequence[Mapping[str, Array]], answers: Sequence[Mapping[str, Any]]
) -> str:
    """Why a batch of several samples is not answered as each of them alone; "" if it is."""
    once, thrice = samples[:1], [samples[0], samples[1], samples[0]]
    try:
        module.learn_batch(joined(module, once), joined(module, thrice))
        together = _run(module, samples)
    except ModelError as error:
        return error.what
    for name, value in together.items():
        apart = [answer[name] for answer in answers]
        if value.ndim == apart[0].ndim + 1:  # without axes, the graph squeezed a batch of 1 away
            apart = [answer[None] for answer in apart]
        if value.ndim != apart[0].ndim:
            return f"the output {name!r} has other dimensions for a batch"
        grown = [d for d, n in enumerate(value.shape) if n == 2 * apart[0].shape[d]]
        if not grown:
            return f"the output {name!r} does not grow with the batch"
        errors = [relative_error(value, np.concatenate(apart, axis)) for axis in grown]
        if min(errors) > TOLERANCE:
            return f"the output {name!r} mixes the samples of a batch"
    return ""
