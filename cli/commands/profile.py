"""`splitpoint profile`."""

from __future__ import annotations

import importlib.util
import os
import platform
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from splitpoint.codec import SplitpointError
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.bundle.samples import find_pictures, photo_samples, synthetic_samples
from splitpoint.partition.bundle.segment_files import INT8, ONNX, TORCH
from splitpoint.partition.energy.find import PowerModel, choose_meter
from splitpoint.partition.profile.devices import device_named, guess_device
from splitpoint.partition.profile.measure import measure, processor_name
from splitpoint.partition.profile.profile import Profile
from splitpoint.partition.run.chain import SegmentChain
from splitpoint.partition.run.open_chain import open_chain
from splitpoint.partition.tasks.user_head import allow_head as trust_head

from ..shell.output import Steps, human_bytes, human_count, out, print_json, say
from ..shell.shared_options import (
    AllowHead,
    BundleArgument,
    Energy,
    Json,
    PowerModelName,
    Providers,
)

CHOICES = ("auto", ONNX, INT8, TORCH)


class ProfileUsageError(SplitpointError):
    """An option of `splitpoint profile` that cannot be understood."""


def profile(
    bundle: BundleArgument,
    allow_head: AllowHead = None,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Write the profile here, as JSON.")
    ] = None,
    runtime: Annotated[
        str,
        typer.Option(
            help="onnxruntime or onnxruntime-int8 (the edge's), torch (the worker's), or auto: "
            "torch on CUDA."
        ),
    ] = "auto",
    device: Annotated[str, typer.Option(help="torch's device: auto, cpu or cuda.")] = "auto",
    providers: Providers = "",
    threads: Annotated[int, typer.Option(help="The runtime's threads, 0: its default.", min=0)] = 0,
    batch: Annotated[
        str, typer.Option(help="Batch sizes to time the segments with, as in 1,2,4,8.")
    ] = "1",
    pictures: Annotated[
        str,
        typer.Option(
            help="Photos (file, glob or folder) to measure the codecs' bytes and answers on.",
            show_default="synthetic ones",
        ),
    ] = "",
    energy: Energy = "auto",
    power_model: PowerModelName = "",
    slowdown: Annotated[
        float, typer.Option(help="Wait after each step, to play a slower device (emulated).", min=1)
    ] = 1.0,
    max_seconds: Annotated[
        float, typer.Option(help="Stop after this even if a median still moves.", min=0.1)
    ] = 30.0,
    json_: Json = False,
) -> None:
    """Measure this device: time and energy of every segment, layer and codec of a bundle.

    Needs no torch, unless that is the runtime. Segments are timed until their medians are stable.
    """
    batches = _batches(batch)
    model = power_model_of(power_model)
    meter = choose_meter(energy, model=model)
    for head in allow_head or ():
        trust_head(head)
    opened = open_bundle(bundle)
    opened.manifest.task.check_allowed()
    samples = (
        photo_samples(opened.manifest, find_pictures(pictures))
        if pictures
        else synthetic_samples(opened.manifest)
    )
    with Steps() as steps:
        found = measure(
            opened,
            _chain(opened, runtime, device, threads, providers),
            samples,
            batches=batches,
            meter=meter,
            slowdown=slowdown,
            max_seconds=max_seconds,
            progress=steps,
        )
    if out_file is not None:
        found.save(out_file)
    for note in found.notes:
        say(f"note: {note}")
    if json_:
        print_json(found.to_json())
        return
    out.print(_layer_table(found))
    out.print(_segment_table(found))
    out.print(_codec_table(found))
    emulated = f", {found.emulated} (emulated)" if found.emulated else ""
    head = f"{found.head_ms:.2f} ms of them in its head, " if found.head_ms else ""
    out.print(
        f"{found.device}: {found.total_ms:.2f} ms a frame in {found.runtime}, {head}"
        f"{found.threads} threads{emulated}; {_energy_words(found)}; codecs on {found.pictures}",
        soft_wrap=True,
    )


def power_model_of(name: str) -> PowerModel:
    """The power model of a named device, or of the one that resembles this machine most."""
    device = device_named(name) if name else guess_device(processor_name(), platform.machine())
    return PowerModel(
        name=device.name,
        idle_w=device.idle_w.value,
        busy_w=device.busy_w.value,
        source=device.busy_w.source,
    )


def _batches(text: str) -> tuple[int, ...]:
    parts = text.replace(" ", "").split(",")
    if not all(part.isascii() and part.isdecimal() and 1 <= int(part) <= 1024 for part in parts):
        raise ProfileUsageError(f"--batch {text!r} is no list of sizes", "give it as in 1,2,4,8")
    return tuple(sorted({int(part) for part in parts}))


def names_in(text: str) -> tuple[str, ...]:
    """The parts of a list with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _chain(bundle: Bundle, runtime: str, device: str, threads: int, providers: str) -> SegmentChain:
    if runtime not in CHOICES:
        raise ProfileUsageError(f"unknown runtime {runtime!r}", f"use {', '.join(CHOICES)}")
    if runtime == "auto":
        runtime = TORCH if _has_cuda() else ONNX
    return open_chain(
        bundle, runtime, threads=threads, providers=names_in(providers), device=device
    )


def _has_cuda() -> bool:
    """Whether there is a GPU that torch can use; torch itself is only loaded where there may be."""
    devices = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu")  # the latter two: Jetson's
    if importlib.util.find_spec("torch") is None or not any(map(os.path.exists, devices)):
        return False
    import torch

    return torch.cuda.is_available()


def _energy_words(found: Profile) -> str:
    total = [segment.mj for segment in found.segments if segment.mj is not None]
    if len(total) < len(found.segments):
        return "energy not known"
    return f"{sum(total):.1f} mJ a frame ({found.energy_kind}, {found.energy_meter})"


def _mj(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _layer_table(found: Profile) -> Table:
    table = Table(title="Layers (fused ones share their kernel's time)", title_justify="left")
    table.add_column("layer", overflow="fold")
    table.add_column("op")
    for column in ("output", "FLOPs", "params", "sent raw", "ms", "mJ", "share"):
        table.add_column(column, justify="right")
    table.add_column("", no_wrap=True)
    largest = max((layer.share for layer in found.layers), default=1.0) or 1.0
    for layer in found.layers:
        table.add_row(
            layer.name,
            layer.op,
            "x".join(map(str, layer.output_shape)),
            human_count(layer.flops),
            human_count(layer.params),
            human_bytes(layer.output_bytes),
            f"{layer.ms:.3f}",
            _mj(layer.mj),
            f"{100 * layer.share:.1f} %",
            "█" * round(16 * layer.share / largest),
        )
    return table


def _segment_table(found: Profile) -> Table:
    sizes = sorted({size for segment in found.segments for size in segment.batch_ms} - {1})
    table = Table(title="Segments", title_justify="left")
    columns = ["id", "median ms", "p95 ms", "IQR ms", "runs", "MB", "mJ"]
    for column in [*columns, *(f"batch {size} ms" for size in sizes)]:
        table.add_column(column, justify="right")
    for segment in found.segments:
        table.add_row(
            str(segment.id),
            f"{segment.ms:.3f}",
            f"{segment.p95_ms:.3f}",
            f"{segment.spread_ms:.3f}",
            str(segment.samples),
            "" if segment.memory_mb is None else f"{segment.memory_mb:.1f}",
            _mj(segment.mj),
            *(f"{segment.batch_ms.get(size, float('nan')):.3f}" for size in sizes),
        )
    return table


def _codec_table(found: Profile) -> Table:
    table = Table(title=f"Codecs, on {found.pictures}", title_justify="left")
    table.add_column("boundary", justify="right")
    table.add_column("codec")
    for column in ("bytes", "p95", "encode ms", "decode ms"):
        table.add_column(column, justify="right")
    for codec in found.codecs:
        table.add_row(
            str(codec.boundary),
            codec.codec,
            human_bytes(codec.nbytes),
            human_bytes(codec.p95_bytes),
            f"{codec.encode_ms:.2f}",
            f"{codec.decode_ms:.2f}",
        )
    return table
