"""Codecs without modelling: the bytes as they are in memory, or as half floats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import CodecError
from ..spec import Array, TensorSpec
from .entropy import compress, compressed_bound, decompress_exactly


def _exact(payload: bytes, expected_bytes: int, spec: TensorSpec) -> bytes:
    if len(payload) != expected_bytes:
        raise CodecError(
            f"payload of tensor {spec.name!r} has {len(payload)} bytes, expected {expected_bytes}"
        )
    return payload


@dataclass(frozen=True, slots=True)
class Raw:
    """Every dtype, bit for bit (NaN and infinities included)."""

    name: str = "raw"

    def supports(self, spec: TensorSpec) -> bool:  # noqa: D102
        return True

    def encode(self, array: Array, spec: TensorSpec) -> bytes:  # noqa: D102
        spec.check(array)
        return array.tobytes()

    def decode(self, payload: bytes, spec: TensorSpec, batch: int) -> Array:  # noqa: D102
        _exact(payload, spec.nbytes_at(batch), spec)
        if spec.dtype == "bool" and payload.translate(None, b"\x00\x01"):
            raise CodecError(f"payload of tensor {spec.name!r} has bytes that are no booleans")
        return np.frombuffer(payload, spec.numpy_dtype).reshape(spec.shape_at(batch))

    def max_payload_bytes(self, spec: TensorSpec, batch: int) -> int:  # noqa: D102
        return spec.nbytes_at(batch)


@dataclass(frozen=True, slots=True)
class Lossless:
    """Every dtype, bit for bit, through zstd: for what is mostly zeros or long runs."""

    name: str = "lossless"

    def supports(self, spec: TensorSpec) -> bool:  # noqa: D102
        return True

    def encode(self, array: Array, spec: TensorSpec) -> bytes:  # noqa: D102
        return compress(Raw().encode(array, spec))

    def decode(self, payload: bytes, spec: TensorSpec, batch: int) -> Array:  # noqa: D102
        plain = decompress_exactly(payload, spec.nbytes_at(batch))
        return Raw().decode(plain, spec, batch)

    def max_payload_bytes(self, spec: TensorSpec, batch: int) -> int:  # noqa: D102
        return compressed_bound(spec.nbytes_at(batch))


@dataclass(frozen=True, slots=True)
class Fp16:
    """float32 rounded to half floats: half the bytes, relative error at most 2^-11.

    A finite value beyond 65504 would become infinite and is refused; NaN and infinities pass.
    """

    name: str = "fp16"

    def supports(self, spec: TensorSpec) -> bool:  # noqa: D102
        return spec.dtype == "float32"

    def encode(self, array: Array, spec: TensorSpec) -> bytes:  # noqa: D102
        spec.check(array)
        with np.errstate(over="ignore"):
            half = array.astype("<f2")
        if not np.array_equal(np.isinf(half), np.isinf(array)):
            raise CodecError(
                f"tensor {spec.name!r} has values beyond the range of fp16", "use the codec raw"
            )
        return half.tobytes()

    def decode(self, payload: bytes, spec: TensorSpec, batch: int) -> Array:  # noqa: D102
        _exact(payload, self.max_payload_bytes(spec, batch), spec)
        return np.frombuffer(payload, "<f2").astype("<f4").reshape(spec.shape_at(batch))

    def max_payload_bytes(self, spec: TensorSpec, batch: int) -> int:  # noqa: D102
        return spec.nbytes_at(batch) // 2
