"""Options that several commands have, each with its help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BundleArgument = Annotated[Path, typer.Argument(help="NAME.split", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Providers = Annotated[
    str,
    typer.Option(
        help="onnxruntime's execution providers, as in cuda,cpu.",
        show_default="the fastest that are here",
    ),
]
Energy = Annotated[str, typer.Option(help="auto, rapl, jetson, pi5, nvml, model or none.")]
PowerModelName = Annotated[
    str,
    typer.Option(
        help="The device whose power is taken where none can be measured (modelled).",
        show_default="the nearest to this machine",
    ),
]
MaxAccuracyDrop = Annotated[
    float | None,
    typer.Option(
        help="Use no codec that may change more than this many % of the answers (a detector: lose "
        "as much average precision; a segmenter: as much mean IoU), by the upper end of the 95 % "
        "interval that calibration found.",
        show_default="a codec may lose as much as JPEG does; where no JPEG is sent, no value may "
        "be off by more than 1 % of the largest",
        rich_help_panel="Constraints",
    ),
]
MustRunOnEdge = Annotated[
    list[str] | None,
    typer.Option(help="A layer that must not leave the device.", rich_help_panel="Constraints"),
]
AllowHead = Annotated[
    list[str] | None,
    typer.Option(
        help="Trust this function as the head of models that name it, module:function; may be "
        "repeated.",
        metavar="MODULE:FUNCTION",
        show_default=False,
    ),
]
