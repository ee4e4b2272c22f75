"""`splitpoint compile`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from ..shell.output import Steps, human_bytes, out, print_json, say
from ..shell.shared_options import Json
from .inspect import boundary_table


def compile_(
    model: Annotated[
        str,
        typer.Argument(
            help="torchvision:NAME, package.module:factory, efficientnet-lite0, or FILE.pt2, .onnx",
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
    after: Annotated[
        list[str] | None,
        typer.Option(
            help="Cut right after this layer instead of where it seems best; may be repeated.",
            metavar="LAYER",
            show_default=False,
        ),
    ] = None,
    calibrate: Annotated[
        str,
        typer.Option(
            help="Typical inputs for the transform codec's tables and every codec's measured "
            "levels: a folder of pictures (or of .npy, .npz), or a glob. A hundred will do.",
            metavar="DIR",
        ),
    ] = "",
    labels: Annotated[
        Path | None,
        typer.Option(
            help="The calibration inputs' right classes, one `FILE CLASS` a line, CLASS a number."
        ),
    ] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="With --calibrate: the device's segments in INT8 as well, for it to choose.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace the bundle if it exists.")] = False,
    json_: Json = False,
) -> None:
    """Cut a torch model into segments and write them as a bundle.

    The segments are run in torch and in onnxruntime and compared with the unsplit model before the
    bundle appears.
    """
    from splitpoint.partition.calibrate.inputs import Calibration
    from splitpoint.partition.compile.compile import compile_model
    from splitpoint.partition.models.find import load_model

    if labels is not None and not calibrate:
        raise typer.BadParameter("labels are of calibration inputs: give --calibrate DIR too")
    if int8 and not calibrate:
        raise typer.BadParameter("INT8 takes its ranges from typical inputs: give --calibrate DIR")
    start = time.perf_counter()
    calibration = Calibration(source=calibrate, labels=labels, int8=int8) if calibrate else None
    with Steps() as steps:
        spec = load_model(model, weights)
        for remark in spec.remarks:
            say(remark)
        bundle = compile_model(
            spec,
            out_folder,
            boundaries=boundaries,
            after=after or (),
            overwrite=overwrite,
            calibration=calibration,
            progress=steps,
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
                "calibrated": any(boundary.ladder for boundary in manifest.boundaries),
                "int8": manifest.has_int8,
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
