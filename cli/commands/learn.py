"""`splitpoint learn`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from splitpoint.partition.tasks.user_head import allow_head as trust_head

from ..shell.output import Steps, human_bytes, human_count, out, print_json, say
from ..shell.shared_options import AllowHead, BundleArgument, Json

if TYPE_CHECKING:
    from splitpoint.partition.bundle.bundle import Bundle
    from splitpoint.partition.bundle.ladder import CodecLevel
    from splitpoint.partition.learn.judged import Comparison
    from splitpoint.partition.learn.learn import LearnedBundle


def learn(
    bundle: BundleArgument,
    images: Annotated[
        str,
        typer.Option(
            help="Pictures of the kind that the camera will see, without labels: a folder or a "
            "glob. Thousands are better than hundreds; a fifth of them (60 to 300) is held "
            "back.",
            metavar="DIR",
            show_default=False,
        ),
    ],
    at: Annotated[
        int,
        typer.Option(
            help="The boundary: an early one, as `splitpoint inspect` numbers them.",
            show_default=False,
        ),
    ],
    out_folder: Annotated[
        Path | None,
        typer.Option("--out", help="The bundle to write.", show_default="NAME-learned.split"),
    ] = None,
    judge: Annotated[
        str,
        typer.Option(
            help="Pictures that the codec is judged on, none of which it is trained on: a folder "
            "or a glob.",
            metavar="DIR",
            show_default="a tenth of --images",
        ),
    ] = "",
    hours: Annotated[
        float, typer.Option(help="How long to train, about.", min=0.01, max=1000)
    ] = 2.0,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Train so many steps instead, however long they take: the same codec each time on "
            "one machine's processor.",
            min=1,
            show_default="as many as fit into --hours",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to train: auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of everything random.", min=0)] = 0,
    allow_head: AllowHead = None,
    json_: Json = False,
) -> None:
    """Train a codec for an early boundary, from unlabelled pictures.

    The device gets a small network behind the segments before the boundary, the worker one that
    undoes it. The model itself stays as it is. The new bundle holds both; the old one stays valid.
    Where it is interrupted, the same command goes on.
    """
    from splitpoint.partition.learn.learn import Learning, NothingGained, learn_codec
    from splitpoint.partition.run.torch_chain import pick_device

    for head in allow_head or ():
        trust_head(head)
    start_s = time.perf_counter()
    bundle = bundle.absolute()  # `.` has no name
    where = out_folder or bundle.with_name(f"{bundle.name.removesuffix('.split')}-learned.split")
    learning = Learning(
        images=images, at=at, out=where, judge=judge, hours=hours, steps=steps or 0, seed=seed
    )
    try:
        with Steps() as progress:
            found = learn_codec(bundle, learning, pick_device(device), progress)
    except KeyboardInterrupt:
        say("interrupted: the same command goes on; training from where it was half a minute ago")
        raise
    except NothingGained as none:
        if not json_:
            out.print(_rungs_table(none.comparison, none.boundary, none.judged_on))
        raise
    took_s = time.perf_counter() - start_s
    if json_:
        print_json(_document(found, where, took_s))
        return
    out.print(_rungs_table(found.comparison, found.boundary, found.judged_on))
    out.print(_compute_words(found.bundle, found.boundary), soft_wrap=True)
    out.print(
        f"{where}: digest {found.bundle.digest[:12]}, {took_s / 60:.0f} min; at equal loss the "
        f"learned codec has {found.comparison.ratio:.2f} times the bytes of fkt",
        soft_wrap=True,
    )


def _rungs_table(comparison: Comparison, boundary: int, judged_on: int) -> Table:
    table = Table(
        title=f"Boundary {boundary}, judged on {judged_on} pictures that were not "
        f"trained on (fkt as calibrated, jpeg and webp of the input)",
        title_justify="left",
    )
    table.add_column("codec")
    for column in ("bytes", "loss", "same answer", "enc ms", "dec ms"):
        table.add_column(column, justify="right")
    for levels in (comparison.learned, comparison.fkt, comparison.images):
        for level in levels:
            table.add_row(*_row(level))
        table.add_section()
    return table


def _row(level: CodecLevel) -> tuple[str, ...]:
    return (
        level.codec,
        human_bytes(level.nbytes),
        f"{level.loss:.4f}",
        "" if level.drop is None else f"{100 * (1 - level.drop):.1f} %",
        f"{level.encode_ms:.1f}",
        f"{level.decode_ms:.1f}",
    )


def _compute_words(bundle: Bundle, at: int) -> str:
    """What the networks compute, beside the model."""
    segments, learned = bundle.manifest.segments, bundle.manifest.boundaries[at].learned
    assert learned is not None
    total = sum(segment.flops for segment in segments) or 1
    before = sum(segment.flops for segment in segments[:at])
    shares = [
        100 * flops / total for flops in (before, learned.encoder.flops, learned.decoder.flops)
    ]
    return (
        f"Of the model's {human_count(total)} operations the device computes {shares[0]:.1f} % "
        f"before the boundary, and {shares[1]:.1f} % more for the encoder; the worker computes "
        f"{shares[2]:.1f} % more for the decoder."
    )


def _document(found: LearnedBundle, where: Path, took_s: float) -> dict[str, Any]:
    manifest, comparison = found.bundle.manifest, found.comparison
    learned = manifest.boundaries[found.boundary].learned
    assert learned is not None
    return {
        "name": manifest.name,
        "digest": found.bundle.digest,
        "out": str(where),
        "boundary": found.boundary,
        "seconds": round(took_s, 1),
        "steps": found.course.steps,
        "trained_on": found.trained_on,
        "judged_on": found.judged_on,
        "bytes_ratio": comparison.ratio,
        "losses": list(found.losses),
        "flops": {
            "model": sum(segment.flops for segment in manifest.segments),
            "before": sum(segment.flops for segment in manifest.segments[: found.boundary]),
            "encoder": learned.encoder.flops,
            "decoder": learned.decoder.flops,
        },
        "levels": [
            level.to_json()
            for levels in (comparison.learned, comparison.fkt, comparison.images)
            for level in levels
        ],
    }
