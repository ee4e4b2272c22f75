"""Measures a bundle's segments and layers in onnxruntime, on the device that this runs on."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from splitpoint.codec import Array

from .bundle import Bundle
from .graph import Layer
from .onnx_segment import OnnxSegment
from .profile import LayerTime, Profile, SegmentTime

WARM_UP_ROUNDS, MIN_ROUNDS, MAX_ROUNDS = 3, 20, 400
# Stable: the medians of the first and the second half of the rounds differ by no more than this.
STABLE = 0.02
LAYER_ROUNDS = 10


def measure(
    bundle: Bundle,
    *,
    threads: int = 0,
    slowdown: float = 1.0,
    max_seconds: float = 30.0,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Profile:
    """The profile of `bundle` with onnxruntime on `threads` threads (0: one a core).

    Segments run one after the other as they will in use, on random pixels (or zeros), until every
    median is stable or `max_seconds` are over. Layers come from onnxruntime's own profiler, scaled
    so that a segment's layers add up to its median. `slowdown` multiplies all times and marks the
    profile as emulated.
    """
    manifest = bundle.manifest
    paths = [bundle.path(segment.onnx) for segment in manifest.segments]
    progress("load the segments", 0, 3)
    segments = [OnnxSegment(path, threads) for path in paths]
    inputs = _example(bundle)
    progress("time the segments", 1, 3)
    times = _segment_times(segments, inputs, max_seconds)
    progress("time the layers", 2, 3)
    kernels = _kernel_ms(paths, inputs, threads)
    progress("done", 3, 3)
    measured = tuple(
        SegmentTime(
            id=index,
            ms=slowdown * statistics.median(samples),
            p95_ms=slowdown * float(np.percentile(samples, 95)),
            samples=len(samples),
        )
        for index, samples in enumerate(times)
    )
    return Profile(
        device=f"{platform.node()} ({_processor()})",
        runtime="onnxruntime",
        threads=threads or os.cpu_count() or 1,
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        digest=bundle.digest,
        versions={name: version(name) for name in ("splitpoint", "onnxruntime", "numpy")},
        segments=measured,
        layers=_layer_times(manifest.layers, measured, kernels),
        emulated=f"slowed down {slowdown:g} times" if slowdown > 1 else "",
    )


def _example(bundle: Bundle) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {
        spec.name: rng.integers(0, 256, spec.shape).astype(np.uint8)
        if spec.is_picture
        else np.zeros(spec.shape, spec.numpy_dtype)
        for spec in bundle.manifest.boundaries[0].tensors
    }


def _segment_times(
    segments: Sequence[OnnxSegment], inputs: Mapping[str, Array], max_seconds: float
) -> list[list[float]]:
    """Milliseconds of every run of every segment, warm-up left out."""
    times: list[list[float]] = [[] for _ in segments]
    deadline = time.perf_counter() + max_seconds
    for done in range(WARM_UP_ROUNDS + MAX_ROUNDS):
        state = dict(inputs)
        for segment, samples in zip(segments, times, strict=True):
            start = time.perf_counter()
            outputs = segment(state)
            samples.append(1e3 * (time.perf_counter() - start))
            state.update(outputs)
        if done < WARM_UP_ROUNDS:
            for samples in times:
                samples.clear()
        elif time.perf_counter() > deadline or (
            len(times[0]) >= MIN_ROUNDS and all(map(_is_stable, times))
        ):
            break
    return times


def _is_stable(samples: Sequence[float]) -> bool:
    half = len(samples) // 2
    first, second = statistics.median(samples[:half]), statistics.median(samples[half:])
    return abs(first - second) <= STABLE * max(first, second)


def _kernel_ms(
    paths: Sequence[Path], inputs: Mapping[str, Array], threads: int
) -> list[dict[str, float]]:
    """For each segment: ONNX value that a kernel ends with -> its mean milliseconds."""
    found = []
    state = dict(inputs)
    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            segment = OnnxSegment(path, threads, profile_to=Path(folder) / "profile")
            for _ in range(WARM_UP_ROUNDS + LAYER_ROUNDS):
                outputs = segment(state)
            events = json.loads(segment.end_profiling().read_text(encoding="utf-8"))
        runs: dict[str, list[float]] = defaultdict(list)
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                name = event["name"].removesuffix("_kernel_time").removesuffix("_nchwc")
                runs[name].append(event["dur"] / 1e3)
        found.append({name: statistics.median(runs[name]) for name in runs})
        state.update(outputs)
    return found


def _layer_times(
    layers: Sequence[Layer], segments: Sequence[SegmentTime], kernels: Sequence[Mapping[str, float]]
) -> tuple[LayerTime, ...]:
    """Kernel times handed to layers, scaled to the measured segments.

    A kernel is called after the last layer that was fused into it. Its time is divided by FLOPs
    among that layer and the ones right before it that have no kernel of their own.
    """
    total_ms = sum(segment.ms for segment in segments) or 1.0
    result = []
    for segment, spent in zip(segments, kernels, strict=True):
        members = [layer for layer in layers if layer.segment == segment.id]
        own = _by_layer(members, spent)
        raw = _divide(members, own)
        scale = segment.ms / (sum(raw) or 1.0)
        if not any(raw):  # nothing but renaming: the call itself is what was measured
            raw, scale = [segment.ms / len(members)] * len(members), 1.0
        result += [
            LayerTime(
                name=layer.name,
                op=layer.op,
                ms=scale * ms,
                mj=None,
                share=scale * ms / total_ms,
            )
            for layer, ms in zip(members, raw, strict=True)
        ]
    return tuple(result)


def _by_layer(members: Sequence[Layer], spent: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds of the kernels that bear a layer's name; the boundary's tensors end the last.

    What bears no name (a change of memory layout) is left out here and comes back by the scaling.
    """
    names = {layer.name for layer in members}
    own: dict[str, float] = defaultdict(float)
    for value, ms in spent.items():
        layer, slash, _ = value.rpartition("/")
        if slash and layer in names:
            own[layer] += ms
        elif not slash and not value.startswith("Reorder"):
            own[members[-1].name] += ms
    return own


def _divide(members: Sequence[Layer], own: Mapping[str, float]) -> list[float]:
    shares = [0.0] * len(members)
    group: list[int] = []
    for index, layer in enumerate(members):
        group.append(index)
        if layer.name not in own:
            continue
        work = [members[i].flops or 0 for i in group]
        for i, flops in zip(group, work, strict=True):
            part = flops / sum(work) if sum(work) else 1 / len(group)
            shares[i] += own[layer.name] * part
        group = []
    return shares


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = Path("/proc/device-tree/model")  # what a board calls itself
    if model.exists():
        names.insert(0, model.read_text(encoding="utf-8").rstrip("\0"))
    return names[0] if names else platform.machine()
