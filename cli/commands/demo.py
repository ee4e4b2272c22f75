"""`splitpoint demo`: the whole way of a frame on one machine.

Longer than others: it shows what all others do.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import numpy as np
import typer
from rich.box import SIMPLE
from rich.table import Table
from splitpoint.codec import SplitpointError
from splitpoint.partition.bundle.bundle import Manifest
from splitpoint.partition.plan.link import parse_link

from ..run.three_ways import BUDGET_MS, FPS, SLOWDOWN, WAYS, run_way
from ..shell.output import Steps, human_bytes, out, print_json, say
from ..shell.shared_options import Json

PHOTOS = ("coffee", "chelsea", "rocket", "motorcycle_left", "camera")
LINKS = ("3g", "lte", "wifi")
_READY = re.compile(r"listening on (\S+)")
_START_TIMEOUT_S = 60
_AGENT_TIMEOUT_S = 120


class DemoError(SplitpointError):
    """A part of the demo did not start or did not answer."""


def demo(
    link: Annotated[str, typer.Option(help="The emulated link.")] = "lte",
    json_: Json = False,
) -> None:
    """Split a real EfficientNet-Lite0 over an emulated link, and compare with the unsplit model.

    Compiles the model, starts a worker, a link emulator and edge agents as processes of their own,
    sends real photos through every boundary, and removes all of it again. At the end a camera on a
    slow device goes three ways over three links: which of them is worth it depends on both.
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
        rows: dict[int, list[dict[str, Any]]] = {}
        for boundary in range(last + 1):
            codec = "none" if boundary == last else "png" if boundary == 0 else "q8"
            say(f"boundary {boundary} of {last}")
            rows[boundary] = _run_agent(
                relay.address, boundary, codec, folder / "photos", folder / "cache"
            )
        say(f"a camera of {FPS:g} frames a second on a device {SLOWDOWN:g} times slower")
        ways = []
        for name in LINKS:
            with Process(
                "emulate", "--server", worker.address, "--link", name, "--listen", "127.0.0.1:0"
            ) as slow:
                for way in WAYS:
                    say(f"{name}: {way}")
                    run = run_way(
                        way, name, slow.address, bundle.folder, photos, folder / "cameras"
                    )
                    ways.append(asyncio.run(run).row())
    labels = list(spec.labels)
    middle = last // 2
    photo_rows = _photo_rows(rows[middle], truth, labels)
    boundary_rows = [_boundary_row(manifest, b, lines, truth) for b, lines in rows.items()]
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


class Process:
    """A `splitpoint` command that runs in the background until it is left, and where it listens."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self.address = ""

    def __enter__(self) -> Process:
        """Starts it and waits until it says where it listens."""
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from splitpoint.cli.main import main; main()",
                *self._arguments,
            ],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        said = []
        deadline = time.monotonic() + _START_TIMEOUT_S
        for line in self._process.stderr:
            said.append(line.strip())
            match = _READY.search(line)
            if match is not None:
                self.address = match[1]
                return self
            if time.monotonic() > deadline:
                break
        self.__exit__(None, None, None)
        raise DemoError(f"`splitpoint {self._arguments[0]}` did not start: {' / '.join(said[-3:])}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops it as a service manager would, and by force if that does not help."""
        self._process.terminate()
        try:
            self._process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


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


def _run_agent(
    server: str, boundary: int, codec: str, photos: Path, cache: Path
) -> list[dict[str, Any]]:
    command = [
        sys.executable,
        "-c",
        "from splitpoint.cli.main import main; main()",
        "run",
        "--json",
        "--server",
        server,
        "--source",
        str(photos),
        "--split",
        str(boundary),
        "--cache",
        str(cache),
        "--repeat",
        "2",
        "--in-flight",
        "1",
    ]
    if codec != "none":
        command += ["--codec", codec]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_AGENT_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise DemoError(
            f"the agent took more than {_AGENT_TIMEOUT_S} s", "choose a faster --link"
        ) from error
    if done.returncode != 0:
        raise DemoError(f"the agent failed: {' / '.join(done.stderr.strip().splitlines()[-2:])}")
    lines = [json.loads(line) for line in done.stdout.splitlines()][:-1]
    for line in lines:
        if line["outcome"] not in ("answered", "local"):
            raise DemoError(
                f"a frame was {line['outcome']} ({line.get('error')})", "choose a faster --link"
            )
    return lines[len(lines) // 2 :]  # the first pass warms both ends up


def _photo_rows(
    lines: list[dict[str, Any]], truth: dict[str, Any], labels: list[str]
) -> list[dict[str, Any]]:
    rows = []
    for line in lines:
        name = Path(line["source"]).name
        scores, best = truth[name], line["top"][0]
        index = int(scores.argmax())
        rows.append(
            {
                "photo": name,
                "label": best["label"],
                "score": best["score"],
                "unsplit_label": labels[index],
                "unsplit_score": round(float(scores[index]), 6),
            }
        )
    return rows


def _boundary_row(
    manifest: Manifest, boundary: int, lines: list[dict[str, Any]], truth: dict[str, Any]
) -> dict[str, Any]:
    same = sum(
        line["top"][0]["index"] == int(truth[Path(line["source"]).name].argmax()) for line in lines
    )
    stages = {
        name: round(statistics.median(line["stages_ms"][name] for line in lines), 2)
        for name in lines[0]["stages_ms"]
    }
    return {
        "boundary": boundary,
        "after": manifest.boundaries[boundary].after or "(the input)",
        "codec": lines[0]["codec"],
        "bytes_up": round(statistics.mean(line["bytes_up"] for line in lines)),
        "stages_ms": stages,
        "total_ms": round(statistics.median(line["total_ms"] for line in lines), 2),
        "same_top1": f"{same}/{len(lines)}",
    }


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
