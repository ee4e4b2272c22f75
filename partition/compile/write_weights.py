"""Weights of a segment: one safetensors file that the program and the ONNX model share.

ONNX can keep a tensor outside the model as (file, offset, length). A safetensors file is a header
and then plain little-endian tensors, so the ONNX model simply points into it: weights are stored,
downloaded and hashed once, and no segment meets protobuf's 2 GiB limit.

Of a linear layer ONNX wants the transposed weight. It is what lies in the file then: for torch a
transposed view costs nothing (`program.with_turned`), while onnxruntime would keep a copy of it.
What only the ONNX model has, such as a fold of its exporter's, lies in the file as well.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import external_data_helper
from splitpoint.codec import Array

_KINDS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ONNX_ONLY = "onnx:"  # names that no module has
_WRITTEN_BYTES = 1 << 20  # at a time


def save_weights(
    weights: Mapping[str, torch.Tensor],
    segment: onnx.ModelProto,
    values: Mapping[str, Array],
    turned: frozenset[str],
    path: Path,
) -> frozenset[str]:
    """Writes the weights of a program, and what else its ONNX form `segment` needs, to `path`.

    `values` are those of the segment's external initializers, which then point into the file;
    `turned` are the initializers that are wanted transposed. Returns the names of the weights that
    lie there transposed. The same tensor under two names is stored under both.
    """
    known = _Known(weights)
    stored = dict(weights)
    lies_as: dict[str, bool] = {}  # whether transposed, of weights that ONNX reads
    place_of: dict[str, str] = {}  # initializer -> name in the file
    for tensor in segment.graph.initializer:
        if not external_data_helper.uses_external_data(tensor):
            continue
        value, turn = values[tensor.name], tensor.name in turned
        name = known.find(value)
        if name is None or lies_as.setdefault(name, turn) != turn:
            name = f"{_ONNX_ONLY}{tensor.name}"
            stored[name], lies_as[name] = torch.from_numpy(value), turn
        place_of[tensor.name] = name
    views = {name: value.t() if lies_as.get(name) else value for name, value in stored.items()}
    offsets = _write(views, path)
    for tensor in segment.graph.initializer:
        if tensor.name in place_of:
            name = place_of[tensor.name]
            tensor.raw_data = b""  # onnx wants something to replace
            external_data_helper.set_external_data(
                tensor, path.name, offsets[name], views[name].nbytes
            )
            tensor.ClearField("raw_data")
    return frozenset(name for name, turn in lies_as.items() if turn and name in weights)


class _Known:
    """Finds which weight an array is, by where it lies in memory or by its bytes."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        self._weights = weights
        self._by_place = {_place(w): name for name, w in weights.items()}
        self._by_digest: dict[tuple[Sequence[int], bytes], str] | None = None

    def find(self, value: Array) -> str | None:
        tensor = torch.from_numpy(value)
        name = self._by_place.get(_place(tensor))
        if name is not None:
            return name
        if self._by_digest is None:
            self._by_digest = {_digest(w): name for name, w in self._weights.items()}
        return self._by_digest.get(_digest(tensor))


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _digest(tensor: torch.Tensor) -> tuple[tuple[int, ...], bytes]:
    sha256 = hashlib.sha256(str(tensor.dtype).encode())
    for part in _parts(tensor):
        sha256.update(part)
    return tuple(tensor.shape), sha256.digest()


def _parts(tensor: torch.Tensor) -> Iterator[memoryview]:
    """The tensor's bytes in order, without ever copying more than a little of it."""
    rows = tensor.detach().reshape(1) if tensor.ndim == 0 else tensor.detach()
    count = max(1, _WRITTEN_BYTES * len(rows) // max(rows.nbytes, 1))
    for start in range(0, len(rows), count):
        part = rows[start : start + count]
        yield part.contiguous().view(torch.uint8).numpy().reshape(-1).data


def _write(tensors: Mapping[str, torch.Tensor], path: Path) -> dict[str, int]:
    """Writes a safetensors file and returns where in it each tensor lies.

    The library would hold all of them in memory once more. Large elements come first, so that each
    tensor lies at a multiple of its element's size.
    """
    header: dict[str, object] = {}
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    ends = np.cumsum([0, *(tensors[name].nbytes for name in order)]).tolist()
    for name, begin, end in zip(order, ends[:-1], ends[1:], strict=True):
        value = tensors[name]
        header[name] = {
            "dtype": _KINDS[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            for part in _parts(tensors[name]):
                stream.write(part)
    return {name: 8 + len(text) + begin for name, begin in zip(order, ends[:-1], strict=True)}
