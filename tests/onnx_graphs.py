"""Small ONNX files, written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WEIGHT = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)


def graph(
    nodes: Sequence[Any],
    path: Path,
    shape: Sequence[Any] = (1, 3, 8, 8),
    *,
    opset: int = 17,
    weights: dict[str, Any] | None = None,
    kind: int = TensorProto.FLOAT,
) -> str:
    """Writes a graph from `x` to `y`."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in (weights or {}).items()],
    )
    made.output[0].type.tensor_type.elem_type = kind
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    model = onnx.shape_inference.infer_shapes(model)
    if not model.graph.output[0].type.tensor_type.HasField("shape"):
        model.graph.output[0].type.tensor_type.shape.dim.add(dim_param="some")
    onnx.save_model(model, path)
    return str(path)


def node(kind: str, *inputs: str, name: str = "", to: str = "y", **attributes: Any) -> Any:
    return helper.make_node(kind, inputs, [to], name=name or kind.lower(), **attributes)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)
