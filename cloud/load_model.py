"""From a bundle on disk to a model that is loaded, warm and timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from splitpoint.codec import Array
from splitpoint.partition.bundle import Bundle, open_bundle
from splitpoint.partition.chain import SegmentChain
from splitpoint.partition.codec_tables import codecs_of
from splitpoint.partition.costs import CloudTimes
from splitpoint.partition.measure import measure_server, warm_up
from splitpoint.partition.onnx_chain import OnnxChain
from splitpoint.partition.profile import Profile
from splitpoint.partition.runtimes import ONNX, TORCH
from splitpoint.partition.samples import synthetic_samples
from splitpoint.partition.torch_chain import TorchChain

from .errors import ServeError
from .gpu_chain import GpuChain
from .measure_batches import measure_batches
from .memory import is_out_of_memory
from .precision import AUTO, choose_precision
from .request import ServedModel
from .runner import Runner

TRIAL_BATCH, TRIAL_ROUNDS = 4, 3


def load_model(
    folder: Path,
    device: torch.device,
    *,
    runtime: str = AUTO,
    precision: str = AUTO,
    max_batch: int,
    profiles: dict[str, Profile],
    progress: Callable[[str], None],
) -> ServedModel:
    """Loads and times the bundle in `folder`; a profile of it, out of `profiles`, is announced.

    Raises `BundleError` for a damaged bundle, `ServeError` for one that does not fit here.
    """
    bundle = open_bundle(folder)
    manifest = bundle.manifest
    progress(f"loading {manifest.name} ({bundle.digest[:12]})")
    boundaries = [boundary.tensors for boundary in manifest.boundaries]
    try:
        profile = profiles.get(bundle.digest)
        if profile is not None and runtime == AUTO:
            runtime = profile.runtime
        chain, sizes = _chain(bundle, device, runtime), _sizes(device, max_batch)
        if isinstance(chain, GpuChain):
            _settle_precision(bundle, chain, precision, progress)
        codecs = codecs_of(manifest, bundle.folder)
        if profile is None:
            times = measure_server(bundle, chain, codecs)
        else:
            _check(profile, manifest.name, chain.runtime)
            warm_up(bundle, chain)
            times = CloudTimes.from_profile(profile)
        runner = Runner(chain, boundaries, sizes)
        measured = measure_batches(
            bundle,
            runner,
            max_batch,
            lambda size: progress(f"{manifest.name}: timing batches of {size}"),
        )
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ServeError(
            f"{manifest.name} does not fit into the memory of {device}",
            "serve fewer models, or use --device cpu",
        ) from error
    most = max(measured.round_s)
    each_ms = 1e3 * measured.round_s[most] / most
    progress(
        f"{manifest.name}: {1e3 * measured.round_s[1]:.1f} ms a frame, {each_ms:.1f} ms in "
        f"batches of {most}, in {chain.runtime} on {chain.device}"
    )
    return ServedModel(
        bundle=bundle,
        runner=runner,
        times=times,
        batch_times=measured.times,
        boundaries=boundaries,
        codecs=codecs,
    )


def _chain(bundle: Bundle, device: torch.device, runtime: str) -> SegmentChain:
    """The segments in `runtime`, or in the faster one: on a GPU that is torch."""
    if runtime not in (AUTO, TORCH, ONNX):
        raise ServeError(f"unknown runtime {runtime!r}", f"use {AUTO}, {TORCH} or {ONNX}")
    if device.type != "cpu":
        if runtime == ONNX:
            raise ServeError("onnxruntime serves on a CPU only", "use --runtime torch on a GPU")
        return GpuChain(bundle, device)
    if runtime == TORCH:
        return TorchChain(bundle, device)
    if runtime == ONNX:
        return OnnxChain(bundle)
    chains: list[SegmentChain] = [OnnxChain(bundle), TorchChain(bundle, device)]
    return min(chains, key=lambda chain: _trial_s(bundle, chain))


def _sizes(device: torch.device, max_batch: int) -> list[int]:
    """The batch sizes that are captured on a GPU; a CPU takes any."""
    if device.type == "cpu":
        return []
    powers = [1 << power for power in range(max_batch.bit_length())]
    return sorted({*(size for size in powers if size <= max_batch), max_batch})


def _settle_precision(
    bundle: Bundle, chain: GpuChain, precision: str, progress: Callable[[str], None]
) -> None:
    """What was asked for, or the fastest that is close enough, from a small batch."""
    if precision != AUTO:
        chain.use(precision)
        return
    boundaries = [boundary.tensors for boundary in bundle.manifest.boundaries]
    runner, values = Runner(chain, boundaries), synthetic_samples(bundle.manifest).inputs[0]

    def run(name: str) -> tuple[dict[str, Array], float]:
        chain.use(name)
        seconds = _trial_s(bundle, chain)
        state = runner.enter(0, [values])
        for segment in range(len(chain)):
            state = runner.step(segment, state, 1)
        return runner.answers(state, [1])[0], seconds

    chosen, found = choose_precision(run)
    chain.use(chosen)
    progress(
        f"{bundle.manifest.name}: precision {chosen}, off by {100 * found[chosen][0]:.2g} % of the "
        "largest output"
    )


def _trial_s(bundle: Bundle, chain: SegmentChain) -> float:
    """Seconds for a small batch, from the input to the end."""
    runner = Runner(chain, [boundary.tensors for boundary in bundle.manifest.boundaries])
    for segment in range(len(chain)):
        chain.load(segment)
    values = synthetic_samples(bundle.manifest).inputs[0]
    times = []
    for _ in range(1 + TRIAL_ROUNDS):
        start = time.perf_counter()
        state = runner.enter(0, [values] * TRIAL_BATCH)
        for segment in range(len(chain)):
            state = runner.step(segment, state, TRIAL_BATCH)
        chain.wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _check(profile: Profile, name: str, runtime: str) -> None:
    if profile.runtime != runtime:
        raise ServeError(
            f"the profile of {name} was measured in {profile.runtime}",
            f"measure it with `splitpoint profile --runtime {runtime}`, or serve with "
            f"--runtime {profile.runtime}",
        )
