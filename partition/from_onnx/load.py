"""From an ONNX file to a model that can be compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from splitpoint.codec import Array
from torch import Tensor

from ..errors import ModelError
from ..model_spec import ModelSpec
from ..relative_error import relative_error
from .model_file import read_onnx
from .module import OnnxModule, parameter_name
from .oracle import Oracle
from .rouse import roused

TOLERANCE = 1e-4
_FIX_SIZES = (
    "give it one: python -m onnxruntime.tools.make_dynamic_shape_fixed --input_name {0} "
    "--input_shape {1} IN.onnx OUT.onnx"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphInput:
    """An input of the graph: `shape` with the batch in front, which is 1 where it is free."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def onnx_model(path: Path, weights: str) -> ModelSpec:
    """The graph in an .onnx file as a torch module with example inputs.

    The module has been compared with onnxruntime on random inputs, alone and as a batch. Raises
    `ModelError` for a file that cannot be read or converted, and where the two differ.
    """
    if weights not in ("default", "none"):
        raise ModelError("an ONNX file carries its own weights", "leave --weights out")
    model = read_onnx(path)
    inputs = _inputs_of(model, path)
    fixed = inputs[0].shape[0]
    module = OnnxModule(model, fixed)
    oracle = Oracle(model)
    samples = [_sample(module, inputs, seed) for seed in range(2)]
    answers = [oracle(sample) for sample in samples]
    for sample, expected in zip(samples, answers, strict=True):
        _compare(_run(module, [sample]), expected, path)
    refusal = _why_not_free(module, samples, answers)
    if refusal is not None:
        raise ModelError(
            f"{path} works for a batch of {fixed} only: {refusal.what}",
            "export it with a free batch: dynamic_axes={'INPUT': {0: 'batch'}}, "
            "and without sizes that are written out",
        )
    return ModelSpec(
        source=path.name,
        module=module,
        kwargs=_joined(samples),
        layer_prefix="nodes.",
    )


def _inputs_of(model: Any, path: Path) -> list[GraphInput]:
    weights = {tensor.name for tensor in model.graph.initializer}
    found = [_input(v, path) for v in model.graph.input if v.name not in weights]
    if not found:
        raise ModelError(f"{path} has no inputs", "export a model that takes a tensor")
    if len({value.shape[0] for value in found}) > 1:
        listed = ", ".join(f"{value.name!r} {list(value.shape)}" for value in found)
        raise ModelError(
            f"the inputs of {path} have no common batch size in dimension 0: {listed}",
            "export it with the batch as dimension 0 of every input",
        )
    return found


def _input(value: Any, path: Path) -> GraphInput:
    kind = value.type.tensor_type
    dims = list(kind.shape.dim)
    shown = [d.dim_value if d.dim_value > 0 else d.dim_param or "?" for d in dims]
    if not value.type.HasField("tensor_type") or not dims:
        raise ModelError(
            f"the input {value.name!r} of {path} has no batch dimension",
            "export it with the batch as dimension 0 of every input",
        )
    for place, size in enumerate(shown):
        if place > 0 and not isinstance(size, int):
            raise ModelError(
                f"the input {value.name!r} of {path} is {shown}: its dimension {place} ({size}) "
                "has no size",
                _FIX_SIZES.format(value.name, _with_sizes(shown)),
            )
    batch = shown[0] if isinstance(shown[0], int) else 1
    shape = (batch, *(int(size) for size in shown[1:]))
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    return GraphInput(name=value.name, dtype=np.dtype(dtype), shape=shape)


def _with_sizes(shown: Sequence[int | str]) -> str:
    """The shape as the tool wants it, with a batch of 1 and a word where a size is wanted."""
    others = (str(size) if isinstance(size, int) else f"SIZE{d}" for d, size in enumerate(shown))
    return ",".join(["1", *list(others)[1:]])


def _sample(module: OnnxModule, inputs: Sequence[GraphInput], seed: int) -> dict[str, Array]:
    """Inputs by the graph's names."""
    drawn = _joined([{i.name: _random(i, seed) for i in inputs}])
    answered = roused(module, drawn)
    return {i.name: answered[parameter_name(i.name)].numpy() for i in inputs}


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


def _joined(samples: Sequence[Mapping[str, Array]]) -> dict[str, Tensor]:
    return {
        parameter_name(name): torch.from_numpy(np.concatenate([s[name] for s in samples]))
        for name in samples[0]
    }


def _run(module: OnnxModule, samples: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    with torch.inference_mode():
        return {name: value.numpy() for name, value in module(**_joined(samples)).items()}


def _compare(found: Mapping[str, Array], expected: Mapping[str, Array], path: Path) -> None:
    for name, value in expected.items():
        error = relative_error(found[name], value)
        if error > TOLERANCE:
            raise ModelError(
                f"what was made of {path} differs from onnxruntime by {error:.1e} of the largest "
                f"magnitude in the output {name!r}, and {TOLERANCE:.0e} is allowed",
                "write a function that returns the model in torch and name it as "
                "package.module:function",
            )


def _why_not_free(
    module: OnnxModule, samples: Sequence[Mapping[str, Array]], answers: Sequence[Mapping[str, Any]]
) -> ModelError | None:
    """Why a batch of several samples is not answered as each of them alone; None if it is."""
    try:
        module.learn_batch(_joined(samples[:1]), _joined([samples[0], samples[1], samples[0]]))
        together = _run(module, samples)
    except ModelError as error:
        return error
    for name, value in together.items():
        apart = [answer[name] for answer in answers]
        if value.ndim == apart[0].ndim + 1:  # without axes, the graph squeezed a batch of 1 away
            apart = [answer[None] for answer in apart]
        grown = [d for d, n in enumerate(value.shape) if n == 2 * apart[0].shape[d]]
        if not grown:
            return ModelError(f"the output {name!r} does not grow with the batch")
        errors = [relative_error(value, np.concatenate(apart, axis)) for axis in grown]
        if min(errors) > TOLERANCE:
            return ModelError(f"the output {name!r} mixes the samples of a batch")
    return None
