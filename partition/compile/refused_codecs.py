"""Codecs that a boundary has to do without, because they refuse what crosses there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from splitpoint.codec import Array, CodecError, TensorSpec, codec_named, codec_of_tensor, codecs_for


def refusals(tensors: Sequence[TensorSpec], values: Mapping[str, Array]) -> dict[str, str]:
    """Codec -> why it refuses `values`, arrays by tensor: they are too large for fp16, say."""
    found: dict[str, str] = {}
    for name in codecs_for(tensors):
        codec = codec_named(name)
        try:
            for spec in tensors:
                codec_of_tensor(codec, spec).encode(values[spec.name], spec)
        except CodecError as error:
            found[name] = error.what
    return found
