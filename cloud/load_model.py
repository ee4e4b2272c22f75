"""From a bundle on disk to a model that is loaded, warm and timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
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
from .measure_batches import measure_batches
from .memory import is_out_of_memory
from .request import ServedModel
from .runner import Runner

AUTO = "auto"
TRIAL_BATCH, TRIAL_ROUNDS = 4, 3


def load_model(
    folder: Path,
    device: torch.device,
    *,
    runtime: str = AUTO,
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
        chain = _chain(bundle, device, runtime)
        codecs = codecs_of(manifest, bundle.folder)
        profile = profiles.pop(bundle.digest, None)
        if profile is None:
            times = measure_server(bundle, chain, codecs)
        else:
            _check(profile, manifest.name, chain.runtime)
            warm_up(bundle, chain)
            times = CloudTimes.from_profile(profile)
        runner = Runner(chain, boundaries)
        batch_times = measure_batches(
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
    most = batch_times.max_batch
    each_ms = 1e3 * batch_times.suffix_s(0, most) / most
    progress(
        f"{manifest.name}: {1e3 * batch_times.suffix_s(0, 1):.1f} ms a frame, {each_ms:.1f} ms in "
        f"batches of {most}, in {chain.runtime} on {chain.device}"
    )
    return ServedModel(
        bundle=bundle,
        runner=runner,
        times=times,
        batch_times=batch_times,
        boundaries=boundaries,
        codecs=codecs,
    )


def _chain(bundle: Bundle, device: torch.device, runtime: str) -> SegmentChain:
    """The segments in `runtime`, or in the faster one: on a GPU that is torch."""
    if runtime == TORCH or device.type != "cpu":
        return TorchChain(bundle, device)
    if runtime == ONNX:
        return OnnxChain(bundle)
    chains: list[SegmentChain] = [OnnxChain(bundle), TorchChain(bundle, device)]
    return min(chains, key=lambda chain: _trial_s(bundle, chain))


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
            state = runner.step(segment, state)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _check(profile: Profile, name: str, runtime: str) -> None:
    if profile.runtime != runtime:
        raise ServeError(
            f"the profile of {name} was measured in {profile.runtime}",
            f"measure it with `splitpoint profile --runtime {runtime}`, or serve with "
            f"--runtime {profile.runtime}",
        )
