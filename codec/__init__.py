"""Tensors to bytes and back: the codecs of boundary tensors, in numpy, with inner loops in C.

May import: nothing of ours.
"""

from .base import Codec, Packed, Packing, StreamCodec, StreamEnd
from .codec_set import NO_TABLES, CodecSet, CodecSource
from .errors import CodecError, SpecError, SplitpointError
from .registry import CODECS, RAW, codec_named, codec_of_tensor, codecs_for
from .spec import DTYPE_NUMBERS, DTYPES, Array, TensorSpec

__all__ = [
    "CODECS",
    "DTYPES",
    "DTYPE_NUMBERS",
    "NO_TABLES",
    "RAW",
    "Array",
    "Codec",
    "CodecError",
    "CodecSet",
    "CodecSource",
    "Packed",
    "Packing",
    "SpecError",
    "SplitpointError",
    "StreamCodec",
    "StreamEnd",
    "TensorSpec",
    "codec_named",
    "codec_of_tensor",
    "codecs_for",
]
