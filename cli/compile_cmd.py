"""`splitpoint compile`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from .inspect_cmd import boundary_table
from .output import Steps, human_bytes, out, print_json, say


def compile_(
    model: Annotated[
        str,
        typer.Argument(
            help="torchvision:NAME, package.module:factory, efficientnet-lite0, or FILE.pt2",
            show_default=False,
        ),
    ],
    out_folder: Annotated[
        Path, typer.Option("--out", help="The bundle to write, NAME.split.", show_default=False)
    ],
    weights: Annotated[
        str,
        typer.Option(help="default (pretrained), none (seeded random), or a state-dict file."),
    ] = "default",
    boundaries: Annotated[
        int, typer.Option(help="Most boundaries to materialise, both ends included.", min=2)
    ] = 8,
    overwrite: Annotated[bool, typer.Option(help="Replace the bundle if it exists.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Cut a torch model into segments and write them as a bundle.

    The segments are run in torch and in onnxruntime and compared with the unsplit model before the
    bundle appears.
    """
    from splitpoint.partition.compile import compile_model
    from splitpoint.partition.model_source import load_model

    start = time.perf_counter()
    with Steps() as steps:
        spec = load_model(model, weights)
        bundle = compile_model(
            spec, out_folder, boundaries=boundaries, overwrite=overwrite, progress=steps
        )
    manifest = bundle.manifest
    seconds = time.perf_counter() - start
    nbytes = sum(file.nbytes for file in manifest.files.values())
    if manifest.unsupported_ops:
        say(
            "warning: no FLOP formula for "
            f"{', '.join(manifest.unsupported_ops)}; their layers show ?"
        )
    if json_:
        print_json(
            {
                "name": manifest.name,
                "digest": bundle.digest,
                "out": str(out_folder),
                "seconds": round(seconds, 2),
                "bytes": nbytes,
                "boundaries": len(manifest.boundaries),
                "max_relative_error": manifest.max_relative_error,
                "unsupported_ops": list(manifest.unsupported_ops),
            }
        )
        return
    out.print(boundary_table(manifest))
    out.print(
        f"{out_folder}: {human_bytes(nbytes)}, digest {bundle.digest[:12]}, {seconds:.1f} s; "
        f"segments differ from the unsplit model by at most {manifest.max_relative_error:.1e} "
        "of its largest output",
        soft_wrap=True,
    )
