"""What a tensor that crosses a boundary looks like: name, dtype, shape, and where the batch is.

A `TensorSpec` is the contract between edge and cloud. Its shape is written for one sample; the
dimension `batch_dim` is multiplied by the batch size. That dimension is usually the first with
extent 1, but not always: Swin's windows cross a cut as `[64*batch, 49, 96]`.

Some models take one sample at a time, whose tensors have no dimension that grows. They are
`one_sample`: no other shape is theirs, and `batch_dim` says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import SpecError

Array = NDArray[Any]

# Every dtype that may cross a boundary or leave the model. The order is part of the wire format
# (the index travels as the dtype's number, from 1 on): append, never reorder.
DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "uint8": np.dtype("u1"),
    "int8": np.dtype("i1"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "bool": np.dtype("?"),
    "float64": np.dtype("<f8"),
}
DTYPE_NUMBERS: dict[str, int] = {name: number for number, name in enumerate(DTYPES, start=1)}

MAX_RANK = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor of a boundary: `shape` is that of one sample, `shape[batch_dim]` its batch factor.

    Raises `SpecError` on construction for an unknown dtype, a bad shape or batch dimension.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    batch_dim: int
    one_sample: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise SpecError(f"tensor {self.name!r} has the unsupported dtype {self.dtype[:40]!r}")
        if not 1 <= len(self.shape) <= MAX_RANK or any(extent < 1 for extent in self.shape):
            raise SpecError(f"tensor {self.name!r} has the unsupported shape {_shown(self.shape)}")
        if not 0 <= self.batch_dim < len(self.shape):
            raise SpecError(f"tensor {self.name!r} has no batch dimension {self.batch_dim}")

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The dtype in memory and on the wire (little-endian)."""
        return DTYPES[self.dtype]

    @property
    def shape_without_batch(self) -> tuple[int, ...]:
        """The shape as a person reads it: a batch factor of 1 is left out."""
        if self.shape[self.batch_dim] != 1:
            return self.shape
        return self.shape[: self.batch_dim] + self.shape[self.batch_dim + 1 :]

    @property
    def is_picture(self) -> bool:
        """True for uint8 `[batch, height, width, 3]`, which image codecs can carry."""
        return self.dtype == "uint8" and self.batch_dim == 0 and self.shape[3:] == (3,)

    def shape_at(self, batch: int) -> tuple[int, ...]:
        """The full shape of `batch` samples."""
        extents = list(self.shape)
        extents[self.batch_dim] *= batch
        return tuple(extents)

    def nbytes_at(self, batch: int) -> int:
        """Size in bytes of `batch` samples in memory."""
        return math.prod(self.shape) * batch * self.numpy_dtype.itemsize

    def batch_of(self, shape: Sequence[int]) -> int:
        """The batch size that gives this full shape; `SpecError` when no batch size does."""
        factor = self.shape[self.batch_dim]
        if self.one_sample:
            if tuple(shape) == self.shape:
                return 1
            raise SpecError(
                f"tensor {self.name!r} has shape {_shown(shape)}, expected {_shown(self.shape)}: "
                "the model takes one sample at a time"
            )
        if len(shape) == len(self.shape):
            batch = shape[self.batch_dim] // factor
            if batch >= 1 and tuple(shape) == self.shape_at(batch):
                return batch
        expected: list[Any] = list(self.shape)
        expected[self.batch_dim] = "batch" if factor == 1 else f"{factor}*batch"
        raise SpecError(
            f"tensor {self.name!r} has shape {_shown(shape)}, expected "
            f"[{', '.join(map(str, expected))}]"
        )

    def check(self, array: Array) -> int:
        """The batch size of `array`, or `SpecError` when dtype or shape do not fit."""
        if array.dtype != self.numpy_dtype:
            raise SpecError(f"tensor {self.name!r} is {array.dtype}, expected {self.dtype}")
        return self.batch_of(array.shape)

    def to_json(self) -> dict[str, Any]:
        """The manifest's form; `from_json` reads it back."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "batch_dim": self.batch_dim,
            **({"one_sample": True} if self.one_sample else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TensorSpec:
        """Reads the manifest's form; `SpecError` when a field is missing or of the wrong type."""
        try:
            name, dtype, shape, batch_dim = (
                data[key] for key in ("name", "dtype", "shape", "batch_dim")
            )
            one_sample = data.get("one_sample", False)
        except (KeyError, TypeError, AttributeError) as error:
            raise SpecError(f"a tensor specification lacks {error}") from error
        if (
            not isinstance(name, str)
            or not isinstance(dtype, str)
            or type(batch_dim) is not int  # a bool is an int to isinstance
            or not isinstance(one_sample, bool)
            or not isinstance(shape, list)
            or not all(type(extent) is int for extent in shape)
        ):
            raise SpecError(f"tensor specification {name!r} has a field of the wrong type")
        return cls(
            name=name, dtype=dtype, shape=tuple(shape), batch_dim=batch_dim, one_sample=one_sample
        )


def _shown(shape: Sequence[int]) -> str:
    """Of a shape that anybody may have made up, no more than a real one can have."""
    if len(shape) > MAX_RANK:
        return f"[{', '.join(map(str, shape[:MAX_RANK]))}, …] of {len(shape)} dimensions"
    return str(list(shape))
