"""`splitpoint compile`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from splitpoint.partition.errors import PictureError
from splitpoint.partition.tasks.heads import HEADS
from splitpoint.partition.tasks.task import MOST_DETECTIONS

from ..shell.output import Steps, human_bytes, human_count, out, print_json, say
from ..shell.shared_options import Json
from .inspect import boundary_table

if TYPE_CHECKING:
    from splitpoint.partition.calibrate.inputs import Calibration
    from splitpoint.partition.compile.forecast import Forecast
    from splitpoint.partition.from_onnx.picture_options import PictureOptions
    from splitpoint.partition.model_spec import ModelSpec

_ANSWERS, _PICTURE = "Answers", "Pictures"
_Number = TypeVar("_Number", int, float)


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
    truth: Annotated[
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
    task: Annotated[
        str,
        typer.Option(
            help="classify, detect, segment, or raw for outputs as they are.",
            show_default="what the model says",
            rich_help_panel=_ANSWERS,
        ),
    ] = "",
    head: Annotated[
        str,
        typer.Option(
            help=f"How outputs are read: {', '.join(HEADS)}; or module:function of your own.",
            show_default="what the model says",
            rich_help_panel=_ANSWERS,
        ),
    ] = "",
    labels: Annotated[
        Path | None,
        typer.Option(help="The names of the classes, one a line.", rich_help_panel=_ANSWERS),
    ] = None,
    max_detections: Annotated[
        int | None,
        typer.Option(
            help="Most things that a detector finds in a frame.",
            show_default="100",
            min=1,
            max=MOST_DETECTIONS,
            rich_help_panel=_ANSWERS,
        ),
    ] = None,
    input_size: Annotated[
        str,
        typer.Option(
            help="HEIGHTxWIDTH in pixels, or the side of a square: of an ONNX file or a plain "
            "module that takes pictures.",
            rich_help_panel=_PICTURE,
        ),
    ] = "",
    resize: Annotated[
        str,
        typer.Option(
            help="How a photo gets that size: crop, letterbox, pad or stretch.",
            show_default="what the model says, else crop",
            rich_help_panel=_PICTURE,
        ),
    ] = "",
    mean: Annotated[
        str,
        typer.Option(
            help="R,G,B: the input is (pixel * scale - mean) / std.", rich_help_panel=_PICTURE
        ),
    ] = "",
    std: Annotated[str, typer.Option(help="R,G,B.", rich_help_panel=_PICTURE)] = "",
    scale: Annotated[
        float | None,
        typer.Option(
            help="Of pixels, which are 0 to 255.", show_default="1/255", rich_help_panel=_PICTURE
        ),
    ] = None,
    channels: Annotated[
        str,
        typer.Option(
            help="rgb or bgr, in which order the model takes them, its mean and std.",
            show_default="rgb",
            rich_help_panel=_PICTURE,
        ),
    ] = "",
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
    from splitpoint.partition.models.task_options import TaskOptions

    if truth is not None and not calibrate:
        raise typer.BadParameter("the truth is of calibration inputs: give --calibrate DIR too")
    if int8 and not calibrate:
        raise typer.BadParameter("INT8 takes its ranges from typical inputs: give --calibrate DIR")
    start = time.perf_counter()
    calibration = Calibration(source=calibrate, labels=truth, int8=int8) if calibrate else None
    said = TaskOptions(
        kind=task, head=head, labels=labels, resize=resize, max_detections=max_detections
    )
    with Steps() as steps:
        picture = _picture_options(input_size, mean, std, scale, channels)
        spec = said.applied(load_model(model, weights, picture))
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
            foresee=lambda forecast: say(_in_words(forecast, spec, calibration)),
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


def _in_words(forecast: Forecast, spec: ModelSpec, calibration: Calibration | None) -> str:
    """What will be done, and how long it will take."""
    task, picture = forecast.task, spec.picture
    takes = (
        f", photos of {picture.height_px}x{picture.width_px} ({picture.resize})" if picture else ""
    )
    gives = task.kind + (f" (head {task.head})" if task.head else "")
    named = f" with {len(spec.labels)} labels" if spec.labels else ""
    then = "; calibration comes on top" if calibration else ""
    return (
        f"{spec.source}: {forecast.layers} layers, {human_count(forecast.parameters)} parameters"
        f"{takes}, answers: {gives}{named}; to be cut at {forecast.boundaries} boundaries, "
        f"which takes some {max(round(forecast.seconds), 1)} s{then}"
    )


def _picture_options(
    size: str, mean: str, std: str, scale: float | None, channels: str
) -> PictureOptions | None:
    """What was said of pictures; None where that is nothing."""
    from splitpoint.partition.from_onnx.picture_options import PictureOptions

    given: dict[str, Any] = {}
    if size:
        height, _, width = size.lower().partition("x")
        said = f"--input-size {size[:60]!r} is no size", "write 640 or 480x640"
        given["size_px"] = (_number(height, int, *said), _number(width or height, int, *said))
    for name, text in (("mean", mean), ("std", std)):
        if text:
            said = f"--{name} {text[:60]!r} is no list of numbers", "write 0.5,0.5,0.5"
            given[name] = tuple(_number(part, float, *said) for part in text.split(","))
    if scale is not None:
        given["scale"] = scale
    if channels:
        given["order"] = channels.lower()
    return PictureOptions(**given) if given else None


def _number(text: str, kind: type[_Number], what: str, remedy: str) -> _Number:
    try:
        return kind(text)
    except ValueError as error:
        raise PictureError(what, remedy) from error
