"""The entropy stage: zstd with a length that is known before a byte is decompressed.

zstd frames lie easily: python-zstandard ignores `max_output_size` when the frame declares a size,
accepts trailing bytes, and lets a frame ask for a window of gigabytes. So the declared size must
be present and equal to the length that the receiver already knows, and nothing may follow.
"""

from __future__ import annotations

import threading

import zstandard

from ..errors import CodecError

LEVEL = 3  # 0.1 ms for 16 kB; level 19 saves 17 % and takes 50 times as long

# zstd contexts are not safe to share between threads, and costly to make for each frame.
_contexts = threading.local()


def compress(data: bytes) -> bytes:
    """One zstd frame that declares its content size."""
    compressor: zstandard.ZstdCompressor | None = getattr(_contexts, "compressor", None)
    if compressor is None:
        compressor = _contexts.compressor = zstandard.ZstdCompressor(level=LEVEL)
    return compressor.compress(data)


def decompress_exactly(payload: bytes, expected_bytes: int) -> bytes:
    """The `expected_bytes` bytes in `payload`, or `CodecError`; never allocates more than that."""
    decompressor: zstandard.ZstdDecompressor | None = getattr(_contexts, "decompressor", None)
    if decompressor is None:
        decompressor = _contexts.decompressor = zstandard.ZstdDecompressor()
    try:
        declared = zstandard.get_frame_parameters(payload).content_size
        if declared != expected_bytes:
            size = "no size" if declared == zstandard.CONTENTSIZE_UNKNOWN else f"{declared} bytes"
            raise CodecError(f"compressed payload declares {size}, expected {expected_bytes} bytes")
        data = decompressor.decompress(
            payload,
            max_output_size=expected_bytes,
            read_across_frames=False,
            allow_extra_data=False,
        )
    except zstandard.ZstdError as error:
        raise CodecError(f"compressed payload is damaged ({error})") from error
    if len(data) != expected_bytes:
        raise CodecError(f"compressed payload holds {len(data)} bytes, expected {expected_bytes}")
    return data


def compressed_bound(data_bytes: int) -> int:
    """Most bytes that `compress` can make of `data_bytes` (zstd.h, ZSTD_COMPRESSBOUND)."""
    margin = ((128 << 10) - data_bytes) >> 11 if data_bytes < (128 << 10) else 0
    return data_bytes + (data_bytes >> 8) + margin + 32
