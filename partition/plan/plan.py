"""The plan: which boundary, which codec, which runtime."""

from __future__ import annotations

from dataclasses import dataclass

from splitpoint.codec import CodecSource, codec_named
from splitpoint.codec.codec_set import CALIBRATED, FKT, FOR_STREAMS, LEARNED, OF_STREAMS

from ..bundle.bundle import Boundary, Manifest
from ..bundle.ladder import relative_loss
from ..errors import PlanError

NO_CODEC = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The device runs segments [0, boundary); `codec` carries what crosses.

    The last boundary means that everything runs on the device and nothing is sent; its codec is
    "none". `why` says in words how the plan came about.
    """

    boundary: int
    codec: str
    runtime: str = "onnxruntime"
    why: str = ""


def named_plan(manifest: Manifest, codecs: CodecSource, split: str, codec: str = "auto") -> Plan:
    """The plan that a user named: a split of `input`, `local` or a number.

    The codec `auto` is jpeg for pictures, and for activations the learned codec or the calibrated
    transform codec at the level that `learned` or `fkt` alone stands for, whichever sends fewer
    bytes, then q8, fp16 or raw: the first that, as far as calibration has measured it, loses no
    more than is usual (see `relative_loss`). Raises `PlanError` naming what
    the bundle has.
    """
    last = len(manifest.boundaries) - 1
    if split in ("input", "local"):
        boundary = {"input": 0, "local": last}[split]
    elif split.isascii() and split.isdecimal() and int(split) <= last:
        boundary = int(split)
    else:
        raise PlanError(
            f"{manifest.name} has no boundary {split!r}",
            f"use auto, input, local, or a number from 0 to {last}",
        )
    why = f"--split {split}"
    if boundary == last:
        return Plan(boundary=boundary, codec=NO_CODEC, why=why)
    tensors = manifest.boundaries[boundary].tensors
    if codec == "auto":
        usual = ("jpeg", *_default_levels(manifest, boundary), "q8", "fp16")
        codec = next((name for name in usual if _may_be_usual(manifest, boundary, name)), "raw")
    else:
        for family in CALIBRATED:
            if codec in (family, FOR_STREAMS[family]):
                codec = default_level(manifest, boundary, family).replace(family, codec)
                break
    why_not = manifest.boundaries[boundary].left_out.get(codec)
    if why_not is not None:
        raise PlanError(
            f"codec {codec} is left out at boundary {boundary} ({why_not})",
            f"use one of {', '.join(manifest.boundaries[boundary].codecs)}",
        )
    if not any(map(codecs.named(codec, boundary).supports, tensors)):
        raise PlanError(
            f"codec {codec} cannot carry boundary {boundary}",
            f"use one of {', '.join(manifest.boundaries[boundary].codecs)}",
        )
    return Plan(boundary=boundary, codec=codec, why=why)


def check_codec_to_plan_with(codec: str) -> None:
    """Raises `PlanError` for a codec of streams, and `CodecError` for one that does not exist.

    What a frame of a stream takes depends on those before it, so that nothing can be predicted.
    """
    base = codec.partition("@")[0]
    if base in OF_STREAMS:
        raise PlanError(
            f"{codec[:40]} sends what has changed since the last frame, and a plan is made for "
            "frames by themselves",
            f"plan with {OF_STREAMS[base]}, or name a boundary: `run --split N --codec {base}`",
        )
    if base not in CALIBRATED:
        codec_named(codec)


def _may_be_usual(manifest: Manifest, boundary: int, codec: str) -> bool:
    found = manifest.boundaries[boundary]
    level, jpeg = found.level(codec), manifest.boundaries[0].level("jpeg")
    small = codec == "jpeg" or level is None or relative_loss(level, jpeg) <= 1
    return small and codec in found.codecs


def default_level(manifest: Manifest, boundary: int, family: str = FKT) -> str:
    """The coarsest level of `family` that, with all finer ones, loses no more than is usual.

    See `relative_loss`. The finest where that is none.
    """
    jpeg = manifest.boundaries[0].level("jpeg")
    levels = manifest.boundaries[boundary].levels_of(family)
    if not levels:
        return f"{family}@1"  # which a boundary without tables then refuses, saying what to do
    chosen = levels[-1]
    for level in levels[::-1]:
        if relative_loss(level, jpeg) > 1:
            break
        chosen = level
    return chosen.codec


def _default_levels(manifest: Manifest, boundary: int) -> list[str]:
    """Of each calibrated codec that the boundary has, the one that sends least first."""
    found = manifest.boundaries[boundary]
    names = [default_level(manifest, boundary, name) for name in (LEARNED, FKT)]
    levels = [level for level in map(found.level, names) if level is not None]
    return [level.codec for level in sorted(levels, key=lambda level: level.nbytes)]


def coarser(boundary: Boundary, codec: str) -> list[str]:
    """The codec itself and its calibrated levels of fewer bytes, the largest of them first.

    Of a codec of streams they are those for frames by themselves, which leave its memory alone.
    """
    family_name, _, number = codec.partition("@")
    family_name = OF_STREAMS.get(family_name, family_name)
    own = boundary.level(f"{family_name}@{number}" if number else family_name)
    if own is None:
        return [codec]
    family = boundary.levels_of(family_name)
    levels = [level for level in family if level.nbytes < own.nbytes]
    # Of two that are equal, the finer one, which stands later on the ladder, comes first.
    levels = sorted(levels[::-1], key=lambda level: -level.nbytes)
    return [codec, *(level.codec for level in levels)]


def name_of(boundary: int | None, codec: str) -> str:
    """A candidate in words: `all on the device`, `the input as jpeg`, `boundary 3 as q8`."""
    if boundary is None:
        return "nothing"
    if codec == NO_CODEC:
        return "all on the device"
    return f"the input as {codec}" if boundary == 0 else f"boundary {boundary} as {codec}"
