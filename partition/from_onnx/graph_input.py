"""The inputs that a graph declares: names, dtypes, and shapes with a number for every size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from splitpoint.codec import DTYPES

from ..errors import ModelError

_FIX_SIZES = (
    "give it one: python -m onnxruntime.tools.make_dynamic_shape_fixed --input_name {0} "
    "--input_shape {1} IN.onnx OUT.onnx"
)
_PICTURES = "give --input-size HxW if it takes pictures; else "
_MOST_VALUES = 1 << 28  # of an input: more are no sample of anything, but a mistake


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphInput:
    """An input of the graph: `shape` with the batch in front, which is 1 where it is free."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def inputs_of(model: Any, path: Path) -> list[GraphInput]:
    """Those that are no weights; `ModelError` for one without a size or of an odd type."""
    found = [_input(value, path) for value in declared(model)]
    if not found:
        raise ModelError(f"{path} has no inputs", "export a model that takes a tensor")
    return found


def declared(model: Any) -> list[Any]:
    """The graph's own records of its inputs, without weights."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def common_batch(inputs: Sequence[GraphInput]) -> int | None:
    """The extent of dimension 0 of all `inputs`; None where they have none in common."""
    extents = {value.shape[0] for value in inputs}
    return extents.pop() if len(extents) == 1 else None


def shape_shown(value: Any) -> list[int | str]:
    """Sizes of a declared input; of one that is free its name, or `?`."""
    dims = value.type.tensor_type.shape.dim
    return [d.dim_value if d.dim_value > 0 else d.dim_param or "?" for d in dims]


def _input(value: Any, path: Path) -> GraphInput:
    shown, dtype = shape_shown(value), dtype_of(value, path)
    if not shown:
        raise ModelError(
            f"the input {value.name!r} of {path} has no dimensions, as a single number",
            "export the model with that number as a constant, or with dimensions",
        )
    for place, size in enumerate(shown):
        if place > 0 and not isinstance(size, int):
            fix = _FIX_SIZES.format(value.name, _with_sizes(shown))
            raise ModelError(
                f"the input {value.name!r} of {path} is {shown}: its dimension {place} ({size}) "
                "has no size",
                f"{_PICTURES}{fix}" if len(shown) == 4 and dtype == np.float32 else fix,
            )
    batch = shown[0] if isinstance(shown[0], int) else 1
    shape = (batch, *(int(size) for size in shown[1:]))
    if math.prod(shape) > _MOST_VALUES:
        raise ModelError(
            f"the input {value.name!r} of {path} is {shown}, which is more than a sample can be",
            "export it again with the sizes that it is used with",
        )
    return GraphInput(name=value.name, dtype=dtype, shape=shape)


def dtype_of(value: Any, path: Path) -> np.dtype[Any]:
    """numpy's dtype of a declared input; `ModelError` for one that cannot be sent."""
    number = value.type.tensor_type.elem_type
    kind = "no tensor"
    if value.type.HasField("tensor_type"):
        kind = f"of type {onnx.TensorProto.DataType.Name(number)}"
        try:
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number))
        except (KeyError, TypeError, ValueError):
            dtype = np.dtype(object)
        if dtype in DTYPES.values():
            return dtype
    raise ModelError(
        f"the input {value.name!r} of {path} is {kind}, which cannot be sent",
        f"export it with one of {', '.join(DTYPES)}",
    )


def _with_sizes(shown: Sequence[int | str]) -> str:
    """The shape as the tool wants it, with a batch of 1 and a word where a size is wanted."""
    others = (str(size) if isinstance(size, int) else f"SIZE{d}" for d, size in enumerate(shown))
    return ",".join(["1", *list(others)[1:]])
