"""`splitpoint demo`: the whole way of a frame on one machine."""

from __future__ import annotations

import asyncio
import importlib
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.box import SIMPLE
from rich.table import Table
from splitpoint.partition.plan.link import parse_link

from ..run.background import DemoError, Process
from ..run.each_boundary import AtBoundary, run_boundary
from ..run.three_ways import BUDGET_MS, FPS, SLOWDOWN, WAYS, run_way, situations
from ..shell.output import Steps, human_bytes, out, print_json, say
from ..shell.shared_options import Json

PHOTOS = ("coffee", "chelsea", "rocket", "motorcycle_left", "camera")


def demo(
    link: Annotated[str, typer.Option(help="The emulated link.")] = "lte",
    json_: Json = False,
) -> None:
    """Split a real EfficientNet-Lite0 over an emulated link, and compare with the unsplit model.

    Compiles the model, starts a worker and a link emulator as processes of their own, sends real
    photos through every boundary, and removes all of it again. At the end a camera on a slow device
    goes three ways over five links: which of them is worth it depends on both.
    """
    from splitpoint.partition.compile.compile import compile_model
    from splitpoint.partition.models.find import load_model

    emulated = parse_link(link)
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="splitpoint-demo-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        photos = _photos(folder / "photos")
        with Steps() as steps:
            spec = load_model("efficientnet-lite0")
            bundle = compile_model(spec, folder / "efficientnet-lite0.split", progress=steps)
        manifest = bundle.manifest
        truth = _unsplit(spec, photos)
        say("starting a worker and an emulated link")
        worker = stack.enter_context(
            Process("serve", str(bundle.folder), "--listen", "127.0.0.1:0")
        )
        relay = stack.enter_context(
            Process(
                "emulate", "--server", worker.address, "--link", link, "--listen", "127.0.0.1:0"
            )
        )
        last = len(manifest.segments)
        cut = []
        for boundary in range(last + 1):
            say(f"boundary {boundary} of {last}")
            cut.append(asyncio.run(run_boundary(boundary, relay.address, bundle, photos)))
        say(f"a camera of {FPS:g} frames a second on a device {SLOWDOWN:g} times slower")
        ways = []
        for situation in situations(folder).items():
            for way in WAYS:
                say(f"{situation[0]}: {way}")
                run = run_way(way, situation, worker.address, bundle.folder, photos, folder)
                ways.append(run.row())
    middle = last // 2
    photo_rows = _photo_rows(cut[middle], truth, list(spec.labels))
    boundary_rows = [at.row(manifest, truth) for at in cut]
    title = (
        f"emulated link {emulated.name}: {emulated.uplink_mbps:g} Mbit/s up, "
        f"{emulated.round_trip_ms:g} ms round trip"
    )
    if json_:
        print_json(
            {
                "link": title,
                "split": middle,
                "photos": photo_rows,
                "boundaries": boundary_rows,
                "ways": ways,
            }
        )
    else:
        out.print(_photo_table(photo_rows, middle))
        out.print(_boundary_table(boundary_rows, title))
        out.print(_ways_table(ways))
    wrong = [row["photo"] for row in photo_rows if row["label"] != row["unsplit_label"]]
    if wrong:
        raise DemoError(f"the split model disagrees with the unsplit one on {', '.join(wrong)}")


def _photos(folder: Path) -> list[Path]:
    """Copies of scikit-image's photos, as files that an agent can read."""
    from PIL import Image

    folder.mkdir(parents=True)
    try:
        data = importlib.import_module("skimage.data")
    except ImportError as error:
        raise DemoError(
            "scikit-image is not installed", 'pip install "splitpoint[demo]"'
        ) from error
    base = Path(str(data.__file__)).parent
    paths = []
    for name in PHOTOS:
        (file,) = base.glob(f"{name}.*")
        paths.append(folder / f"{name}.png")
        with Image.open(file) as photo:
            photo.convert("RGB").save(paths[-1])
    return sorted(paths)


def _unsplit(spec: Any, photos: Sequence[Path]) -> dict[str, Any]:
    """Softmax of the unsplit model for each photo."""
    import torch

    answers = {}
    for path in photos:
        pixels = torch.tensor(spec.picture.read(path)[np.newaxis])
        with torch.inference_mode():
            answers[path.name] = spec.module(pixels)[0].double().softmax(0).numpy()
    return answers


def _photo_rows(
    split: AtBoundary, truth: dict[str, Any], labels: list[str]
) -> list[dict[str, Any]]:
    rows = []
    for path, best in zip(split.photos, split.best(), strict=True):
        scores = truth[path.name]
        index = int(scores.argmax())
        rows.append(
            {
                "photo": path.name,
                "label": best.label,
                "score": round(best.score, 6),
                "unsplit_label": labels[index],
                "unsplit_score": round(float(scores[index]), 6),
            }
        )
    return rows


def _photo_table(rows: list[dict[str, Any]], boundary: int) -> Table:
    table = Table(title=f"Photos, split at boundary {boundary}", title_justify="left", box=SIMPLE)
    for column in ("photo", "split model", "unsplit model"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            row["photo"],
            f"{row['label']} {row['score']:.3f}",
            f"{row['unsplit_label']} {row['unsplit_score']:.3f}",
        )
    return table


def _boundary_table(rows: list[dict[str, Any]], title: str) -> Table:
    stages = list(rows[0]["stages_ms"])
    table = Table(title=f"Median milliseconds a stage, {title}", title_justify="left", box=SIMPLE)
    table.add_column("id", justify="right")
    table.add_column("codec")
    short = {"encode": "enc", "uplink": "up", "downlink": "down"}
    for column in ("sent", *(short.get(name, name) for name in stages), "total", "top-1"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["boundary"]),
            row["codec"],
            human_bytes(row["bytes_up"]),
            *(f"{row['stages_ms'][name]:.1f}" for name in stages),
            f"{row['total_ms']:.1f}",
            row["same_top1"],
        )
    return table


def _ways_table(rows: list[dict[str, Any]]) -> Table:
    title = (
        f"A camera, {FPS:g} frames a second, {BUDGET_MS:g} ms for each; the device is "
        f"{SLOWDOWN:g} times slower than this (emulated)"
    )
    table = Table(title=title, title_justify="left", box=SIMPLE)
    table.add_column("link")
    table.add_column("way")
    for column in ("in time, fps", "median ms", "kB a frame"):
        table.add_column(column, justify="right")
    for row in rows:
        ms = "-" if row["p50_ms"] is None else f"{row['p50_ms']:.0f}"
        table.add_row(
            row["link"], row["way"], f"{row['fps_in_time']:.1f}", ms, f"{row['kb_a_frame']:.1f}"
        )
    return table
