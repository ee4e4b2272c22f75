"""The plan: which boundary, which codec, which runtime."""

from __future__ import annotations

from dataclasses import dataclass

from splitpoint.codec import codec_named

from .bundle import Manifest
from .errors import PlanError

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


def named_plan(manifest: Manifest, split: str, codec: str = "auto") -> Plan:
    """The plan that a user named: a split of `input`, `local` or a number.

    The codec `auto` is jpeg for pictures and q8 for activations. Raises `PlanError` naming what
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
        names = manifest.boundaries[boundary].codecs
        codec = next((name for name in ("jpeg", "q8") if name in names), "raw")
    elif not any(map(codec_named(codec).supports, tensors)):
        raise PlanError(
            f"codec {codec} cannot carry boundary {boundary}",
            f"use one of {', '.join(manifest.boundaries[boundary].codecs)}",
        )
    return Plan(boundary=boundary, codec=codec, why=why)


def name_of(boundary: int | None, codec: str) -> str:
    """A candidate in words: `all on the device`, `the input as jpeg`, `boundary 3 as q8`."""
    if boundary is None:
        return "nothing"
    if codec == NO_CODEC:
        return "all on the device"
    return f"the input as {codec}" if boundary == 0 else f"boundary {boundary} as {codec}"
