"""Weights of a segment: one safetensors file that the program and the ONNX model share.

ONNX can keep a tensor outside the model as (file, offset, length). A safetensors file is a header
and then plain little-endian tensors, so the ONNX model simply points into it: weights are stored,
downloaded and hashed once, and no segment meets protobuf's 2 GiB limit.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import external_data_helper, numpy_helper
from safetensors.torch import load_file, save_file

from .errors import BundleError

# Small tensors stay in the model: onnxruntime wants shapes and axes at hand when it optimises.
MIN_SHARED_BYTES = 1024


def save_weights(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Writes the tensors; the same tensor under two names is stored under both."""
    save_file({name: value.detach().clone().contiguous() for name, value in weights.items()}, path)


def load_weights(path: Path, device: torch.device) -> dict[str, torch.Tensor]:
    """Reads them back onto `device`; `BundleError` for a damaged file."""
    try:
        return load_file(path, device=str(device))
    except torch.OutOfMemoryError:
        raise  # a matter of the device, not of the file
    except Exception as error:
        raise BundleError(
            f"{path} holds no weights ({error})", "compile the bundle again"
        ) from error


def share_weights(model: onnx.ModelProto, path: Path) -> None:
    """Points the model's large initializers into the safetensors file `path` where equal."""
    places = _places(path)
    for tensor in model.graph.initializer:
        data = numpy_helper.to_array(tensor).tobytes()
        place = places.get((tensor.data_type, hashlib.sha256(data).digest()))
        if len(data) < MIN_SHARED_BYTES or place is None:
            continue
        external_data_helper.set_external_data(tensor, path.name, place, len(data))
        for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
            tensor.ClearField(field)


def _places(path: Path) -> dict[tuple[int, bytes], int]:
    """(ONNX dtype, SHA-256 of the data) -> offset in the file."""
    kinds = {
        "F32": onnx.TensorProto.FLOAT,
        "F16": onnx.TensorProto.FLOAT16,
        "I64": onnx.TensorProto.INT64,
        "I32": onnx.TensorProto.INT32,
        "I8": onnx.TensorProto.INT8,
        "U8": onnx.TensorProto.UINT8,
        "F64": onnx.TensorProto.DOUBLE,
    }
    places: dict[tuple[int, bytes], int] = {}
    with path.open("rb") as stream:
        (header_bytes,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(header_bytes))
        start = 8 + header_bytes
        for name, entry in header.items():
            if name == "__metadata__" or entry["dtype"] not in kinds:
                continue
            begin, end = entry["data_offsets"]
            stream.seek(start + begin)
            digest = hashlib.sha256(stream.read(end - begin)).digest()
            places[kinds[entry["dtype"]], digest] = start + begin
    return places
