"""Where is choosing for each frame worth it, against the device alone and against sending JPEGs?

EfficientNet-Lite0, or another model, on devices 4 to 32 times slower than this machine (emulated),
uplinks from 0.1 to 30 Mbit/s with round trips of 20, 50 and 100 ms: how many frames a second each
way sustains (in time within a second, of 20 that come), and how soon a single frame is answered.
Real runs through the emulated link for a grid of cells; the simulator fills the space between and
stands beside them. JPEG is at equal loss: the smallest one whose divergence is no more than that of
the levels of the activations, by the bundle's calibration.

    python benchmarks/worth.py --bundle NAME.split [--images DIR]
    python benchmarks/worth.py --bundle face.split --images DIR --model CenterFace --fps 5 \\
        --slowdowns 2 4 8
    python benchmarks/worth.py --bundle lite0-learned.split --before lite0.split --images DIR

With `--before`, the bundle that `splitpoint learn` began with, an agent without the learned codec
runs in each cell as well.

The picture that it draws stands in the README. Longer than others: it measures, and draws.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import adaptive
import numpy as np
from adaptive import AGENT, Arm, Setting, allowed, bundle_of, play, profile_of, say
from dispatch import names_of
from listening import start
from photos import own_photos
from report import RESULTS, Table, write_report
from splitpoint.edge.dispatch.arms import Arms
from splitpoint.edge.simulation.course import Course, Tally, Truth
from splitpoint.edge.simulation.policies import Dispatching, Fixed
from splitpoint.edge.simulation.world import World
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.bundle.samples import find_pictures
from splitpoint.partition.plan.costs import CostTable
from splitpoint.partition.plan.link import Link, parse_link
from splitpoint.partition.plan.plan import NO_CODEC, Plan

BUDGET_MS, LEAD_S = 1000.0, 3.0
LITE0 = "EfficientNet-Lite0"
MEASURED_MBPS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
MBPS = tuple(np.geomspace(0.1, 30, 25))
ROUND_TRIPS_MS = (20, 50, 100)
LOCAL, JPEG, BEFORE = "the device alone", "JPEG", "without learned"
COLUMNS = ["device", "uplink", "way", "fps", "simulated", "p50 ms", "kB a frame"]
DRAWN_AT_MS = 50


@dataclass(frozen=True)
class Cell:
    slowdown: int
    mbps: float
    round_trip_ms: int = DRAWN_AT_MS

    @property
    def link(self) -> Link:
        return parse_link(f"{self.mbps:.4f}mbps,{self.round_trip_ms}ms")


def jpeg_of(bundle: Bundle, table: CostTable, kept: np.ndarray) -> int:
    """The smallest JPEG that loses no more than the activations' levels do."""
    boundary = bundle.manifest.boundaries[0]
    activations = kept & (table.boundary > 0) & (table.sends > 0)
    most = float(np.nanmax(np.where(activations, table.loss, -np.inf)))
    found = [
        i for i, codec in enumerate(table.codec)
        if table.boundary[i] == 0 and codec.startswith("jpeg")
        and (level := boundary.level(codec)) is not None and level.loss <= max(most, 0.0)
    ]  # fmt: skip
    return min(found, key=lambda i: table.nbytes[i]) if found else table.codec.index("jpeg")


class Simulated:
    """All ways of all cells, under a virtual clock."""

    def __init__(
        self, table: CostTable, kept: np.ndarray, jpeg: int, profiled_at: float, camera_fps: float
    ) -> None:
        self.table, self.kept, self.jpeg, self._profiled_at = table, kept, jpeg, profiled_at
        self.camera_fps = camera_fps
        self.arms = Arms.of(table, kept, np.zeros(len(table)))
        learned = np.array([codec.startswith("learned") for codec in table.codec])
        self.before = Arms.of(table, kept & ~learned, np.zeros(len(table)))

    def fps(self, way: str, cell: Cell, seconds: float = 20.0) -> tuple[float, Tally]:
        """In time within the budget, of those that come."""
        slower = cell.slowdown / self._profiled_at
        truth = Truth.of(self.table, slower)
        course = Course(
            link=cell.link, interval_s=1 / self.camera_fps, budget_s=BUDGET_MS / 1e3,
            frames=int(seconds * self.camera_fps),
        )  # fmt: skip
        local = int(np.flatnonzero(self.table.sends == 0)[0])
        policy = (
            Fixed(local if way == LOCAL else self.jpeg)
            if way in (LOCAL, JPEG)
            else Dispatching(self._arms_of(way), 125e3 * cell.mbps, slowdown=slower)
        )
        tally = World(truth, course, policy).run()
        return self.camera_fps * tally.percent / 100, tally

    def latency_ms(self, way: str, cell: Cell) -> float:
        """Of a single frame (modelled): the cost table's, as `infer` chooses by it."""
        table, slower = self.table, cell.slowdown / self._profiled_at
        metrics = table.metrics(
            table.nbytes * 8e-3 / cell.mbps * table.sends, round_trip_ms=cell.round_trip_ms,
            queue_ms=0.0, server_factor=1.0, edge_factor=slower,
        )  # fmt: skip
        if way == LOCAL:
            return float(metrics.latency_ms[table.sends == 0].min())
        if way == JPEG:
            return float(metrics.latency_ms[self.jpeg])
        return float(metrics.latency_ms[self._arms_of(way).index].min())

    def _arms_of(self, way: str) -> Arms:
        return self.before if way == BEFORE else self.arms


async def measured(
    setting: Setting, way: str, cell: Cell, jpeg: int, worker: str, folder: Path
) -> Arm:
    """A real run through the emulated link."""
    last, table = len(setting.bundle.manifest.segments), setting.table
    plan = {
        AGENT: None,
        BEFORE: None,
        LOCAL: Plan(boundary=last, codec=NO_CODEC),
        JPEG: Plan(boundary=0, codec=table.codec[jpeg]),
    }[way]
    path = folder / f"{cell.mbps:g}.csv"
    path.write_text(f"seconds,uplink_mbps\n0,{cell.mbps}\n1,{cell.mbps}\n")
    arm = Arm(AGENT if way == BEFORE else way, plan)  # by its name it is known to choose
    told = replace(setting, starts_on=f"{cell.mbps:g}mbps,{cell.round_trip_ms}ms")
    await play(arm, told, worker, path)
    return arm


def served(bundle: Bundle) -> tuple[subprocess.Popen[str], str]:
    """A worker's process, and its address."""
    return start([*adaptive.MAIN, "serve", str(bundle.folder), "--listen", "127.0.0.1:0"])


async def run(options: argparse.Namespace, folder: Path) -> tuple[Table, dict[str, Any], Simulated]:
    bundles = {AGENT: open_bundle(options.bundle or bundle_of(options, folder))}
    if options.before:
        bundles[BEFORE] = open_bundle(options.before)
    picture = bundles[AGENT].manifest.picture
    assert picture is not None
    pictures = options.images or own_photos(folder / "photos", 0)
    paths = find_pictures(pictures)[: 4 if options.quick else 50]
    pixels = [picture.read(path)[np.newaxis] for path in paths]
    devices = [8] if options.quick else options.slowdowns
    rates = [1.0] if options.quick else options.mbps
    workers = {way: served(bundle) for way, bundle in bundles.items()}
    rows, off, cells = [], [], []
    simulated: Simulated | None = None
    try:
        for slowdown in devices:
            settings = {}
            for way, bundle in bundles.items():
                mine = folder / f"x{slowdown}-{way}"
                mine.mkdir()
                profile = profile_of(bundle, paths, mine, slowdown, quick=options.quick)
                options.slowdown, options.deadline_ms = slowdown, BUDGET_MS
                settings[way] = replace(
                    await adaptive.settle(options, bundle, profile, pixels, workers[way][1], mine),
                    fps=options.fps,
                    lead_s=adaptive.QUICK_LEAD_S if options.quick else LEAD_S,
                )
            table = settings[AGENT].table
            kept = allowed(settings[AGENT])
            jpeg = jpeg_of(bundles[AGENT], table, kept)
            here = Simulated(table, kept, jpeg, slowdown, options.fps)
            if simulated is None or slowdown == options.drawn:
                simulated = here
            for mbps in rates:
                cell = Cell(slowdown, mbps)
                found = {}
                for way in (*bundles, LOCAL, JPEG):
                    if way == LOCAL and mbps != rates[0]:
                        found[LOCAL] = cells[-1][LOCAL]
                        continue
                    setting = settings.get(way, settings[AGENT])
                    address = workers.get(way, workers[AGENT])[1]
                    arm = await measured(setting, way, cell, jpeg, address, folder)
                    fps = options.fps * arm.percent(setting) / 100
                    said, _ = here.fps(way, cell, setting.seconds)
                    times = [r.total_ms for r in arm.results if r.outputs]
                    sent = [r.bytes_up for r in arm.results]
                    found[way] = fps
                    off.append(abs(fps - said))
                    rows.append([
                        f"x{slowdown}", f"{mbps:g} Mbit/s", way, f"{fps:.1f}", f"{said:.1f}",
                        f"{np.median(times):.0f}" if times else "-", f"{np.mean(sent) / 1e3:.1f}",
                    ])  # fmt: skip
                    say(" ".join(rows[-1]))
                cells.append(found)
    finally:
        for process, _ in workers.values():
            process.send_signal(signal.SIGTERM)
        for process, _ in workers.values():
            process.wait(30)
    assert simulated is not None
    gains = [c[AGENT] - max(c[LOCAL], c[JPEG]) for c in cells]
    # In every cell one of the two has some frames in time: the device does not need the link.
    ratios = [c[AGENT] / max(c[LOCAL], c[JPEG]) for c in cells]
    summary = {
        "cells": len(cells),
        "agent_above_both_by_more_than_5_percent": sum(ratio > 1.05 for ratio in ratios),
        "agent_below_the_better_by_more_than_5_percent": sum(ratio < 0.95 for ratio in ratios),
        "fps_over_the_better_mean": round(float(np.mean(gains)), 2),
        "times_the_better_most": round(max(ratios), 2),
        "simulator_off_fps_mean": round(float(np.mean(off)), 2),
        "simulator_off_fps_most": round(max(off), 2),
        "modelled": grid(simulated, devices) if not options.quick else {},
    }
    if options.before:
        summary["without_the_learned_codec"] = without(cells)
        if not options.quick:
            summary["without_it_modelled"] = grid(simulated, devices, BEFORE)
            summary["single_frame_modelled"] = single_frames(simulated, devices)
    return Table(COLUMNS, rows), summary, simulated


def without(cells: list[dict[str, float]]) -> dict[str, Any]:
    """The same of the agent without it, and how the two compare."""
    ratios = [c[BEFORE] / max(c[LOCAL], c[JPEG]) for c in cells]
    gains = [c[AGENT] - c[BEFORE] for c in cells]
    return {
        "agent_above_both_by_more_than_5_percent": sum(ratio > 1.05 for ratio in ratios),
        "fps_gained_by_it_mean": round(float(np.mean(gains)), 2),
        "fps_gained_by_it_most": round(max(gains), 2),
        "fps_lost_by_it_most": round(-min(gains), 2),
    }


def single_frames(simulated: Simulated, devices: list[int]) -> dict[str, Any]:
    """Milliseconds of one frame alone with the learned codec over those without it (modelled)."""
    cells = [
        Cell(slowdown, float(mbps), trip)
        for slowdown in devices for mbps in MBPS for trip in ROUND_TRIPS_MS
    ]  # fmt: skip
    ratios = [
        simulated.latency_ms(AGENT, cell) / simulated.latency_ms(BEFORE, cell) for cell in cells
    ]
    return {
        "cells": len(cells),
        "sooner_by_more_than_5_percent": sum(ratio < 0.95 for ratio in ratios),
        "best": round(min(ratios), 3),
        "mean": round(float(np.mean(ratios)), 3),
        "worst": round(max(ratios), 3),
    }


def grid(simulated: Simulated, devices: list[int], agent: str = AGENT) -> dict[str, Any]:
    """In how many simulated cells the agent has more frames than both, for each round trip."""
    found = {}
    for round_trip_ms in ROUND_TRIPS_MS:
        above = below = 0
        for slowdown in devices:
            for mbps in MBPS[::3]:
                cell = Cell(slowdown, float(mbps), round_trip_ms)
                mine, local, jpeg = (simulated.fps(way, cell)[0] for way in (agent, LOCAL, JPEG))
                above += mine > 1.05 * max(local, jpeg)
                below += mine < 0.95 * max(local, jpeg)
        found[f"{round_trip_ms} ms"] = {
            "above": above,
            "below": below,
            "of": len(devices) * len(MBPS[::3]),
        }
    return found


def draw(simulated: Simulated, model: str, slowdown: int, path: Path) -> None:
    """Frames a second and latency over the uplink, and below them what the agent chooses."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    colours = {LOCAL: "#6e6e6e", JPEG: "#d9822b", AGENT: "#1f6feb"}
    if len(simulated.before) < len(simulated.arms):
        colours[BEFORE] = "#8a63d2"
    figure, axes = pyplot.subplot_mosaic(
        [["fps", "ms"], ["mix", "ms"]], figsize=(11, 5.4), height_ratios=(3, 1),
        layout="constrained",
    )  # fmt: skip
    fps: dict[str, list[float]] = {way: [] for way in colours}
    mixes: list[dict[str, float]] = []
    for mbps in MBPS:
        for way in colours:
            found, tally = simulated.fps(way, Cell(slowdown, float(mbps)), 40.0)
            fps[way].append(found)
            if way == AGENT:
                mixes.append(shares(tally, names_of(simulated.table)))
    latency = {
        way: [simulated.latency_ms(way, Cell(slowdown, float(m))) for m in MBPS] for way in colours
    }
    better = np.maximum(fps[LOCAL], fps[JPEG])
    axes["fps"].fill_between(
        MBPS, better, fps[AGENT], where=np.array(fps[AGENT]) > better, interpolate=True,
        color=colours[AGENT], alpha=0.15, label="splitpoint has more than both",
    )  # fmt: skip
    for name, lines in (("fps", fps), ("ms", latency)):
        for way, values in lines.items():
            words = way.replace(AGENT, "splitpoint")
            axes[name].plot(MBPS, values, color=colours[way], label=words, lw=2.4)
    axes["mix"].stackplot(
        MBPS, *([100 * mix.get(kind, 0.0) for mix in mixes] for kind in KINDS),
        colors=[colours[LOCAL], colours[AGENT], colours[JPEG], "#e6e6e6"], labels=KINDS,
        alpha=0.8,
    )  # fmt: skip
    axes["fps"].set_ylabel(f"frames a second answered\nwithin {BUDGET_MS / 1e3:g} s")
    axes["fps"].set_ylim(0, simulated.camera_fps * 1.08)
    camera = f"A camera of {simulated.camera_fps:g} frames a second (simulated)"
    axes["fps"].set_title(camera, fontsize=10)
    axes["fps"].legend(loc="lower right", fontsize=8)
    axes["ms"].set_ylabel("ms until one frame has its answer")
    axes["ms"].set_title("One picture alone (modelled)", fontsize=10)
    axes["ms"].set_ylim(0, 2.2 * latency[LOCAL][0])
    axes["ms"].legend(loc="upper right", fontsize=8)
    axes["mix"].set_ylabel("splitpoint's\nmix, %")
    axes["mix"].set_ylim(0, 100)
    axes["mix"].legend(loc="lower right", fontsize=7, ncols=len(KINDS))
    for each in axes.values():
        each.set_xscale("log")
        each.set_xlim(MBPS[0], MBPS[-1])
        each.set_xticks([0.1, 0.3, 1, 3, 10, 30], ["0.1", "0.3", "1", "3", "10", "30"])
        each.minorticks_off()
        each.grid(visible=True, alpha=0.25)
    axes["mix"].set_xlabel("uplink, Mbit/s")
    axes["ms"].set_xlabel("uplink, Mbit/s")
    figure.suptitle(
        f"{model} on a device {slowdown} times slower than a server core, "
        f"{DRAWN_AT_MS} ms round trip",
        fontsize=12,
    )
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"drawn to {path}")


KINDS = ("on the device", "split", "as JPEG", "let go")


def shares(tally: Tally, names: list[str]) -> dict[str, float]:
    """Of the frames, by kind of way."""
    found = dict.fromkeys(KINDS, 0.0)
    total = sum(tally.used.values())
    for way, count in tally.used.items():
        name = names[way] if isinstance(way, int) else ""
        boundary, _, _ = name.rpartition(":")
        at = 3 if not name else 0 if name == "local" else 1 if boundary else 2
        found[KINDS[at]] += count / total
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images")
    parser.add_argument("--calibrate", help="photos for the codec's tables")
    parser.add_argument("--bundle", type=Path, help="a calibrated bundle instead of compiling one")
    parser.add_argument("--before", type=Path, help="the same model without the learned codec")
    parser.add_argument("--mbps", type=float, nargs="+", default=MEASURED_MBPS)
    parser.add_argument("--seconds", type=float, default=8, help="of each real run")
    parser.add_argument("--model", default=LITE0, help="what the bundle's is called in the picture")
    parser.add_argument("--fps", type=float, default=20, help="of the camera")
    parser.add_argument("--slowdowns", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--drawn", type=int, default=16, help="the slowdown of the picture")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        table, summary, simulated = asyncio.run(run(options, Path(name)))
    file = "worth" if options.model == LITE0 else f"worth-{options.model.lower()}"
    file += "-learned" * bool(options.before)
    write_report(file, str(__doc__).splitlines()[0], table, summary, save=not options.quick)
    if not options.quick:
        draw(simulated, options.model, options.drawn, RESULTS / f"{file}.png")


if __name__ == "__main__":
    main()
