"""Does the planner choose what is really best, and is it right about how long that takes?

For every model, slowdown of the edge and emulated link, the agent measures its device, probes the
link and plans. Then every candidate runs end to end - worker, link emulator and agent as processes
of their own - in interleaved rounds, and the medians are compared with the choice and with the
predictions. Beside them stands a predictor as in Neurosurgeon (ASPLOS 2017): linear fits of layer
times on FLOPs and bytes, one for each kind of layer, made on the other models.

    python benchmarks/planner_regret.py [--images DIR] [--profile-images DIR] [--quick]
    python benchmarks/planner_regret.py --bundle NAME.split [--images DIR] [--profile-images DIR]

The device is profiled on one set of photos, and measured on those of the other whose JPEGs are of
median size. Weights are random except EfficientNet-Lite0's, so accuracy is left aside, and codecs
that need it to be known (q4) are no candidates. With a calibrated bundle they are: then devices are
up to 32 times slower and links down to 0.2 Mbit/s, the best predicted of its many candidates run
and every eighth of the others, and a stream's frames a second are planned for and measured, too.

Longer than others: it carries its baseline and its processes.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from layer_regression import LayerRegression
from listening import start
from quick_bundle import QUICK
from report import Table, write_report
from splitpoint.codec import codec_named
from splitpoint.edge import AutoPlan, EdgeAgent, Result
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.bundle.samples import find_pictures
from splitpoint.partition.plan.objective import Objective
from splitpoint.partition.plan.plan import NO_CODEC, Plan, name_of
from splitpoint.partition.plan.planner import Prediction
from splitpoint.partition.profile.profile import Profile, load_profile
from stream_rates import streamed

MODELS = ("efficientnet-lite0", "torchvision:resnet18", "torchvision:resnet50", "torchvision:vgg16")
SLOWDOWNS, LINKS_MBPS, ROUND_TRIP_MS = (1, 8), (1.1, 5.85, 18.88, 100.0), 20
SLOWER, SLOWER_LINKS_MBPS = (4, 8, 16, 32), (0.2, 0.6, 1.1, 5.85)  # of a calibrated bundle
MAIN = ["-c", "from splitpoint.cli.main import main; main()"]
PHOTOS = 3
BEST = 12  # candidates that run in any case
CLOSE, FAR = 0.05, 0.15


@dataclass
class Subject:
    """A compiled model with its profiles on this machine."""

    name: str
    bundle: Bundle
    edge: Profile
    cloud: Profile


@dataclass
class Measured:
    """One candidate of a cell: predicted, by regression, and the median of its runs, in ms."""

    prediction: Prediction
    regression_ms: float
    ms: float
    stages_ms: dict[str, float]

    @property
    def name(self) -> str:
        return name_of(self.prediction.boundary, self.prediction.codec)

    @property
    def error(self) -> float:
        return abs(self.prediction.latency_ms - self.ms) / self.ms

    @property
    def regression_error(self) -> float:
        return abs(self.regression_ms - self.ms) / self.ms


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def prepare(name: str, folder: Path, photos: Path, seconds: float) -> Subject:
    if Path(name).is_dir():
        return profiled(open_bundle(Path(name)), folder, photos, seconds)
    from models import settle_batch_norms  # torch, which bundles do without
    from splitpoint.partition.compile.compile import compile_model
    from splitpoint.partition.models.find import load_model

    spec = load_model(name, "none" if name.startswith("torchvision:") else "default")
    if name.startswith("torchvision:"):
        settle_batch_norms(spec)
    bundle = compile_model(spec, folder / f"{name.rpartition(':')[2]}.split")
    return profiled(bundle, folder, photos, seconds)


def profiled(bundle: Bundle, folder: Path, photos: Path, seconds: float) -> Subject:
    edge = profile_of(bundle, photos, folder, seconds, "--runtime", "onnxruntime")
    cloud = profile_of(bundle, photos, folder, seconds, "--runtime", "torch")
    name = bundle.manifest.name
    say(f"{name}: edge {edge.total_ms:.1f} ms, cloud {cloud.total_ms:.1f} ms")
    return Subject(name, bundle, edge, cloud)


def profile_of(
    bundle: Bundle, photos: Path, folder: Path, seconds: float, *options: str
) -> Profile:
    """What `splitpoint profile` measures."""
    path = folder / "profile.json"
    subprocess.run(
        [sys.executable, *MAIN, "profile", str(bundle.folder), "--pictures", str(photos),
         "--max-seconds", str(seconds), "--out", str(path), "--json", *options],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return load_profile(path)


def own_photos(folder: Path) -> Path:
    """Photos for want of given ones: those that come with scikit-image."""
    import skimage.data
    from PIL import Image

    photos = folder / "photos"
    if not photos.exists():
        photos.mkdir()
        for name in ("astronaut", "chelsea", "coffee", "rocket", "cat"):
            Image.fromarray(getattr(skimage.data, name)()).save(photos / f"{name}.png")
    return photos


def typical(bundle: Bundle, paths: list[Path]) -> list[np.ndarray]:
    """Pixels of the photos whose JPEGs are of median size."""
    picture, spec = bundle.manifest.picture, bundle.manifest.boundaries[0].tensors[0]
    assert picture is not None
    pixels = [picture.read(path)[np.newaxis] for path in paths]
    sizes = [len(codec_named("jpeg").encode(array, spec)) for array in pixels]
    order = np.argsort(np.abs(np.array(sizes) - np.median(sizes)))
    return [pixels[i] for i in order[:PHOTOS]]


def visits(predicted_ms: float, *, quick: bool) -> int:
    """How often a candidate is visited: quick ones more often, they are noisier."""
    if quick:
        return 1
    limits = ((200, 5), (1000, 3), (3000, 2))
    return next((count for limit_ms, count in limits if predicted_ms < limit_ms), 1)


def agent_for(
    aim: str, subject: Subject, address: str, profile: Path, slowdown: int, folder: Path
) -> EdgeAgent:
    """One that plans once, for `aim`."""
    return EdgeAgent(
        address,
        bundle=subject.bundle.folder,
        auto=AutoPlan(profile=profile, objective=Objective({aim: 1.0})),
        cache=folder / "cache",
        slowdown=slowdown,
        budget_ms=120_000,
        finish_locally=False,  # a candidate that fails must not pass for one that was measured
        adapt=False,
    )


def some(candidates: Sequence[Prediction]) -> list[Prediction]:
    """All of a few; of many the best predicted, both rivals, and every eighth of the others."""
    if len(candidates) <= 3 * BEST:
        return list(candidates)
    return [
        c for place, c in enumerate(candidates)
        if place < BEST or place % 8 == 0 or c.codec == NO_CODEC or c.codec == "jpeg"
    ]  # fmt: skip


async def throughput_row(
    subject: Subject,
    address: str,
    profile: Path,
    slowdown: int,
    mbps: float,
    photos: list[np.ndarray],
    folder: Path,
) -> list[str]:
    """A stream's frames a second by the plan for throughput, and by others."""
    tensor = subject.bundle.manifest.boundaries[0].tensors[0].name
    async with agent_for("throughput", subject, address, profile, slowdown, folder) as agent:
        found, rival_fps = await streamed(agent, [{tensor: photo} for photo in photos])
    chosen, best = found[0], max(found, key=lambda way: way.fps)
    return [
        f"{slowdown}", f"{mbps:g}", chosen.name, f"{chosen.prediction.fps:.2f}",
        f"{chosen.fps:.2f}", best.name, f"{best.fps:.2f}",
        f"{100 * (best.fps / chosen.fps - 1):.1f} %", f"{chosen.fps / rival_fps:.2f}x",
    ]  # fmt: skip


THROUGHPUT = [
    "slowdown", "Mbit/s", "chosen for throughput", "predicted fps", "measured fps", "best measured",
    "fps", "regret", "over the better rival",
]  # fmt: skip


async def cell(
    subject: Subject,
    address: str,
    profile: Path,
    slowdown: int,
    photos: list[np.ndarray],
    regression: LayerRegression,
    folder: Path,
    *,
    quick: bool,
) -> tuple[list[Measured], Plan]:
    tensor = subject.bundle.manifest.boundaries[0].tensors[0].name
    async with agent_for("latency", subject, address, profile, slowdown, folder) as agent:
        report, link = agent.report, agent.link
        assert report is not None
        assert link is not None
        await agent.switch(Plan(boundary=len(subject.bundle.manifest.segments), codec=NO_CODEC))
        times: list[tuple[Prediction, list[Result]]] = [(c, []) for c in some(report.candidates)]
        most = max(visits(c.latency_ms, quick=quick) for c, _ in times)
        for visit in range(most):
            for candidate, samples in times:
                if visit >= visits(candidate.latency_ms, quick=quick):
                    continue
                await agent.switch(Plan(boundary=candidate.boundary, codec=candidate.codec))
                # The first frame after a change finds cold caches, which no stream of frames does.
                for _ in range(2 if candidate.latency_ms < 300 else 1):
                    result = await agent.infer({tensor: photos[visit % len(photos)]})
                    assert result.outputs, result.error
                samples.append(result)
    return [
        Measured(
            candidate,
            candidate.latency_ms + regression.change_ms(subject, candidate.boundary, slowdown),
            statistics.median(result.total_ms for result in samples),
            {
                stage: statistics.median(getattr(result.stages_ms, stage) for result in samples)
                for stage in candidate.stages_ms
            },
        )
        for candidate, samples in times
    ], report.chosen


def row(subject: Subject, slowdown: int, mbps: float, found: list[Measured]) -> list[str]:
    """The table's row of a cell, whose first candidate is the chosen one."""
    chosen = found[0]
    best = min(found, key=lambda m: m.ms)
    local, jpeg, rival = rivals(found)
    split = "yes" if chosen.ms < rival and chosen.name not in (local.name, jpeg.name) else ""
    return [
        subject.name,
        f"{slowdown}",
        f"{mbps:g}",
        chosen.name,
        f"{chosen.prediction.latency_ms:.1f}",
        f"{chosen.ms:.1f}",
        best.name,
        f"{best.ms:.1f}",
        f"{100 * (chosen.ms / best.ms - 1):.1f} %",
        f"{local.ms:.1f}",
        f"{jpeg.ms:.1f}",
        f"{rival / chosen.ms:.2f}x",
        split,
    ]


COLUMNS = [
    "model", "slowdown", "Mbit/s", "chosen", "predicted, ms", "measured, ms", "best measured",
    "ms", "regret", "all on device, ms", "JPEG to cloud, ms", "faster than both", "split wins",
]  # fmt: skip


def rivals(found: list[Measured]) -> tuple[Measured, Measured, float]:
    local = next(m for m in found if m.prediction.codec == NO_CODEC)
    jpeg = next(m for m in found if (m.prediction.boundary, m.prediction.codec) == (0, "jpeg"))
    return local, jpeg, min(local.ms, jpeg.ms)


def summarise(cells: dict[tuple[str, int, float], list[Measured]]) -> dict[str, Any]:
    regrets = [f[0].ms / min(m.ms for m in f) - 1 for f in cells.values()]
    behind = [f[0].ms / rivals(f)[2] - 1 for f in cells.values()]
    errors = [m.error for f in cells.values() for m in f]
    regression = [m.regression_error for f in cells.values() for m in f]
    return {
        "cells": len(cells),
        "candidates_measured": len(errors),
        "share_within_5_percent": sum(r <= CLOSE for r in regrets) / len(regrets),
        "share_within_15_percent": sum(r <= FAR for r in regrets) / len(regrets),
        "worst_regret": max(regrets),
        "worst_behind_better_rival": max(behind),
        "prediction_error_median": statistics.median(errors),
        "prediction_error_p95": float(np.percentile(errors, 95)),
        "regression_error_median": statistics.median(regression),
        "regression_error_p95": float(np.percentile(regression, 95)),
        "splits_that_beat_both": sum(
            bool(f[0].ms < rivals(f)[2] and f[0].prediction.boundary and f[0].prediction.bytes_up)
            for f in cells.values()
        ),
        "every_candidate": [
            {
                "model": model,
                "slowdown": slowdown,
                "mbps": mbps,
                "candidate": m.name,
                "predicted_ms": round(m.prediction.latency_ms, 2),
                "regression_ms": round(m.regression_ms, 2),
                "measured_ms": round(m.ms, 2),
                "predicted_stages_ms": {k: round(v, 2) for k, v in m.prediction.stages_ms.items()},
                "measured_stages_ms": {k: round(v, 2) for k, v in m.stages_ms.items()},
            }
            for (model, slowdown, mbps), f in cells.items()
            for m in f
        ],
    }


def in_short(summary: dict[str, Any]) -> Table:
    percent = {
        key: f"{100 * value:.1f} %"
        for key, value in summary.items()
        if isinstance(value, int | float)
    }
    return Table(
        ["planner against measurement", ""],
        [
            ["cells: model x slowdown x link", str(summary["cells"])],
            ["candidates measured end to end", str(summary["candidates_measured"])],
            ["cells whose plan is within 5 % of the best measured",
             percent["share_within_5_percent"]],
            ["worst plan, behind the best measured", percent["worst_regret"]],
            ["worst plan, behind the better of all-on-device and JPEG",
             percent["worst_behind_better_rival"]],
            ["prediction error, median", percent["prediction_error_median"]],
            ["prediction error, 95th percentile", percent["prediction_error_p95"]],
            ["layer regression's error, median", percent["regression_error_median"]],
            ["layer regression's error, 95th percentile", percent["regression_error_p95"]],
            ["cells where a split beats both rivals", str(summary["splits_that_beat_both"])],
        ],
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", help="photos to measure with", default="")
    parser.add_argument("--profile-images", help="photos to profile with", default="")
    parser.add_argument("--models", nargs="*", help="names, or bundles")
    parser.add_argument("--bundle", type=Path, help="one that was calibrated, in place of models")
    parser.add_argument("--quick", action="store_true", help="one model, one link")
    args = parser.parse_args()
    names = args.models or ([QUICK] if args.quick else MODELS)
    slowdowns, links = ((8,), (18.88,)) if args.quick else (SLOWDOWNS, LINKS_MBPS)
    if args.bundle is not None and not args.quick:
        slowdowns, links = SLOWER, SLOWER_LINKS_MBPS
    seconds = 0.5 if args.quick else 8
    cells: dict[tuple[str, int, float], list[Measured]] = {}
    rows: list[list[str]] = []
    streams: list[list[str]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        measured_on = find_pictures(args.images or str(own_photos(folder)))
        profiled_on = Path(args.profile_images or own_photos(folder))
        if args.bundle is not None:
            subjects = [profiled(open_bundle(args.bundle), folder, profiled_on, seconds)]
        else:
            subjects = [prepare(name, folder, profiled_on, seconds) for name in names]
        for subject in subjects:
            regression = LayerRegression([s for s in subjects if s is not subject] or subjects)
            photos = typical(subject.bundle, measured_on)
            worker, address = start(
                [*MAIN, "serve", str(subject.bundle.folder), "--listen", "127.0.0.1:0"]
            )
            for slowdown in slowdowns:
                profile = folder / f"{subject.name}-{slowdown}.json"
                profile_of(
                    subject.bundle, profiled_on, folder, seconds, "--slowdown", str(slowdown)
                ).save(profile)
                for mbps in links:
                    relay, link_address = start(
                        [*MAIN, "emulate", "--server", address, "--listen", "127.0.0.1:0",
                         "--link", f"{mbps}mbps,{ROUND_TRIP_MS}ms"]
                    )  # fmt: skip
                    found, _ = asyncio.run(
                        cell(
                            subject, link_address, profile, slowdown, photos, regression, folder,
                            quick=args.quick,
                        )
                    )  # fmt: skip
                    if args.bundle is not None:
                        where = (subject, link_address, profile, slowdown, mbps, photos, folder)
                        streams.append(asyncio.run(throughput_row(*where)))
                        say("stream: " + " | ".join(streams[-1]))
                    relay.terminate()
                    relay.communicate(timeout=20)
                    cells[subject.name, slowdown, mbps] = found
                    rows.append(row(subject, slowdown, mbps, found))
                    say(" | ".join(rows[-1]))
            worker.terminate()
            worker.communicate(timeout=30)
    summary = summarise(cells)
    of_streams = [Table(THROUGHPUT, streams)] if streams else []
    summary["streams"] = [dict(zip(THROUGHPUT, row, strict=True)) for row in streams]
    write_report(
        "planner_regret", __doc__.splitlines()[0], Table(COLUMNS, rows), summary,
        save=not args.quick, in_short=[in_short(summary), *of_streams],
        variant="" if args.bundle is None else "calibrated",
    )  # fmt: skip


if __name__ == "__main__":
    main()
