"""Measures every codec at every boundary on this device: bytes and time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from splitpoint.codec import Array, Codec, CodecError, CodecSource, TensorSpec, codec_of_tensor
from splitpoint.codec.learned import AroundLatents

from ..bundle.bundle import Boundary, Bundle
from ..bundle.samples import Samples
from ..errors import BundleError, SegmentError
from ..run.chain import SegmentChain
from .profile import CodecTime

_TIMED = 5  # runs of each codec that are timed

DecodeOne = Callable[[Codec, bytes, TensorSpec], object]
"""Makes a tensor of one sample's payload, where and as whoever measures will make it."""


def decode_here(codec: Codec, payload: bytes, spec: TensorSpec) -> object:
    """On the processor, whole."""
    return codec.decode(payload, spec, 1)


def measure_codecs(
    bundle: Bundle,
    chain: SegmentChain,
    codecs: CodecSource,
    samples: Samples,
    *,
    max_seconds: float,
    slowdown: float = 1.0,
    tell: Callable[[str], None] = lambda note: None,
    decode: DecodeOne = decode_here,
) -> tuple[CodecTime, ...]:
    """One record for each boundary but the last and each codec that can carry it.

    A codec that refuses a sample is left out there, and `tell` is called with the reason.

    The first few samples are encoded, decoded and timed; the others are encoded for their sizes, as
    long as `max_seconds` are not over, and single samples are repeated as long. Of
    `samples.uploads` only the sizes at boundary 0 count.
    """
    boundaries = bundle.manifest.boundaries[:-1]
    encode_ms: dict[tuple[int, str], list[float]] = {}
    decode_ms: dict[tuple[int, str], list[float]] = {}
    sizes: dict[tuple[int, str], list[int]] = {}
    refused: set[tuple[int, str]] = set()
    deadline = time.perf_counter() + max_seconds
    repeats = -(-_TIMED // len(samples.inputs))
    for number, inputs in enumerate(samples.inputs):
        if number >= _TIMED and time.perf_counter() > deadline:
            break
        state = chain.place(inputs)
        for boundary in boundaries:
            for name in boundary.codecs:
                key, codec = (boundary.id, name), codecs.named(name, boundary.id)
                for again in range(repeats):
                    if key in refused or (again and time.perf_counter() > deadline):
                        break
                    if boundary.id and number < _TIMED:
                        # An agent encodes what a segment has just computed, with cold caches.
                        chain.step(boundary.id - 1, state)
                    values = {spec.name: chain.fetch(state[spec.name]) for spec in boundary.tensors}
                    try:
                        payloads, spent = _encode(codec, boundary.tensors, values)
                    except (CodecError, BundleError, SegmentError) as error:
                        refused.add(key)
                        tell(f"boundary {boundary.id} does without {name}: {error.what}")
                        break
                    if number < _TIMED:
                        encode_ms.setdefault(key, []).append(spent)
                        decode_ms.setdefault(key, []).append(
                            _decode_ms(codec, boundary.tensors, payloads, decode)
                            if _can_decode(codec)
                            else _as_judged(boundary, name)
                        )
                if key not in refused:
                    sizes.setdefault(key, []).append(sum(map(len, payloads)))
            state |= chain.step(boundary.id, state)
    for inputs in samples.uploads:
        for name in boundaries[0].codecs:
            if (0, name) not in refused:
                payloads, _ = _encode(codecs.named(name, 0), boundaries[0].tensors, inputs)
                sizes[0, name].append(sum(map(len, payloads)))
    return tuple(
        CodecTime(
            boundary=boundary,
            codec=name,
            nbytes=statistics.mean(found),
            p95_bytes=float(np.percentile(found, 95)),
            encode_ms=slowdown * statistics.median(encode_ms[boundary, name]),
            decode_ms=slowdown * statistics.median(decode_ms[boundary, name]),
            pictures=len(found) if samples.are_photos else 0,
        )
        for (boundary, name), found in sizes.items()
        if (boundary, name) not in refused
    )


def _can_decode(codec: Codec) -> bool:
    return not isinstance(codec, AroundLatents) or codec.can_decode


def _as_judged(boundary: Boundary, codec: str) -> float:
    """What it took where the codec was trained: for want of a worker that says what it takes."""
    level = boundary.level(codec)
    return 0.0 if level is None else level.decode_ms


def _encode(
    codec: Codec, specs: Sequence[TensorSpec], values: Mapping[str, Array]
) -> tuple[list[bytes], float]:
    start = time.perf_counter()
    payloads = [codec_of_tensor(codec, spec).encode(values[spec.name], spec) for spec in specs]
    return payloads, 1e3 * (time.perf_counter() - start)


def _decode_ms(
    codec: Codec, specs: Sequence[TensorSpec], payloads: Sequence[bytes], decode: DecodeOne
) -> float:
    start = time.perf_counter()
    for spec, payload in zip(specs, payloads, strict=True):
        decode(codec_of_tensor(codec, spec), payload, spec)
    return 1e3 * (time.perf_counter() - start)
