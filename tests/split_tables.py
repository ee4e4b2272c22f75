"""Small made-up bundles, ladders and profiles for tests of the planner."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from splitpoint.codec import TensorSpec
from splitpoint.partition.bundle.bundle import Boundary, Manifest, Segment
from splitpoint.partition.bundle.graph import Layer
from splitpoint.partition.bundle.ladder import CodecLevel
from splitpoint.partition.bundle.model_kind import CLASSIFY
from splitpoint.partition.profile.profile import CodecTime, Profile, SegmentTime

Ladders = Mapping[int, Sequence[CodecLevel]]  # by boundary


def manifest_of(segments: int, ladders: Ladders | None = None) -> Manifest:
    """A chain with two layers a segment, called `block0.conv`, `block0.relu`, `block1.conv`, …"""
    layers = tuple(
        Layer(
            name=f"block{index // 2}.{'relu' if index % 2 else 'conv'}",
            op="relu" if index % 2 else "conv2d",
            output_shape=(8,),
            dtype="float32",
            output_bytes=32,
            flops=100,
            params=0,
            param_bytes=0,
            inputs=(index - 1,),
            crossing_bytes=None,
            segment=index // 2,
        )
        for index in range(2 * segments)
    )
    boundaries = tuple(
        Boundary(
            id=index,
            after=None if index == 0 else f"block{index - 1}.relu",
            tensors=(TensorSpec(name=f"t{index}", dtype="float32", shape=(1, 8), batch_dim=0),),
            ladder=tuple((ladders or {}).get(index, ())),
        )
        for index in range(segments + 1)
    )
    return Manifest(
        name="chain",
        source="made up",
        weights="none",
        layers=layers,
        boundaries=boundaries,
        segments=(Segment(program="", onnx="", weights="", flops=200),) * segments,
        outputs={"output": f"t{segments}"},
        picture=None,
        task=CLASSIFY,
        labels_file=None,
        unsupported_ops=(),
        max_relative_error=0.0,
        files={},
    )


def level(codec: str, nbytes: float = 100.0, **changed: float | None) -> CodecLevel:
    """A rung that lost nothing over 400 inputs unless something else is said."""
    fields = {"judged": 400, "agreed": 400, "loss": 0.0, "encode_ms": 0.0, "decode_ms": 0.0}
    fields |= {"p95_bytes": nbytes} | changed
    return CodecLevel(codec=codec, nbytes=nbytes, **fields)


def codec_time(boundary: int, codec: str, nbytes: float, **changed: float) -> CodecTime:
    """Free of charge, and of synthetic pictures, unless something else is said."""
    fields = {"encode_ms": 0.0, "decode_ms": 0.0, "pictures": 0} | changed
    return CodecTime(boundary=boundary, codec=codec, nbytes=nbytes, p95_bytes=nbytes, **fields)


def profile_of(
    ms: Sequence[float],
    codecs: Sequence[CodecTime] = (),
    *,
    p95_ms: Sequence[float] | None = None,
    mj: Sequence[float] | None = None,
    memory_mb: Sequence[float] | None = None,
    **fields: object,
) -> Profile:
    """A profile of these segments."""
    known: Mapping[str, object] = {
        "device": "board (made up)",
        "runtime": "onnxruntime",
        "threads": 4,
        "date": "2026-01-01T00:00:00+00:00",
        "digest": "0" * 64,
        "versions": {},
        "layers": (),
        "base_mb": None if memory_mb is None else 50.0,
    }
    segments = tuple(
        SegmentTime(
            id=index,
            ms=value,
            p95_ms=value if p95_ms is None else p95_ms[index],
            samples=20,
            mj=None if mj is None else mj[index],
            memory_mb=None if memory_mb is None else memory_mb[index],
        )
        for index, value in enumerate(ms)
    )
    return Profile(segments=segments, codecs=tuple(codecs), **{**known, **fields})


CODECS = {"raw": 1.0, "q8": 0.25, "q4": 0.12, "fkt@1": 0.02, "fkt@3": 0.05}


def random_profiles(seed: int, *, runtimes: int = 1) -> tuple[list[Profile], Profile]:
    """A device's profiles, one a runtime, and the worker's, with every figure different."""
    rng = random.Random(seed)
    count = rng.randint(2, 6)
    sizes = [rng.uniform(2e4, 2e6) for _ in range(count)]

    def codecs() -> list[CodecTime]:
        return [
            codec_time(
                boundary,
                codec,
                round(sizes[boundary] * part * rng.uniform(0.8, 1.2)),
                encode_ms=rng.uniform(0.1, 4),
                decode_ms=rng.uniform(0.1, 3),
                pictures=rng.choice([0, 7]),
            )
            for boundary in range(count)
            for codec, part in CODECS.items()
        ]

    def profile(scale: float, runtime: str) -> Profile:
        ms = [scale * rng.uniform(1, 60) for _ in range(count)]
        return profile_of(
            ms,
            codecs(),
            p95_ms=[value * rng.uniform(1, 1.4) for value in ms],
            mj=[4.5 * value * rng.uniform(0.8, 1.2) for value in ms],
            memory_mb=[rng.uniform(1, 30) for _ in ms],
            runtime=runtime,
            energy_kind="measured",
            busy_w=4.5,
            idle_w=1.5,
            threads=1 + seed % 2,
            cores=(None, 2, 1, 4)[seed % 4],
        )

    edges = [profile(1.0, name) for name in ("onnxruntime", "torch")[:runtimes]]
    return edges, profile(0.05, "torch")


def random_ladders(seed: int, segments: int) -> dict[int, list[CodecLevel]]:
    """Of some boundaries, some codecs: figures that limits of all sizes allow and forbid."""
    rng = random.Random(f"ladders {seed}")
    found = {}
    for boundary in range(segments):
        if rng.random() < 0.2:
            continue
        found[boundary] = []
        for codec in CODECS:
            if codec == "raw" or rng.random() < 0.2:
                continue
            judged = rng.choice([20, 100, 400, 2000])
            changed = round(judged * rng.choice([0.0, 0.0, 0.005, 0.02, 0.1]))
            nbytes = rng.uniform(1e3, 2e6)
            found[boundary].append(
                level(
                    codec,
                    nbytes,
                    judged=judged,
                    agreed=rng.choice([None, *[judged - changed] * 4]),
                    loss=rng.choice([0.0, 0.01, 0.024, 0.026, 0.3]),
                )
            )
    return found
