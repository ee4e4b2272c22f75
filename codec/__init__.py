"""Tensors to bytes and back: the codecs of boundary tensors, numpy only."""

from .base import Codec
from .errors import CodecError, SpecError, SplitpointError
from .registry import CODECS, codec_named, codec_of_tensor, codecs_for
from .spec import DTYPE_NUMBERS, DTYPES, Array, TensorSpec

__all__ = [
    "CODECS",
    "DTYPES",
    "DTYPE_NUMBERS",
    "Array",
    "Codec",
    "CodecError",
    "SpecError",
    "SplitpointError",
    "TensorSpec",
    "codec_named",
    "codec_of_tensor",
    "codecs_for",
]
