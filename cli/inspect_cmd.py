"""`splitpoint inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from splitpoint.partition.bundle import Manifest, open_bundle

from .output import human_bytes, human_count, out, print_json

_BAR_CELLS = 24


def inspect(
    bundle: Annotated[Path, typer.Argument(help="NAME.split", show_default=False)],
    json_: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show a bundle's layers, boundaries, bytes, codecs and digest.

    The bar is what a cut after the layer would carry: short bars are the narrow places.
    """
    opened = open_bundle(bundle)
    manifest = opened.manifest
    if json_:
        print_json(_document(manifest, opened.digest))
        return
    out.print(layer_table(manifest))
    out.print(boundary_table(manifest))
    out.print(f"digest {opened.digest}", soft_wrap=True)


def layer_table(manifest: Manifest) -> Table:
    """One row a layer, with a bar for the bytes that a cut there would carry."""
    table = Table(title=f"{manifest.name}: layers", title_justify="left")
    for column in ("layer", "op"):
        table.add_column(column, overflow="fold")
    for column in ("output", "FLOPs", "params", "crossing"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    widest = max((layer.crossing_bytes or 0 for layer in manifest.layers), default=1) or 1
    starts = {boundary.after: boundary.id for boundary in manifest.boundaries}
    for layer in manifest.layers:
        crossing = layer.crossing_bytes
        cells = 0 if crossing is None else max(1, round(_BAR_CELLS * crossing / widest))
        boundary = starts.get(layer.name)
        table.add_row(
            layer.name,
            layer.op,
            "x".join(map(str, layer.output_shape)),
            human_count(layer.flops),
            human_count(layer.params) if layer.params else "",
            "-" if crossing is None else human_bytes(crossing),
            "█" * cells + (f" ◄ boundary {boundary}" if boundary is not None else ""),
            style="bold" if boundary is not None else "",
        )
    return table


def boundary_table(manifest: Manifest) -> Table:
    """One row a materialised boundary."""
    table = Table(title=f"{manifest.name}: boundaries", title_justify="left")
    table.add_column("id", justify="right")
    table.add_column("after", overflow="fold")
    table.add_column("tensors", overflow="fold")
    for column in ("raw bytes", "compute before"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("codecs", overflow="fold")
    total = sum(segment.flops for segment in manifest.segments) or 1
    done = 0
    for boundary in manifest.boundaries:
        shapes = ", ".join(
            f"{spec.dtype} {'x'.join(map(str, spec.shape_without_batch))}"
            for spec in boundary.tensors
        )
        last = boundary.id == len(manifest.segments)
        table.add_row(
            str(boundary.id),
            boundary.after or "(the input)",
            shapes,
            human_bytes(boundary.nbytes),
            f"{100 * done / total:.0f} %",
            "(all on the device)" if last else " ".join(boundary.codecs),
        )
        if not last:
            done += manifest.segments[boundary.id].flops
    return table


def _document(manifest: Manifest, digest: str) -> dict[str, object]:
    return {
        "name": manifest.name,
        "digest": digest,
        "layers": [
            {
                "name": layer.name,
                "op": layer.op,
                "output_shape": list(layer.output_shape),
                "flops": layer.flops,
                "params": layer.params,
                "output_bytes": layer.output_bytes,
                "crossing_bytes": layer.crossing_bytes,
                "segment": layer.segment,
            }
            for layer in manifest.layers
        ],
        "boundaries": [
            {
                "id": boundary.id,
                "after": boundary.after,
                "tensors": [
                    {
                        "name": spec.name,
                        "dtype": spec.dtype,
                        "shape": list(spec.shape_without_batch),
                    }
                    for spec in boundary.tensors
                ],
                "bytes": boundary.nbytes,
            }
            for boundary in manifest.boundaries
        ],
        "codecs": {str(boundary.id): boundary.codecs for boundary in manifest.boundaries[:-1]},
        "outputs": dict(manifest.outputs),
        "unsupported_ops": list(manifest.unsupported_ops),
    }
