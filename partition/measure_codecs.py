"""Measures every codec at every boundary: bytes, time, and what it does to the answers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence

import numpy as np
from splitpoint.codec import Array, Codec, TensorSpec, codec_named, codec_of_tensor

from .bundle import Bundle
from .chain import SegmentChain
from .profile import CodecTime
from .samples import Samples

LOSSLESS = frozenset(("raw", "png"))
_TIMED = 5  # runs of each codec that are timed


def measure_codecs(
    bundle: Bundle,
    chain: SegmentChain,
    samples: Samples,
    *,
    accuracy: bool,
    max_seconds: float,
    slowdown: float = 1.0,
) -> tuple[CodecTime, ...]:
    """One record for each boundary but the last and each codec that can carry it.

    Every sample is encoded and decoded, the first few are timed; of `samples.uploads` only the
    sizes at boundary 0 count. With `accuracy`, photos and a classifier, the rest of the model then
    runs on what was decoded; after `max_seconds` of that no further photos are judged.
    """
    boundaries = bundle.manifest.boundaries[:-1]
    judge = accuracy and samples.are_photos and bundle.manifest.classifies
    output = next(iter(bundle.manifest.outputs.values()))
    encode_ms: dict[tuple[int, str], list[float]] = {}
    decode_ms: dict[tuple[int, str], list[float]] = {}
    sizes: dict[tuple[int, str], list[int]] = {}
    answers: dict[tuple[int, str], list[int]] = {}
    truth: list[int] = []
    deadline = time.perf_counter() + max_seconds
    repeats = -(-_TIMED // len(samples.inputs))
    for number, inputs in enumerate(samples.inputs):
        state = chain.place(inputs)
        for boundary in boundaries:
            for name in boundary.codecs:
                key, codec = (boundary.id, name), codec_named(name)
                for _ in range(repeats):
                    if boundary.id and number < _TIMED:
                        # An agent encodes what a segment has just computed, with cold caches.
                        chain.step(boundary.id - 1, state)
                    values = {spec.name: chain.fetch(state[spec.name]) for spec in boundary.tensors}
                    payloads, spent = _encode(codec, boundary.tensors, values)
                    if number < _TIMED:
                        encode_ms.setdefault(key, []).append(spent)
                    decoded, spent = _decode(codec, boundary.tensors, payloads)
                    if number < _TIMED:
                        decode_ms.setdefault(key, []).append(spent)
                sizes.setdefault(key, []).append(sum(map(len, payloads)))
                if judge and name not in LOSSLESS:
                    answers.setdefault(key, []).append(
                        _top_class(chain, boundary.id, decoded, output)
                    )
            state |= chain.step(boundary.id, state)
        if judge:
            truth.append(int(chain.fetch(state[output]).argmax()))
            judge = time.perf_counter() < deadline
    for inputs in samples.uploads:
        for name in boundaries[0].codecs:
            payloads, _ = _encode(codec_named(name), boundaries[0].tensors, inputs)
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
            accuracy_drop=0.0
            if name in LOSSLESS
            else _differing(answers.get((boundary, name), ()), truth),
        )
        for (boundary, name), found in sizes.items()
    )


def _differing(answers: Sequence[int], truth: Sequence[int]) -> float | None:
    """The share of answers that are not the true one; None where none were judged."""
    if not answers:
        return None
    return sum(a != t for a, t in zip(answers, truth, strict=True)) / len(answers)


def _top_class(chain: SegmentChain, boundary: int, values: Mapping[str, Array], output: str) -> int:
    """What the rest of the model says of a decoded boundary."""
    state = chain.place(values)
    for index in range(boundary, len(chain)):
        state |= chain.step(index, state)
    return int(chain.fetch(state[output]).argmax())


def _encode(
    codec: Codec, specs: Sequence[TensorSpec], values: Mapping[str, Array]
) -> tuple[list[bytes], float]:
    start = time.perf_counter()
    payloads = [codec_of_tensor(codec, spec).encode(values[spec.name], spec) for spec in specs]
    return payloads, 1e3 * (time.perf_counter() - start)


def _decode(
    codec: Codec, specs: Sequence[TensorSpec], payloads: Sequence[bytes]
) -> tuple[dict[str, Array], float]:
    start = time.perf_counter()
    values = {
        spec.name: codec_of_tensor(codec, spec).decode(payload, spec, 1)
        for spec, payload in zip(specs, payloads, strict=True)
    }
    return values, 1e3 * (time.perf_counter() - start)
