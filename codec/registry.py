"""The one table of codecs, and which of them a boundary can use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .base import Codec
from .errors import CodecError
from .simple.affine import Affine
from .simple.image import ImageCodec
from .simple.plain import Fp16, Raw
from .spec import TensorSpec

RAW = Raw()

CODECS: dict[str, Codec] = {
    codec.name: codec
    for codec in (
        RAW,
        Fp16(),
        Affine(name="q8", bits=8),
        Affine(name="q4", bits=4),
        ImageCodec(name="jpeg", file_format="JPEG", quality=92),
        ImageCodec(name="webp", file_format="WEBP", quality=90),
        ImageCodec(name="png", file_format="PNG"),
    )
}


def codec_named(name: str) -> Codec:
    """The codec called `name`; an image codec may carry its quality, as in `jpeg@75`.

    Raises `CodecError`, listing the known names, for any other.
    """
    base, at, setting = name.partition("@")
    codec = CODECS.get(base)
    if codec is not None and not at:
        return codec
    if (
        isinstance(codec, ImageCodec)
        and codec.quality is not None
        and setting.isascii()
        and setting.isdecimal()
        and len(setting) <= 3
        and not setting.startswith("0")  # a quality has one name, as a level has
        and int(setting) <= 100
    ):
        return replace(codec, name=name, quality=int(setting))
    raise CodecError(f"unknown codec {name[:40]!r}", f"choose one of {', '.join(CODECS)}, jpeg@75")


def codecs_for(specs: Sequence[TensorSpec]) -> list[str]:
    """Names of the codecs that carry at least one of a boundary's tensors, `raw` first."""
    return [name for name, codec in CODECS.items() if any(map(codec.supports, specs))]


def codec_of_tensor(codec: Codec, spec: TensorSpec) -> Codec:
    """The codec that this tensor travels in when its frame names `codec`.

    A frame names one codec; a tensor that it does not carry (integers under `q8`) travels raw.
    """
    return codec if codec.supports(spec) else RAW
