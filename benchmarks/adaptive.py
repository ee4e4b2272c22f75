"""Does adapting pay on real mobile links?

Frames come ten a second, as from a camera, over recorded uplinks that a relay replays between agent
and worker, each a process of its own. For every trace the same frames go through the adaptive
agent, through static plans (the planner's own for links from 0.3 to 30 Mbit/s, among them all on
the device and the picture as JPEG), and through the best published rival: the same plans, chosen by
the 20th percentile of measured bandwidth, with hysteresis and a minimum hold. Static plans and the
rival have what they have in the papers: no finish on the device.

    python benchmarks/adaptive.py [--traces DIR] [--images DIR] [--calibrate DIR] [--slowdown 8]

The oracle knows the trace and takes for each frame the plan that is in time and keeps the device
busy for the shortest, with the link to itself. What it counts is modelled from the measured times
of every stage.

Longer than others: it carries its oracle and its rival.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from overhead import start
from photos import own_photos
from quick_model import QUICK, compiled
from report import Table, write_report
from rival_controller import Rival
from splitpoint.edge import AutoPlan, EdgeAgent, Given, Outcome, Result
from splitpoint.edge.dispatch.auto_plan import candidates, cloud_times, device_profiles
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.bundle.samples import find_pictures
from splitpoint.partition.plan.costs import OWN_MS, CostTable
from splitpoint.partition.plan.link import DEFAULT_ROUND_TRIP_MS, Capacity, parse_link, read_trace
from splitpoint.partition.plan.objective import Constraints, Objective
from splitpoint.partition.plan.online_planner import OnlinePlanner
from splitpoint.partition.plan.plan import NO_CODEC, Plan, name_of

MAIN = ["-c", "from splitpoint.cli.main import main; main()"]
FPS, THREADS = 10, 1
# Before a trace begins, agents start and warm up on a link of this rate.
LEAD_S, START_MBPS, START = 6.0, 5.0, "5mbps,50ms"
RIVAL = "percentile and hysteresis"
LINKS_MBPS = (0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass
class Arm:
    """One way to run the frames, and what became of them."""

    name: str
    plan: Plan | None = None  # None for those that choose
    results: list[Result] = field(default_factory=list)

    def in_time(self, deadline_ms: float) -> int:
        return sum(bool(r.outputs) and r.total_ms <= deadline_ms for r in self.results)


@dataclass
class Setting:
    """What all arms share."""

    bundle: Bundle
    table: CostTable
    profile: Path
    pixels: list[np.ndarray]
    tops: list[int]  # the unsplit model's answers
    slowdown: float
    deadline_ms: float
    seconds: float
    cache: Path

    @property
    def frames(self) -> int:
        return int(self.seconds * FPS)


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def window(trace: Path, seconds: float, folder: Path) -> Path:
    """The part of a trace whose mean is nearest to the whole one's, after a lead-in."""
    with trace.open(newline="") as stream:
        rows = [
            (float(row["seconds"]), float(row["uplink_mbps"])) for row in csv.DictReader(stream)
        ]
    rates, count = np.array([rate for _, rate in rows]), int(seconds * 10)
    starts = range(0, max(len(rates) - count, 1), count)
    mean = rates.mean()
    first = min(starts, key=lambda at: abs(rates[at : at + count].mean() - mean))
    path = folder / f"{trace.stem}-window.csv"
    steps = [START_MBPS] * int(10 * LEAD_S) + list(rates[first : first + count])
    lines = [f"{i / 10},{rate}" for i, rate in enumerate(steps)]
    path.write_text("seconds,uplink_mbps\n" + "\n".join(lines) + "\n")
    return path


async def camera(setting: Setting, begin: float) -> AsyncIterator[Given]:
    """A frame each tenth of a second, whatever becomes of them."""
    tensor = setting.bundle.manifest.boundaries[0].tensors[0].name
    for number in range(setting.frames):
        await asyncio.sleep(max(begin + number / FPS - time.perf_counter(), 0))
        photo = number % len(setting.pixels)
        yield Given(inputs={tensor: setting.pixels[photo]}, metadata=photo)


async def play(arm: Arm, setting: Setting, worker: str, trace: Path) -> None:
    """The frames of one arm, over a relay of its own: each begins with the trace."""
    adaptive = arm.name == "adaptive"
    process, address = start(
        [*MAIN, "emulate", "--server", worker, "--listen", "127.0.0.1:0", "--link", str(trace)]
    )
    begin_s = time.perf_counter() + LEAD_S
    try:
        async with EdgeAgent(
            address,
            bundle=setting.bundle.folder,
            auto=AutoPlan(profile=setting.profile, link=parse_link(START)),
            adapt=adaptive,
            finish_locally=adaptive,
            cache=setting.cache,
            threads=THREADS,
            slowdown=setting.slowdown,
            budget_ms=setting.deadline_ms,
        ) as agent:
            if adaptive:
                agent.on_switch = lambda why: say(f"    {time.perf_counter() - begin_s:5.1f} {why}")
            if arm.plan is not None:
                await agent.switch(arm.plan)
            rival = Rival(setting.table, agent) if arm.name == RIVAL else None
            frames = camera(setting, begin_s)
            async for result in agent.stream(frames, live=True):
                arm.results.append(result)
                if rival is not None:
                    await rival.saw(result)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert len(arm.results) == setting.frames, (arm.name, len(arm.results))


def oracle(setting: Setting, trace: Path) -> int:
    """Frames that the best plan for each would have answered in time.

    A frame has the link to itself. The device has one at a time: it takes the plan, of those in
    time, that keeps it busy for the shortest, and a frame that no plan could answer in time is left
    out.
    """
    capacity, table = Capacity(read_trace(trace)), setting.table
    own_s = (table.edge_ms + table.encode_ms) / 1e3
    after_s = (DEFAULT_ROUND_TRIP_MS + OWN_MS + table.server_ms) / 1e3
    possible = np.flatnonzero(
        OnlinePlanner(table, setting.bundle.manifest, LATENCY, Constraints()).allowed
    )
    possible = possible[np.argsort(own_s[possible])]
    free_s, count = 0.0, 0
    for number in range(setting.frames):
        taken_s = LEAD_S + number / FPS
        begin_s = max(taken_s, free_s)
        for i in possible:
            end_s = begin_s + own_s[i]
            if end_s - taken_s > setting.deadline_ms / 1e3:
                break
            done_s = end_s
            if table.sends[i]:
                done_s = capacity.finish_s(end_s, table.nbytes[i]) + after_s[i]
            if done_s - taken_s <= setting.deadline_ms / 1e3:
                free_s, count = end_s, count + 1
                break
    return count


LATENCY = Objective({"latency": 1.0})


def static_plans(setting: Setting) -> list[Arm]:
    """All on the device, the picture as JPEG, and what is best on some steady link."""
    table, last = setting.table, len(setting.bundle.manifest.segments)
    arms = [
        Arm("all on the device", Plan(boundary=last, codec=NO_CODEC)),
        Arm("the input as jpeg", Plan(boundary=0, codec="jpeg")),
    ]
    planner = OnlinePlanner(table, setting.bundle.manifest, LATENCY, Constraints())
    for mbps in LINKS_MBPS:
        index = planner.decide(uplink_mbps=mbps, round_trip_ms=DEFAULT_ROUND_TRIP_MS)
        assert index is not None
        plan = Plan(boundary=int(table.boundary[index]), codec=table.codec[index])
        name = name_of(plan.boundary, plan.codec)
        if name not in [arm.name for arm in arms]:
            arms.append(Arm(name, plan))
    return arms


def row(trace: str, arm: Arm, setting: Setting, best: int) -> list[str]:
    times = np.array([r.total_ms for r in arm.results if r.outputs])
    tops = [(int(np.argmax(next(iter(r.outputs.values()))[0])), r.metadata)
            for r in arm.results if r.outputs]  # fmt: skip
    changed = np.mean([top != setting.tops[photo] for top, photo in tops]) if tops else 0.0
    outcomes = [sum(r.outcome is o for r in arm.results) for o in Outcome]
    assert sum(outcomes) == setting.frames
    percentiles = [f"{np.percentile(times, p):.0f}" if len(times) else "-" for p in (50, 95, 99)]
    megabytes = sum(r.bytes_up for r in arm.results) / 1e6
    share = f"{100 * arm.in_time(setting.deadline_ms) / setting.frames:.1f} %"
    return [
        trace, arm.name, share, f"{100 * best / setting.frames:.1f} %", *percentiles,
        f"{megabytes:.2f}", f"{100 * changed:.1f} %", "/".join(map(str, outcomes)),
    ]  # fmt: skip


COLUMNS = [
    "trace", "agent", "in time", "oracle", "p50 ms", "p95 ms", "p99 ms", "MB up", "top-1 changed",
    "cloud/device/expired/failed",
]  # fmt: skip


async def run(options: argparse.Namespace, folder: Path) -> tuple[Table, dict[str, Any]]:
    target = options.bundle or bundle_of(options, folder)
    bundle = open_bundle(target)
    assert bundle.manifest.picture is not None
    paths = find_pictures(options.images or own_photos(folder / "photos", 0))[
        : 4 if options.quick else 50
    ]
    pixels = [bundle.manifest.picture.read(path)[np.newaxis] for path in paths]
    profile = profile_of(bundle, paths, folder, options.slowdown, quick=options.quick)
    traces = traces_of(options.traces, folder)
    process, worker = start([*MAIN, "serve", str(target), "--listen", "127.0.0.1:0"])
    rows, summary = [], {}
    try:
        setting = await settle(options, bundle, profile, pixels, worker, folder)
        for trace in traces[: 1 if options.quick else None]:
            part = window(trace, setting.seconds, folder)
            best = oracle(setting, part)
            arms = [Arm("adaptive"), Arm(RIVAL), *static_plans(setting)]
            if options.quick:
                arms = arms[:2]
            for arm in arms:
                await play(arm, setting, worker, part)
                say(f"{trace.stem}: {arm.name}: {arm.in_time(setting.deadline_ms)} in time "
                    f"of {setting.frames}, oracle {best}")  # fmt: skip
                rows.append(row(trace.stem, arm, setting, best))
            counts = {arm.name: arm.in_time(setting.deadline_ms) for arm in arms}
            others = {name: n for name, n in counts.items() if name != "adaptive"}
            summary[trace.stem] = {
                "frames": setting.frames, "oracle": best, "adaptive": counts["adaptive"],
                "best_other": max(others, key=lambda name: others[name]),
                "best_other_in_time": max(others.values()),
            }  # fmt: skip
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    found = [s for s in summary.values() if isinstance(s, dict)]
    short = [(s["oracle"] - s["adaptive"]) / s["frames"] for s in found]
    summary |= {
        "most_on": sum(s["adaptive"] >= s["best_other_in_time"] for s in found),
        "traces": len(found),
        "mean_short_of_oracle_percent": round(100 * float(np.mean(short)), 2),
        "slowdown": f"{options.slowdown:g} (emulated)",
        "deadline_ms": options.deadline_ms,
    }
    return Table(COLUMNS, rows), summary


async def settle(
    options: argparse.Namespace, bundle: Bundle, profile: Path, pixels: list[np.ndarray],
    worker: str, folder: Path,
) -> Setting:  # fmt: skip
    """Candidates as the agent itself costs them, and the unsplit model's answers."""
    auto = AutoPlan(profile=profile, link=parse_link(START))
    tensor = bundle.manifest.boundaries[0].tensors[0].name
    async with EdgeAgent(
        worker, bundle=bundle.folder, split="local", cache=folder / "cache", threads=THREADS
    ) as agent:
        results = [await agent.infer({tensor: array}) for array in pixels]
        said = agent.session.prepared.serving
        assert said is not None
        profiles = device_profiles(bundle, auto, folder=folder, threads=THREADS, slowdown=1)
        table = candidates(bundle, auto, profiles, cloud_times(said.info), "auto")
    tops = [int(np.argmax(next(iter(result.outputs.values()))[0])) for result in results]
    return Setting(
        bundle=bundle, table=table, profile=profile, pixels=pixels, tops=tops,
        slowdown=options.slowdown, deadline_ms=options.deadline_ms,
        seconds=2 if options.quick else options.seconds, cache=folder / "cache",
    )  # fmt: skip


def bundle_of(options: argparse.Namespace, folder: Path) -> Path:
    if options.quick:
        return compiled(QUICK, folder / "quick.split")
    photos = options.calibrate or own_photos(folder / "calibration", 1)
    return compiled("efficientnet-lite0", folder / "lite0.split", "--calibrate", str(photos))


def profile_of(
    bundle: Bundle, paths: list[Path], folder: Path, slowdown: float, *, quick: bool
) -> Path:
    path = folder / "profile.json"
    photos = folder / "profiled"
    photos.mkdir(exist_ok=True)
    for photo in paths[:20]:
        (photos / photo.name).symlink_to(photo.resolve())
    say("profiling the device")
    subprocess.run(
        [sys.executable, *MAIN, "profile", str(bundle.folder), "--pictures", str(photos),
         "--threads", str(THREADS), "--slowdown", f"{slowdown:g}",
         "--max-seconds", "3" if quick else "20", "--out", str(path), "--json"],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return path


def traces_of(given: str | None, folder: Path) -> list[Path]:
    return sorted(Path(given).glob("*.csv")) if given else [own_trace(folder)]


def own_trace(folder: Path) -> Path:
    """For want of a recorded one: good, poor and no link in turn."""
    path = folder / "five-steps.csv"
    rates = [8, 1, 0, 3, 0.5]
    lines = [f"{i / 10},{rates[i // 10 % len(rates)]}" for i in range(600)]
    path.write_text("seconds,uplink_mbps\n" + "\n".join(lines) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", help="CSV files of seconds,uplink_mbps")
    parser.add_argument("--images")
    parser.add_argument("--calibrate", help="photos for the codec's tables")
    parser.add_argument("--bundle", type=Path, help="a calibrated bundle instead of compiling one")
    parser.add_argument("--slowdown", type=float, default=8)
    parser.add_argument("--deadline-ms", type=float, default=300)
    parser.add_argument("--seconds", type=float, default=30, help="of each trace")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        table, summary = asyncio.run(run(options, Path(name)))
    write_report("adaptive", str(__doc__).splitlines()[0], table, summary, save=not options.quick)


if __name__ == "__main__":
    main()
