"""Measures a bundle's segments, layers and codecs on the device that this runs on."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from splitpoint.codec import Array, CodecSource

from ..bundle.bundle import Bundle
from ..bundle.samples import Samples, synthetic_samples
from ..energy.meter import EnergyMeter, NoMeter
from ..errors import PlanError
from ..progress import Progress, tell_nobody
from ..run.chain import SegmentChain, State
from ..run.codecs import codecs_of
from ..run.slowdown import Slowdown
from .cloud_times import CloudTimes
from .head_time import measure_head
from .layer_share import layer_times
from .measure_codecs import DecodeOne, decode_here, measure_codecs
from .measure_energy import measure_energy
from .profile import CodecTime, Profile, SegmentTime
from .throttling import clock_notes, read_clock

WARM_UP_ROUNDS, MIN_ROUNDS, MAX_ROUNDS = 3, 20, 400
# Frames come with gaps: a core that has slept, and caches that others used, are part of the time.
PAUSE_S = 0.05
# Stable: the medians of the first and the second half of the rounds differ by no more than this
# share, or by less than matters to anything.
STABLE, STABLE_MS = 0.02, 0.05
LAYER_ROUNDS, BATCH_ROUNDS = 10, 10
_PACKAGES = (  # onnxruntime has another name with what it needs for a GPU
    "splitpoint", "onnxruntime", "onnxruntime-gpu", "torch", "triton", "tensorrt", "numpy",
)  # fmt: skip


def measure(
    bundle: Bundle,
    chain: SegmentChain,
    samples: Samples,
    *,
    batches: Sequence[int] = (1,),
    meter: EnergyMeter | None = None,
    slowdown: float = 1.0,
    max_seconds: float = 30.0,
    codecs: Sequence[CodecTime] = (),
    progress: Progress = tell_nobody,
) -> Profile:
    """The profile of `bundle` in the runtime of `chain`.

    Segments run one after the other as they will in use, on the first sample, until every median
    is stable or `max_seconds` are over; then for each of `batches`. Layers come from the runtime's
    own record, scaled so that a segment's layers add up to its median without the head, which the
    last segment's time has in it and whose energy is only modelled. Codecs run on all samples,
    unless `codecs` were measured before: they do not depend on the runtime.
    `slowdown` plays a slower device, by waiting as an agent with that slowdown does, and marks the
    profile as emulated. Raises `PlanError` for batches of a model that takes none.
    """
    if bundle.manifest.boundaries[0].one_sample and max(batches) > 1:
        raise PlanError(
            f"{bundle.manifest.name} takes one sample at a time", "measure it without --batch"
        )
    meter = meter or NoMeter("no meter was asked for")
    manifest, total = bundle.manifest, 6
    before = read_clock()
    base_mb = _resident_mb()
    progress("load the segments", 0, total)
    memory_mb = _load(chain, samples.inputs[0])
    progress("time the segments", 1, total)
    times = _segment_times(chain, samples.inputs[0], max_seconds, slowdown)
    head_ms = slowdown * measure_head(bundle, chain, samples.inputs, max_seconds=max_seconds)
    progress("time batches", 2, total)
    batch_ms = {b: _batch_times(bundle, chain, samples.inputs[0], b) for b in batches if b != 1}
    progress("time the layers", 3, total)
    spent = _layer_ms(chain, samples.inputs[0])
    progress("measure energy", 4, total)
    medians = [statistics.median(found) for found in times]
    energy = measure_energy(chain, samples.inputs[0], meter, medians, slowdown)
    progress("measure the codecs", 5, total)
    notes: list[str] = []
    codecs = tuple(codecs) or measure_codecs(
        bundle,
        chain,
        codecs_of(manifest, bundle.folder),
        samples,
        max_seconds=max_seconds,
        slowdown=slowdown,
        tell=notes.append,
    )
    progress("done", total, total)
    measured = tuple(
        SegmentTime(
            id=index,
            ms=statistics.median(found),
            p95_ms=float(np.percentile(found, 95)),
            spread_ms=float(np.subtract(*np.percentile(found, [75, 25]))),
            samples=len(found),
            memory_mb=memory_mb[index],
            mj=None if energy.mj is None else energy.mj[index],
            batch_ms={1: statistics.median(found)}
            | {batch: slowdown * ms[index] for batch, ms in batch_ms.items()},
        )
        for index, found in enumerate(times)
    )
    # A meter was read while segments ran, and no head: where it is modelled, both are.
    head_mj = (energy.busy_w or 0.0) * head_ms if energy.kind == "modelled" else 0.0
    notes += clock_notes(before, read_clock())
    if energy.warning:
        notes.append(energy.warning)
    return Profile(
        device=f"{platform.node()} ({processor_name()})"
        + ("" if chain.device == "cpu" else f", {chain.device}"),
        runtime=chain.runtime,
        threads=chain.threads,
        cores=os.cpu_count() if chain.device == "cpu" else None,
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        digest=bundle.digest,
        versions=versions(),
        segments=(*measured[:-1], measured[-1].longer(head_ms, head_mj)),
        layers=layer_times(manifest.layers, measured, spent),
        head_ms=head_ms,
        codecs=codecs,
        pictures=samples.description,
        base_mb=base_mb,
        energy_kind=energy.kind,
        energy_meter=energy.meter,
        busy_w=energy.busy_w,
        idle_w=energy.idle_w,
        notes=tuple(notes),
        emulated=f"slowed down {slowdown:g} times" if slowdown > 1 else "",
    )


def warm_up(bundle: Bundle, chain: SegmentChain) -> None:
    """Loads every segment and lets it run once."""
    _load(chain, synthetic_samples(bundle.manifest).inputs[0])


def measure_server(
    bundle: Bundle,
    chain: SegmentChain,
    codecs: CodecSource,
    max_seconds: float = 2.0,
    decode: DecodeOne = decode_here,
) -> CloudTimes:
    """What a worker tells of its speed, in little more than `max_seconds`, and loaded by then.

    `decode` is how it decodes.
    """
    samples = synthetic_samples(bundle.manifest)
    samples = replace(samples, inputs=samples.inputs[:1])
    _load(chain, samples.inputs[0])
    times = _segment_times(chain, samples.inputs[0], max_seconds)
    head_ms = measure_head(bundle, chain, samples.inputs, max_seconds=max_seconds)
    times[-1] = [ms + head_ms for ms in times[-1]]
    decoding = measure_codecs(
        bundle, chain, codecs, samples, max_seconds=max_seconds, decode=decode
    )
    return CloudTimes(
        segment_ms=tuple(statistics.median(found) for found in times),
        segment_p95_ms=tuple(float(np.percentile(found, 95)) for found in times),
        decode_ms={(codec.boundary, codec.codec): codec.decode_ms for codec in decoding},
    )


def _load(chain: SegmentChain, inputs: Mapping[str, Array]) -> list[float]:
    """Megabytes that each segment added to this process by being loaded and run once."""
    state, found = chain.place(inputs), []
    for index in range(len(chain)):
        before = _resident_mb()
        chain.load(index)
        state |= chain.step(index, state)
        chain.wait()
        found.append(max(_resident_mb() - before, 0.0))
    return found


def _run_all(
    chain: SegmentChain, state: State, times: Sequence[list[float]], slower: Slowdown
) -> None:
    def step(index: int) -> State:
        outputs = chain.step(index, state)
        chain.wait()
        return outputs

    time.sleep(PAUSE_S)
    for index, samples in enumerate(times):
        start = time.perf_counter()
        outputs = slower.stretch(index, step, index)
        samples.append(1e3 * (time.perf_counter() - start))
        state.update(outputs)


def _segment_times(
    chain: SegmentChain,
    inputs: Mapping[str, Array],
    max_seconds: float,
    slowdown: float = 1.0,
) -> list[list[float]]:
    """Milliseconds of every run of every segment, warm-up left out."""
    times: list[list[float]] = [[] for _ in range(len(chain))]
    deadline = time.perf_counter() + max_seconds
    slower = Slowdown(slowdown)
    for done in range(WARM_UP_ROUNDS + MAX_ROUNDS):
        _run_all(chain, chain.place(inputs), times, slower)
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
    return abs(first - second) <= max(STABLE * max(first, second), STABLE_MS)


def _batch_times(
    bundle: Bundle, chain: SegmentChain, inputs: Mapping[str, Array], batch: int
) -> list[float]:
    """Median milliseconds of each segment for a batch of that many samples."""
    specs = {spec.name: spec for spec in bundle.manifest.boundaries[0].tensors}
    together = {
        name: np.concatenate([array] * batch, specs[name].batch_dim)
        for name, array in inputs.items()
    }
    times: list[list[float]] = [[] for _ in range(len(chain))]
    for _ in range(1 + BATCH_ROUNDS):
        _run_all(chain, chain.place(together), times, Slowdown(1))
    return [statistics.median(samples[1:]) for samples in times]


def _layer_ms(chain: SegmentChain, inputs: Mapping[str, Array]) -> list[dict[str, float]]:
    state, found = chain.place(inputs), []
    for index in range(len(chain)):
        found.append(chain.layer_ms(index, state, LAYER_ROUNDS))
        state |= chain.step(index, state)
    return found


# The two imports below take a tenth of the edge's start, and most starts measure nothing.
def _resident_mb() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss) / 1e6


def versions() -> dict[str, str]:
    """What is installed of the packages that figures depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def processor_name() -> str:
    """What this machine calls itself: a board's model, or a processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = Path("/proc/device-tree/model")  # what a board calls itself
    if model.exists():
        names.insert(0, model.read_text(encoding="utf-8").rstrip("\0"))
    return names[0] if names else platform.machine()
