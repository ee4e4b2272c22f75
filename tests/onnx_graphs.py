"""Small ONNX files, written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
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
    others: Mapping[str, Sequence[Any]] | None = None,
    outputs: Sequence[str] = ("y",),
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Writes a graph from `x` (and `others`) to `outputs`."""
    inputs = {"x": shape} | dict(others or {})
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, size) for name, size in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in (weights or {}).items()],
    )
    for output in made.output:
        output.type.tensor_type.elem_type = kind
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    helper.set_model_props(model, dict(metadata or {}))
    model = onnx.shape_inference.infer_shapes(model)
    for output in model.graph.output:
        if not output.type.tensor_type.HasField("shape"):
            output.type.tensor_type.shape.dim.add(dim_param="some")
    onnx.save_model(model, path)
    return str(path)


def node(kind: str, *inputs: str, name: str = "", to: str = "y", **attributes: Any) -> Any:
    """One with the output `to`, or several with spaces between them; `-` for one without a name."""
    outputs = ["" if part == "-" else part for part in to.split(" ")]
    return helper.make_node(kind, inputs, outputs, name=name or kind.lower(), **attributes)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def onnxruntime_answers(path: str, **inputs: Any) -> list[Any]:
    """The outputs in the graph's order."""
    return onnxruntime.InferenceSession(path).run(None, inputs)
