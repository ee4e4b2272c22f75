"""The transform codec `fkt`: calibrated, task-aware, ten times smaller than a JPEG.

The steps from a tensor to bytes: its mean is removed, a cosine transform runs over the positions
and a Fisher-weighted KLT over the channels (table.py); the coefficients are quantised and
entropy-coded (coefficients.py). A payload holds the samples of a batch, each but the last with its
length (uint32) before it.

Error bound: no coefficient, in the table's units of loss, is off by more than `MAX_ERROR_STEPS`
steps of the level, beyond float32's own rounding.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import CodecError
from ..spec import Array, TensorSpec
from .coefficients import CoefficientCoder
from .packed import PackedFkt

MIN_SAMPLE_BYTES = 512  # a sample of a few values may need several times its raw bytes
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Fkt:
    """One level of the tables of one boundary's tensors, by tensor name. Carries float32."""

    name: str
    coders: Mapping[str, CoefficientCoder]

    def supports(self, spec: TensorSpec) -> bool:  # noqa: D102
        coder = self.coders.get(spec.name)
        return coder is not None and coder.table.spec == spec

    def encode(self, array: Array, spec: TensorSpec) -> bytes:  # noqa: D102
        coder = self.coders[spec.name]
        spec.check(array)
        samples = coder.banded(array)
        payloads = [coder.write_intra(sample) for sample in samples]
        lengths = [_LENGTH.pack(len(payload)) for payload in payloads[:-1]]
        payload = b"".join(
            part for pair in zip([*lengths, b""], payloads, strict=True) for part in pair
        )
        if len(payload) > self.max_payload_bytes(spec, len(samples)):
            raise CodecError(
                f"tensor {spec.name!r} is so unlike those of calibration that it would grow",
                "calibrate with such inputs, or use another codec",
            )
        return payload

    def decode(self, payload: bytes, spec: TensorSpec, batch: int) -> Array:  # noqa: D102
        return self.packed(payload, spec, batch).unpack()

    def packed(self, payload: bytes, spec: TensorSpec, batch: int) -> PackedFkt:
        """See `Packing`."""
        found = self.coders[spec.name].read_intra(split_samples(payload, batch))
        found.table.check_inverse()
        return found

    def coefficients(self, payload: bytes, spec: TensorSpec, batch: int) -> Array:
        """What the entropy stage holds, float32 `[batch, C, P]`: `decode` without the transform."""
        packed = self.packed(payload, spec, batch)
        found = np.empty((batch, *packed.table.log_scale.shape), np.float32)
        found[..., packed.table.band_order[0]] = packed.coefficients()
        return found

    def max_payload_bytes(self, spec: TensorSpec, batch: int) -> int:  # noqa: D102
        return max(spec.nbytes_at(batch), batch * MIN_SAMPLE_BYTES)


def split_samples(payload: bytes, batch: int) -> list[bytes]:
    """The payload's samples; `CodecError` where it has not as many."""
    found, offset = [], 0
    for _ in range(batch - 1):
        start = offset + _LENGTH.size
        if start > len(payload):
            raise CodecError("payload ends before its last sample")
        offset = start + _LENGTH.unpack_from(payload, offset)[0]
        found.append(payload[start:offset])
    if offset > len(payload):
        raise CodecError("payload ends within a sample")
    return [*found, payload[offset:]]
