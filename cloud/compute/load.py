"""From a bundle on disk to a model that is loaded, warm, and whose times are known."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from splitpoint.codec import CodecSource
from splitpoint.partition.bundle.bundle import MANIFEST, Bundle, open_bundle
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.partition.profile.measure import measure_server, warm_up
from splitpoint.partition.profile.profile import Profile
from splitpoint.partition.run.chain import SegmentChain
from splitpoint.partition.run.codecs import codecs_of, ready_to_decode
from splitpoint.partition.run.read_indexes import read_indexes
from splitpoint.proto.frames import Boundaries

from ..errors import DeviceLost, ServeError
from ..gpu.compiler import Compiler
from ..gpu.compilers_here import compilers_here
from ..gpu.device_errors import is_device_lost, is_out_of_memory
from ..gpu.memory import check_fits, too_large
from ..options import AUTO, EAGER, WorkerOptions
from .choose_chain import captured_sizes, choose_chain, form_of
from .interruptible_chain import Check, InterruptibleChain
from .kept_times import KeptTimes, TimingConditions, conditions_here
from .loaded_model import LoadedModel
from .measure_batches import expected_s, measure_batches, run_once
from .runner import Runner
from .timing import Timing
from .unpack import UnpackingChain, decode_of

Progress = Callable[[str], None]

AGAIN_S = 24 * 3600.0  # what was measured so long ago is measured again when there is time
SERVER_S = 4.0  # what measuring one sample and the codecs takes at most
COMPILED = "compiled"  # the folder beside the times in which compilers keep what they made


def load_served_model(
    folder: Path,
    device: torch.device,
    options: WorkerOptions,
    *,
    profiles: Mapping[str, Profile],
    progress: Progress,
    check: Check = lambda: None,
) -> LoadedModel:
    """Loads the bundle in `folder`, with the times that were kept, or are measured now.

    A profile of it, out of `profiles`, is announced. What `check` raises, between two segments,
    ends it. Raises `BundleError` for a damaged bundle, `ServeError` for one that does not fit here,
    `TaskError` for one whose answers a function makes that nobody has allowed here.
    """
    check()
    runtime, precision, max_batch = options.runtime, options.precision, options.max_batch
    kept = KeptTimes(options.times, measure=options.measure)
    bundle = open_bundle(folder)
    manifest = bundle.manifest
    manifest.task.check_allowed()
    max_batch = 1 if manifest.boundaries[0].one_sample else max_batch
    progress(f"loading {manifest.name} ({bundle.digest[:12]})")
    try:
        check_fits(bundle, device, options.gpu_memory_fraction)
        profile = profiles.get(bundle.digest)
        if profile is not None and runtime == AUTO:
            runtime = replace(options, runtime=profile.runtime).runtime  # refuses what none runs
        compilers: Mapping[str, Compiler] = {}
        if options.tune_minutes:
            compilers = compilers_here(options.times / COMPILED, max_batch)
            if not compilers:
                progress(f"{manifest.name}: no compiler is here: neither Triton nor TensorRT")
        conditions = conditions_here(
            bundle,
            device,
            runtime=runtime,
            precision=precision,
            max_batch=max_batch,
            compilers=list(compilers),
            tune_minutes=options.tune_minutes,
            profile=profile is not None,
        )
        timing = kept.find(conditions, len(manifest.segments))
        if timing is not None:
            runtime = timing.runtime
        chain = choose_chain(
            bundle,
            device,
            runtime=runtime,
            precision=precision,
            form=None if timing is None else timing.form,
            max_batch=max_batch,
            compilers=compilers,
            tune_s=60 * options.tune_minutes,
            progress=progress,
            check=check,
        )
        if profile is not None:
            _check_profile(profile, manifest.name, chain.runtime)
        codecs = codecs_of(manifest, bundle.folder)
        ready_to_decode(manifest, codecs, decoders=not isinstance(chain, UnpackingChain))
        loaded = _Loaded(
            bundle=bundle,
            chain=chain,
            codecs=codecs,
            sizes=captured_sizes(chain),
            profile=profile,
            conditions=conditions,
            kept=kept,
        )
        if timing is not None:  # a compiler may have failed that did not before
            timing = loaded.warmed(timing, check) if form_of(chain) == timing.form else None
        is_known = timing is not None
        timing = timing or loaded.measure(check, progress)
    except Exception as error:
        if is_device_lost(error):
            raise DeviceLost(
                f"{device} failed while {manifest.name} was loaded ({type(error).__name__})",
                "start the worker again; if it goes on, look at the GPU with nvidia-smi",
            ) from error
        if not is_out_of_memory(error):
            raise
        raise too_large(bundle, device, options.gpu_memory_fraction) from error
    progress(f"{manifest.name}: {_speed(timing, chain)}{', as measured before' * is_known}")
    is_fresh = timing.batches.steady and abs(time.time() - timing.at_s) < AGAIN_S
    return LoadedModel(
        bundle=bundle,
        runner=Runner(chain, loaded.boundaries, loaded.sizes),
        times=timing.announced,
        batch_times=timing.batches.times,
        boundaries=loaded.boundaries,
        codecs=loaded.codecs,
        manifest_bytes=bundle.path(MANIFEST).stat().st_size,
        indexes=read_indexes(bundle),
        measure_again=None if is_fresh else loaded.measure_again,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """A model that is about to be served, and can be measured."""

    bundle: Bundle
    chain: SegmentChain
    codecs: CodecSource
    sizes: Sequence[int]
    profile: Profile | None
    conditions: TimingConditions
    kept: KeptTimes

    @property
    def boundaries(self) -> Boundaries:
        """Their tensors."""
        return [boundary.tensors for boundary in self.bundle.manifest.boundaries]

    def measure(
        self, check: Check, progress: Progress = lambda line: None, *, again: bool = False
    ) -> Timing:
        """Times everything, and keeps that: of what is measured `again`, only what is steady."""
        name, max_batch = self.bundle.manifest.name, self.conditions.max_batch
        chain = InterruptibleChain(self.chain, check)
        warm_up(self.bundle, chain)
        runner = Runner(chain, self.boundaries, self.sizes)
        start = time.perf_counter()
        run_once(self.bundle, runner, 1)
        alone_s = time.perf_counter() - start
        seconds = expected_s(alone_s, max_batch) + (SERVER_S if self.profile is None else 0.0)
        progress(f"{name}: measuring what segments and batches take here, about {seconds:.0f} s")
        if self.profile is None:
            announced = measure_server(
                self.bundle, chain, self.codecs, decode=decode_of(self.chain)
            )
        else:
            announced = CloudTimes.from_profile(self.profile)
        timing = Timing(
            runtime=self.chain.runtime,
            form=form_of(self.chain),
            announced=announced,
            batches=measure_batches(
                self.bundle,
                runner,
                max(self.sizes, default=max_batch),  # what is larger would run in pieces
                lambda size: progress(f"{name}: timing batches of {size}"),
            ),
            at_s=time.time(),
        )
        if timing.batches.steady or not again:
            self.kept.keep(self.conditions, timing)
        return timing

    def measure_again(self, check: Check) -> Timing | None:
        """The same on a worker that serves; None where something else took the device's time."""
        timing = self.measure(check, again=True)
        return timing if timing.batches.steady else None

    def warmed(self, timing: Timing, check: Check) -> Timing | None:
        """Has run whatever frames will need; `timing` with what a profile says instead.

        None where memory does not suffice any more for its batches.
        """
        chain = InterruptibleChain(self.chain, check)
        warm_up(self.bundle, chain)
        try:
            run_once(self.bundle, Runner(chain, self.boundaries, self.sizes), timing.batches.limit)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None
        if self.profile is None:
            return timing
        return timing.announcing(CloudTimes.from_profile(self.profile))


def _speed(timing: Timing, chain: SegmentChain) -> str:
    compiler = form_of(chain).compiler
    found = timing.batches.round_s
    most = max(found)
    return (
        f"{1e3 * found[1]:.1f} ms a frame, {1e3 * found[most] / most:.1f} ms in batches of {most}, "
        f"in {chain.runtime if compiler == EAGER else compiler} on {chain.device}"
    )


def _check_profile(profile: Profile, name: str, runtime: str) -> None:
    if profile.runtime != runtime:
        raise ServeError(
            f"the profile of {name} was measured in {profile.runtime}",
            f"measure it with `splitpoint profile --runtime {runtime}`, or serve with "
            f"--runtime {profile.runtime}",
        )
