"""An ONNX file, read and checked: whole, with its weights, in float32, and not quantised."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError, EncodeError

from ..errors import ModelError

FIRST_OPSET = 7  # before it, operands were broadcast by other rules
_WRITE = "write it with torch.onnx.export, and copy it whole"
_MOST_BYTES = 2**31 - 1  # of a protobuf message; onnxruntime reads the graph from one
# QLinearConv, DequantizeLinear, MatMulInteger, MatMulNBits, QGemm.
_QUANTISED = re.compile(r"uantiz|^Q[A-Z]|Integer$|NBits$")
_HALF, _FLOAT = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT


def read_onnx(path: Path) -> Any:
    """The model in `path` with its external data loaded and its functions written out.

    Half precision becomes float32. Raises `ModelError` for a file that is no ONNX model, or not
    all of it, for external data outside of the file's folder, and for a quantised model.
    """
    try:
        model = onnx.load_model(str(path), load_external_data=False)
    except OSError as error:
        raise ModelError(f"cannot read {path} ({error.strerror})", "name an ONNX file") from error
    except DecodeError as error:
        raise ModelError(f"{path} is no ONNX model, or not all of one", _WRITE) from error
    if not model.graph.node:
        raise ModelError(f"{path} holds no ONNX graph", _WRITE)
    _load_external(model, path)
    try:
        size = model.ByteSize()
        if size > _MOST_BYTES:
            raise ModelError(
                f"{path} holds {size / 1e9:.1f} GB of weights, and 2.1 can be read",
                "write a function that returns the model in torch",
            )
        onnx.checker.check_model(model)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except (onnx.checker.ValidationError, ValueError, EncodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} is no valid ONNX model ({reason})", _WRITE) from error
    _check_opset(model, path)
    _check_quantised(model, path)
    del model.graph.value_info[:]  # shapes of another batch, and of half precision
    _to_float32(model)
    return model


def opset_of(model: Any) -> int:
    """The version of ONNX's own operators; 0 where none is named."""
    versions = [i.version for i in model.opset_import if i.domain in ("", "ai.onnx")]
    return int(max(versions, default=0))


def _check_opset(model: Any, path: Path) -> None:
    opset, last = opset_of(model), onnx.defs.onnx_opset_version()
    if not FIRST_OPSET <= opset <= last:
        raise ModelError(
            f"{path} is written in opset {opset}; {FIRST_OPSET} to {last} can be read",
            "export it again with opset_version=18",
        )


def _check_quantised(model: Any, path: Path) -> None:
    for node in model.graph.node:
        if _QUANTISED.search(node.op_type):
            raise ModelError(
                f"{path} is quantised already (node {node.name or node.output[0]!r}, "
                f"{node.op_type})",
                "give the float model; `--calibrate DIR --int8` makes segments in INT8",
            )


def _tensors(graph: Any) -> Iterator[Any]:
    """Every constant: initialisers, and those in nodes, also of the graphs inside of nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of(graph.node)


def _tensors_of(nodes: Sequence[Any]) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _load_external(model: Any, path: Path) -> None:
    folder = path.parent.resolve()
    of_functions = (t for function in model.functions for t in _tensors_of(function.node))
    for tensor in (*_tensors(model.graph), *of_functions):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        named = place.get("location", "")
        try:
            file = (folder / named).resolve()
        except (OSError, RuntimeError, ValueError):  # a loop of links, or a name that is none
            file = Path("/")
        parts = PurePosixPath(named.replace("\\", "/")).parts
        if ".." in parts or not file.is_relative_to(folder):
            raise ModelError(
                f"{path} keeps the weight {tensor.name!r} outside of its folder, in {named!r}",
                "put the weights beside the model, and export it again there",
            )
        try:
            wanted = int(place.get("offset", 0)) + int(place.get("length", 0))
            held = file.stat().st_size if file.is_file() else -1
        except ValueError as error:
            raise ModelError(
                f"{path} does not say where the weight {tensor.name!r} is", _WRITE
            ) from error
        if held < wanted:
            what = "is not there" if held < 0 else f"is cut off: {held} of {wanted} bytes"
            raise ModelError(
                f"the weight {tensor.name!r} of {path} lies in {named!r}, which {what}",
                "copy it beside the model, under the same name",
            )
    try:
        onnx.load_external_data_for_model(model, str(folder))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"cannot read the weights of {path} ({reason})", _WRITE) from error


def _to_float32(model: Any) -> None:
    """Values of half precision, and all that is declared as such."""
    for tensor in _tensors(model.graph):
        if tensor.data_type == _HALF:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == _HALF:
            value.type.tensor_type.elem_type = _FLOAT
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == _HALF:
                attribute.i = _FLOAT
