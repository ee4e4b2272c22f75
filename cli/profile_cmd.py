"""`splitpoint profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from splitpoint.partition.bundle import open_bundle
from splitpoint.partition.measure import measure
from splitpoint.partition.profile import Profile

from .output import Steps, out, print_json


def profile(
    bundle: Annotated[Path, typer.Argument(help="NAME.split", show_default=False)],
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Write the profile here, as JSON.")
    ] = None,
    threads: Annotated[int, typer.Option(help="onnxruntime's threads, 0: one a core.", min=0)] = 0,
    slowdown: Annotated[
        float, typer.Option(help="Multiply all times, to play a slower device (emulated).", min=1)
    ] = 1.0,
    max_seconds: Annotated[
        float, typer.Option(help="Stop after this even if a median still moves.", min=0.1)
    ] = 30.0,
    json_: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Measure this device: the time of every segment and layer of a bundle.

    Needs no torch. Segments are timed until their medians are stable.
    """
    opened = open_bundle(bundle)
    with Steps() as steps:
        found = measure(
            opened, threads=threads, slowdown=slowdown, max_seconds=max_seconds, progress=steps
        )
    if out_file is not None:
        found.save(out_file)
    if json_:
        print_json(found.to_json())
        return
    out.print(_layer_table(found))
    out.print(_segment_table(found))
    emulated = f", {found.emulated} (emulated)" if found.emulated else ""
    out.print(
        f"{found.device}: {found.total_ms:.2f} ms a frame in {found.runtime}, "
        f"{found.threads} threads{emulated}",
        soft_wrap=True,
    )


def _layer_table(found: Profile) -> Table:
    table = Table(title="Layers (fused ones share their kernel's time)", title_justify="left")
    table.add_column("layer", overflow="fold")
    table.add_column("op")
    for column in ("ms", "share"):
        table.add_column(column, justify="right")
    table.add_column("", no_wrap=True)
    largest = max((layer.share for layer in found.layers), default=1.0) or 1.0
    for layer in found.layers:
        table.add_row(
            layer.name,
            layer.op,
            f"{layer.ms:.3f}",
            f"{100 * layer.share:.1f} %",
            "█" * round(24 * layer.share / largest),
        )
    return table


def _segment_table(found: Profile) -> Table:
    table = Table(title="Segments", title_justify="left")
    for column in ("id", "median ms", "p95 ms", "runs"):
        table.add_column(column, justify="right")
    for segment in found.segments:
        table.add_row(
            str(segment.id), f"{segment.ms:.3f}", f"{segment.p95_ms:.3f}", str(segment.samples)
        )
    return table
