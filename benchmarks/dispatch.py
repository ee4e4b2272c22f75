"""How far is the agent's dispatcher from the best fixed way, and from one that knows the future?

A simulation: EfficientNet-Lite0 as profiled, on devices 4 to 32 times slower than this machine, at
5, 10 and 20 frames a second with budgets of 200, 300 and 1,000 ms, over recorded and generated
uplinks, and once with a worker whose queue rises and falls. In each cell the dispatcher runs beside
every fixed way in hindsight (boundary x codec x level, with and without finishing on the device;
"best jpeg" is the best level of it), and the bound of a clairvoyant, which errs upwards. Everything
is modelled: benchmarks/adaptive.py measures how true the simulator is.

    python benchmarks/dispatch.py --bundle NAME.split [--traces DIR] [--seconds 60]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from itertools import product
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from adaptive import bundle_of, profile_of
from photos import own_photos
from report import Table, write_report
from splitpoint.edge.dispatch.arms import Arms
from splitpoint.edge.simulation.bound import most_in_time
from splitpoint.edge.simulation.course import Course, Truth
from splitpoint.edge.simulation.links import generated
from splitpoint.edge.simulation.policies import Dispatching, Fixed
from splitpoint.edge.simulation.world import World
from splitpoint.partition.bundle.bundle import open_bundle
from splitpoint.partition.bundle.samples import find_pictures
from splitpoint.partition.energy.radio import radio_for
from splitpoint.partition.plan.costs import CostTable, cost_table
from splitpoint.partition.plan.link import Link, read_trace
from splitpoint.partition.plan.objective import Constraints, Objective
from splitpoint.partition.plan.online_planner import OnlinePlanner
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.partition.profile.profile import load_profile

SLOWDOWNS, FPS, BUDGETS_S = (4, 8, 16, 32), (5, 10, 20), (0.2, 0.3, 1.0)
START_S, WORST, BUSY = 2.0, 12, "a busy worker"
COLUMNS = ["device", "fps", "budget ms", "link", "dispatch", "best fixed way", "of", "device",
           "best jpeg", "clairvoyant", "its ways"]  # fmt: skip


@dataclass(frozen=True)
class Cell:
    slowdown: int
    fps: int
    budget_s: float
    link: str


@dataclass
class Found:
    """Percent in time, and how often the dispatcher took each way."""

    dispatch: float
    fixed: dict[str, float]
    bound: float
    used: dict[str, int]
    decision_us: float

    @property
    def best(self) -> str:
        return max(self.fixed, key=lambda name: self.fixed[name])

    @property
    def over_best(self) -> float:
        return self.dispatch - self.fixed[self.best]

    @property
    def over_rivals(self) -> float:
        return self.dispatch - max(self.fixed["local"], self.fixed["best jpeg"])


def names_of(table: CostTable) -> list[str]:
    return [
        codec if boundary == 0 else f"{boundary}:{codec}" if sends else "local"
        for boundary, codec, sends in zip(table.boundary, table.codec, table.sends, strict=True)
    ]


def worth_trying(table: CostTable, allowed: np.ndarray) -> list[int]:
    """Those that no other beats in compute, in compute and encoding together, and in bytes."""
    sizes = np.stack([table.edge_ms, table.edge_ms + table.encode_ms, table.nbytes], 1)
    found = np.flatnonzero(allowed)
    return [
        int(i) for i in found
        if not any((sizes[j] <= sizes[i]).all() and (sizes[j] < sizes[i]).any() for j in found)
    ]  # fmt: skip


@dataclass
class Study:
    table: CostTable
    allowed: np.ndarray
    links: dict[str, Link]
    seconds: float

    def course(self, cell: Cell) -> Course:
        link = self.links[cell.link if cell.link != BUSY else "steady"]
        lasts_s = min(self.seconds, link.trace[-1][0] - START_S - 1)
        return Course(
            link=link, interval_s=1 / cell.fps, budget_s=cell.budget_s,
            frames=int(lasts_s * cell.fps), start_s=START_S,
            wait_s=busy if cell.link == BUSY else idle,
        )  # fmt: skip

    def run(self, cell: Cell) -> Found:
        course, truth = self.course(cell), Truth.of(self.table, cell.slowdown)
        names, fixed = names_of(self.table), {}
        ways = worth_trying(self.table, self.allowed)
        for index in ways:
            fixed[names[index]] = World(truth, course, Fixed(index)).run().percent
            if self.table.sends[index]:
                fixed[f"{names[index]}, finishing"] = (
                    World(truth, course, Fixed(index, finishes=True)).run().percent
                )
        fixed["best jpeg"] = max(v for n, v in fixed.items() if n.startswith("jpeg"))
        arms = Arms.of(self.table, self.allowed, np.zeros(len(self.table)))
        at_first = [mbps for at, mbps in course.link.trace if at < START_S]
        policy = Dispatching(
            arms, max(125e3 * float(np.mean(at_first)), 1e4), slowdown=cell.slowdown
        )
        begun = time.process_time()
        tally = World(truth, course, policy).run()
        took_us = 1e6 * (time.process_time() - begun) / course.frames
        used = {names[k] if isinstance(k, int) else str(k): n for k, n in tally.used.items()}
        bound = most_in_time(truth, np.array(ways), course)
        return Found(tally.percent, fixed, bound, used, took_us)


def idle(now_s: float) -> float:
    return 0.0


def busy(now_s: float) -> float:
    """A worker's queue over a short day."""
    return float(0.1 * max(np.sin(2 * np.pi * now_s / 30), 0.0))


def cells_of(links: dict[str, Link]) -> list[Cell]:
    return [Cell(*cell) for cell in product(SLOWDOWNS, FPS, BUDGETS_S, [*links, BUSY])]


def judged(found: dict[Cell, Found]) -> dict[str, Any]:
    best = np.array([f.over_best for f in found.values()])
    rivals = np.array([f.over_rivals for f in found.values()])
    short = np.array([f.bound - f.dispatch for f in found.values()])
    return {
        "cells": len(found),
        "over_best_fixed_mean": round(float(best.mean()), 2),
        "over_best_fixed_least": round(float(best.min()), 2),
        "more_than_1_below_best_fixed_percent": round(100 * float((best < -1).mean()), 1),
        "more_than_4_below_best_fixed_percent": round(100 * float((best < -4).mean()), 1),
        "over_device_and_jpeg_mean": round(float(rivals.mean()), 2),
        "over_device_and_jpeg_least": round(float(rivals.min()), 2),
        "more_than_1_below_device_or_jpeg": int((rivals < -1).sum()),
        "short_of_clairvoyant_mean": round(float(short.mean()), 2),
        "cpu_us_a_frame_with_its_simulation": round(
            float(np.mean([f.decision_us for f in found.values()])), 0
        ),
    }


def row(cell: Cell, found: Found) -> list[str]:
    ways = sorted(found.used.items(), key=lambda item: -item[1])[:4]
    return [
        f"x{cell.slowdown}", str(cell.fps), f"{1e3 * cell.budget_s:.0f}", cell.link,
        f"{found.dispatch:.1f} %", found.best, f"{found.fixed[found.best]:.1f} %",
        f"{found.fixed['local']:.1f} %", f"{found.fixed['best jpeg']:.1f} %",
        f"{found.bound:.1f} %",
        ", ".join(f"{n} {name}" for name, n in ways),
    ]  # fmt: skip


@cache
def study_of(bundle: str, profile: str, traces: str, seconds: float) -> Study:
    opened = open_bundle(Path(bundle))
    device = load_profile(Path(profile), opened.digest)
    table = cost_table(
        opened.manifest, [device], CloudTimes.from_profile(device), radio=radio_for("")
    )
    planner = OnlinePlanner(table, opened.manifest, Objective({"latency": 1.0}), Constraints())
    recorded = sorted(Path(traces).glob("*.csv")) if traces else []
    links = {path.stem: read_trace(path) for path in recorded}
    links |= generated(seconds + START_S + 2)
    return Study(table, planner.allowed, links, seconds)


def work(job: tuple[tuple[str, str, str, float], Cell]) -> tuple[Cell, Found]:
    study, cell = job
    return cell, study_of(*study).run(cell)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", default="", help="CSV files of seconds,uplink_mbps")
    parser.add_argument("--images")
    parser.add_argument("--calibrate", help="photos for the codec's tables")
    parser.add_argument("--bundle", type=Path, help="a calibrated bundle instead of compiling one")
    parser.add_argument("--seconds", type=float, default=60, help="of each link")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = open_bundle(options.bundle or bundle_of(options, folder))
        pictures = options.images or own_photos(folder / "photos", 0)
        paths = find_pictures(pictures)[: 4 if options.quick else 50]
        profile = profile_of(bundle, paths, folder, 1, quick=options.quick)
        seconds = 5.0 if options.quick else options.seconds
        study = (str(bundle.folder), str(profile), options.traces, seconds)
        cells = cells_of(study_of(*study).links)
        with Pool(options.processes) as pool:
            jobs = [(study, cell) for cell in (cells[::40] if options.quick else cells)]
            found = dict(pool.imap_unordered(work, jobs, chunksize=1))
    worst = sorted(found, key=lambda cell: min(found[cell].over_best, found[cell].over_rivals))
    table = Table(COLUMNS, [row(cell, found[cell]) for cell in worst[:WORST]])
    title = f"{str(__doc__).splitlines()[0]} The {WORST} worst cells:"
    write_report("dispatch", title, table, judged(found), save=not options.quick)


if __name__ == "__main__":
    main()
