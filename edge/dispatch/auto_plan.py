"""The plan by measurement: profiles this device once, and plans for the link and load of now."""

from __future__ import annotations

import hashlib
import logging
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from splitpoint.partition.bundle.bundle import Bundle, Manifest
from splitpoint.partition.bundle.samples import Samples, photo_samples, synthetic_samples
from splitpoint.partition.bundle.segment_files import INT8, ONNX, TORCH
from splitpoint.partition.energy.meter import EnergyMeter
from splitpoint.partition.energy.power_model import PowerModel
from splitpoint.partition.energy.radio import radio_for
from splitpoint.partition.errors import PictureError, PlanError
from splitpoint.partition.kept_files import keep_newest
from splitpoint.partition.plan.costs import CostTable, cost_table
from splitpoint.partition.plan.link import Link
from splitpoint.partition.plan.objective import Constraints, Objective
from splitpoint.partition.plan.plan import check_codec_to_plan_with
from splitpoint.partition.plan.planner import Report, make_plan
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.partition.profile.measure import measure, processor_name, versions
from splitpoint.partition.profile.profile import Profile, ProfileError, load_profile
from splitpoint.partition.run.open_chain import open_chain
from splitpoint.proto import splitpoint_pb2 as pb

log = logging.getLogger("splitpoint.edge")

PHOTOS, MAX_SECONDS = 12, 5.0
MOST_KEPT = 64  # profiles: an upgrade leaves those of the old versions behind
# The packages whose version says whether a kept profile still holds: segments run in one of
# `COMPUTES`, codecs in numpy.
PRODUCT, CODES = "splitpoint", "numpy"
COMPUTES = {ONNX: "onnxruntime", INT8: "onnxruntime", TORCH: "torch"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoPlan:
    """How to plan. `link` None means to probe it; `profile` None means to measure the device.

    `pictures` are typical inputs, for the codecs' sizes. `meter` measures energy, `power` models
    it where nothing can be measured; without both an energy objective is refused.
    """

    objective: Objective = field(default_factory=lambda: Objective({"latency": 1.0}))
    constraints: Constraints = field(default_factory=Constraints)
    link: Link | None = None
    profile: Path | None = None
    pictures: tuple[Path, ...] = ()
    meter: EnergyMeter | None = None
    power: PowerModel | None = None
    radio: str = ""
    progress: Callable[[str, int, int], None] = lambda what, done, total: None


def runtimes_to_measure(manifest: Manifest, runtime: str) -> tuple[str, ...]:
    """The runtimes that a plan may choose from: the one that is asked for, or all for `auto`."""
    if runtime != "auto":
        return (runtime,)
    return (ONNX, INT8) if manifest.has_int8 else (ONNX,)


def device_profiles(
    bundle: Bundle,
    auto: AutoPlan,
    runtimes: Sequence[str] = (ONNX,),
    *,
    providers: Sequence[str] = (),
    folder: Path,
    threads: int,
    slowdown: float,
) -> list[Profile]:
    """The given profile, or for each runtime the one that is kept in `folder` or a new one.

    New ones are then kept. Raises `ProfileError` for a given profile of another bundle or of a
    runtime that is not among `runtimes`.
    """
    if auto.profile is not None:
        profile = load_profile(auto.profile, bundle.digest)
        if profile.runtime not in runtimes:
            raise ProfileError(
                f"{auto.profile} was measured in {profile.runtime}, this agent runs "
                f"{' or '.join(runtimes)}",
                f"measure again with `splitpoint profile --runtime {runtimes[0]}`",
            )
        return [profile]
    meter = "none" if auto.meter is None else auto.meter.name
    on_photos = bool(auto.pictures) and bundle.manifest.picture is not None
    installed = versions()
    found: list[Profile] = []
    for runtime in runtimes:
        chain = open_chain(bundle, runtime, threads=threads, providers=providers)
        computes = [installed.get(name, "") for name in (PRODUCT, COMPUTES[runtime], CODES)]
        conditions = (
            f"{platform.node()} {processor_name()} {threads} {slowdown:g} {meter} "
            f"{on_photos} {runtime} {chain.device} {' '.join(computes)}"
        )
        key = hashlib.sha256(conditions.encode()).hexdigest()[:12]
        kept = folder / f"profile-{bundle.digest[:16]}-{key}.json"
        if kept.exists():
            try:
                found.append(load_profile(kept, bundle.digest))
                continue
            except ProfileError as error:
                log.warning("%s; measuring again", error)
        profile = measure(
            bundle,
            chain,
            _samples(bundle, auto),
            meter=auto.meter,
            slowdown=slowdown,
            max_seconds=MAX_SECONDS,
            codecs=found[0].codecs if found else (),
            progress=auto.progress,
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            profile.save(kept)
            keep_newest(folder, "profile-*.json", MOST_KEPT)
        except (ProfileError, OSError) as error:
            log.warning("%s; it will be measured again next time", error)
        found.append(profile)
    return found


def _samples(bundle: Bundle, auto: AutoPlan) -> Samples:
    if auto.pictures and bundle.manifest.picture is not None:
        try:
            return photo_samples(bundle.manifest, auto.pictures, PHOTOS)
        except PictureError as error:
            log.warning("%s; measuring with synthetic pictures", error)
    return synthetic_samples(bundle.manifest)


def cloud_times(info: pb.ModelInfo) -> CloudTimes:
    """What the worker says of its own speed; `PlanError` where it says nothing sensible."""
    numbers = [*info.segment_ms, *info.segment_p95_ms, *(entry.ms for entry in info.decode)]
    if not all(0 <= number < 1e9 for number in numbers):
        raise PlanError("the worker's own times make no sense", "restart it, or give --split N")
    return CloudTimes(
        segment_ms=tuple(info.segment_ms),
        segment_p95_ms=tuple(info.segment_p95_ms),
        decode_ms={(entry.boundary, entry.codec): entry.ms for entry in info.decode},
    )


def candidates(
    bundle: Bundle, auto: AutoPlan, profiles: Sequence[Profile], cloud: CloudTimes, codec: str
) -> CostTable:
    """What every split would cost; `codec` "auto" leaves the choice of the codec open.

    Energy is what frames add: an agent's device is on all the time. Raises `PlanError` or
    `CodecError` for a codec in which nothing can be sent.
    """
    if codec != "auto":
        check_codec_to_plan_with(codec)
    table = cost_table(
        bundle.manifest,
        profiles,
        cloud,
        radio=radio_for(auto.radio),
        power=auto.power,
        codecs=None if codec == "auto" else frozenset((codec,)),
    )
    if codec != "auto" and not table.sends.any():
        raise PlanError(
            f"{codec[:40]} carries no boundary of {bundle.manifest.name}, or what it loses there "
            "is not known",
            "see `splitpoint inspect` for what does, or leave --codec to auto",
        )
    return table.above_idle()


def plan_now(bundle: Bundle, auto: AutoPlan, table: CostTable, load: pb.Load, link: Link) -> Report:
    """The plan for `link` and the worker's present load."""
    return make_plan(
        bundle.manifest,
        table,
        link,
        objective=auto.objective,
        constraints=auto.constraints,
        queue_ms=load.queue_ms,
    )
