"""Does choosing for each frame pay on real mobile links, and is the simulator right about it?

Frames come ten a second, as from a camera, over recorded uplinks that a relay replays between agent
and worker, each a process of its own. For every trace the same frames go through the agent that
chooses, through all on the device, the picture as JPEG, and the three fixed ways that the simulator
ranks best in hindsight among every boundary, codec and level, with and without finishing on the
device; and through the best published rival: plans chosen by the 20th percentile of measured
bandwidth, with hysteresis and a minimum hold. Beside each stands what the simulator says of it.

    python benchmarks/adaptive.py [--traces DIR] [--images DIR] [--calibrate DIR] [--slowdown 8]

The rival is not simulated: its code is not the agent's.

Longer than others: what it measures is simulated beside it.
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
from listening import start
from photos import own_photos
from quick_bundle import QUICK, compiled
from report import Table, write_report
from rival_controller import Rival
from splitpoint.edge import AutoPlan, EdgeAgent, Given, Outcome, Result
from splitpoint.edge.dispatch.arms import Arms
from splitpoint.edge.dispatch.auto_plan import candidates, cloud_times, device_profiles
from splitpoint.edge.simulation.course import Course, Truth
from splitpoint.edge.simulation.policies import Dispatching, Fixed
from splitpoint.edge.simulation.world import Policy, World
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.bundle.samples import find_pictures
from splitpoint.partition.plan.costs import CostTable
from splitpoint.partition.plan.link import parse_link, read_trace
from splitpoint.partition.plan.objective import Constraints, Objective
from splitpoint.partition.plan.online_planner import OnlinePlanner
from splitpoint.partition.plan.plan import NO_CODEC, Plan, name_of

MAIN = ["-c", "from splitpoint.cli.main import main; main()"]
FPS, THREADS = 10, 1
# Before a trace begins, agents start and warm up on a link of this rate.
LEAD_S, QUICK_LEAD_S, START_MBPS, START = 6.0, 1.5, 5.0, "5mbps,50ms"
AGENT, RIVAL, BEST = "the agent", "percentile and hysteresis", 3


@dataclass
class Arm:
    """One way to run the frames, and what became of them."""

    name: str
    plan: Plan | None = None  # None for those that choose
    finishes: bool = False
    results: list[Result] = field(default_factory=list)

    def percent(self, setting: Setting) -> float:
        """In time."""
        within_ms = setting.deadline_ms
        count = sum(bool(r.outputs) and r.total_ms <= within_ms for r in self.results)
        return 100 * count / setting.frames


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
    fps: float = FPS
    lead_s: float = LEAD_S  # before the first frame
    starts_on: str = START  # the link that the agent is told of

    @property
    def frames(self) -> int:
        return int(self.seconds * self.fps)


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def window(trace: Path, seconds: float, lead_s: float, folder: Path) -> Path:
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
    steps = [START_MBPS] * int(10 * lead_s) + list(rates[first : first + count])
    lines = [f"{i / 10},{rate}" for i, rate in enumerate(steps)]
    path.write_text("seconds,uplink_mbps\n" + "\n".join(lines) + "\n")
    return path


async def camera(setting: Setting, begin: float) -> AsyncIterator[Given]:
    """Frames at their rate, whatever becomes of them."""
    tensor = setting.bundle.manifest.boundaries[0].tensors[0].name
    for number in range(setting.frames):
        await asyncio.sleep(max(begin + number / setting.fps - time.perf_counter(), 0))
        photo = number % len(setting.pixels)
        yield Given(inputs={tensor: setting.pixels[photo]}, metadata=photo)


async def play(arm: Arm, setting: Setting, worker: str, trace: Path) -> None:
    """The frames of one arm, over a relay of its own: each begins with the trace."""
    adaptive = arm.name == AGENT
    process, address = start(
        [*MAIN, "emulate", "--server", worker, "--listen", "127.0.0.1:0", "--link", str(trace)]
    )
    begin_s = time.perf_counter() + setting.lead_s
    try:
        async with EdgeAgent(
            address,
            bundle=setting.bundle.folder,
            auto=AutoPlan(profile=setting.profile, link=parse_link(setting.starts_on)),
            adapt=adaptive,
            finish_locally=adaptive or arm.finishes,
            cache=setting.cache,
            threads=THREADS,
            slowdown=setting.slowdown,
            budget_ms=setting.deadline_ms,
        ) as agent:
            await agent.settled()
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


def simulated(arm: Arm, setting: Setting, trace: Path) -> float | None:
    """Percent in time, of the same frames under a virtual clock; None for the rival."""
    policy: Policy
    if arm.name == RIVAL:
        return None
    if arm.plan is None:
        arms = Arms.of(setting.table, allowed(setting), np.zeros(len(setting.table)))
        policy = Dispatching(arms, 125e3 * START_MBPS)
    else:
        policy = Fixed(index_of(arm.plan, setting.table), finishes=arm.finishes)
    return World(Truth.of(setting.table), course(setting, trace), policy).run().percent


def course(setting: Setting, trace: Path) -> Course:
    return Course(
        link=read_trace(trace), interval_s=1 / setting.fps, budget_s=setting.deadline_ms / 1e3,
        frames=setting.frames, start_s=setting.lead_s,
    )  # fmt: skip


def allowed(setting: Setting) -> Any:
    return OnlinePlanner(
        setting.table, setting.bundle.manifest, Objective({"latency": 1.0}), Constraints()
    ).allowed


def index_of(plan: Plan, table: CostTable) -> int:
    keys = list(zip(table.boundary.tolist(), table.codec, strict=True))
    return keys.index((plan.boundary, plan.codec))


def fixed_arms(setting: Setting, trace: Path) -> list[Arm]:
    """All on the device, the picture as JPEG, and the best of all others in the simulator."""
    table, last = setting.table, len(setting.bundle.manifest.segments)
    arms = [
        Arm("all on the device", Plan(boundary=last, codec=NO_CODEC)),
        Arm("the input as jpeg", Plan(boundary=0, codec="jpeg")),
    ]
    others = []
    for index in np.flatnonzero(allowed(setting)):
        plan = Plan(boundary=int(table.boundary[index]), codec=table.codec[index])
        if not table.sends[index] or (plan.boundary, plan.codec) == (0, "jpeg"):
            continue
        name = name_of(plan.boundary, plan.codec)
        for finishes in (False, True):
            arm = Arm(name + (", finishing" if finishes else ""), plan, finishes=finishes)
            others.append((-(simulated(arm, setting, trace) or 0.0), len(others), arm))
    return arms + [arm for _, _, arm in sorted(others)[:BEST]]


def row(trace: str, arm: Arm, setting: Setting, said: float | None) -> list[str]:
    times = np.array([r.total_ms for r in arm.results if r.outputs])
    tops = [(int(np.argmax(next(iter(r.outputs.values()))[0])), r.metadata)
            for r in arm.results if r.outputs]  # fmt: skip
    changed = np.mean([top != setting.tops[photo] for top, photo in tops]) if tops else 0.0
    outcomes = [sum(r.outcome is o for r in arm.results) for o in Outcome]
    assert sum(outcomes) == setting.frames
    percentiles = [f"{np.percentile(times, p):.0f}" if len(times) else "-" for p in (50, 95, 99)]
    megabytes = sum(r.bytes_up for r in arm.results) / 1e6
    share = f"{arm.percent(setting):.1f} %"
    return [
        trace, arm.name, share, "-" if said is None else f"{said:.1f} %", *percentiles,
        f"{megabytes:.2f}", f"{100 * changed:.1f} %", "/".join(map(str, outcomes)),
    ]  # fmt: skip


COLUMNS = [
    "trace", "way", "in time", "simulated", "p50 ms", "p95 ms", "p99 ms", "MB up", "top-1 changed",
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
    rows: list[list[str]] = []
    summary: dict[str, dict[str, dict[str, float | None]]] = {}
    try:
        setting = await settle(options, bundle, profile, pixels, worker, folder)
        for trace in traces[: 1 if options.quick else None]:
            part = window(trace, setting.seconds, setting.lead_s, folder)
            arms = [Arm(AGENT), Arm(RIVAL), *fixed_arms(setting, part)]
            if options.quick:
                arms = arms[:3]
            says = {arm.name: simulated(arm, setting, part) for arm in arms}
            for arm in arms:
                await play(arm, setting, worker, part)
                said = says[arm.name]
                say(f"{trace.stem}: {arm.name}: {arm.percent(setting):.1f} % in time, "
                    f"{'-' if said is None else f'{said:.1f}'} simulated")  # fmt: skip
                rows.append(row(trace.stem, arm, setting, said))
            summary[trace.stem] = {
                arm.name: {"in_time": arm.percent(setting), "simulated": says[arm.name]}
                for arm in arms
            }
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    return Table(COLUMNS, rows), {
        "traces": summary,
        **judged(summary),
        "slowdown": f"{options.slowdown:g} (emulated)",
        "deadline_ms": options.deadline_ms,
    }


def in_short(traces: dict[str, dict[str, dict[str, float | None]]]) -> Table:
    """Percent in time a trace, in brackets as simulated; of the fixed ways the best."""
    first = [AGENT, RIVAL, "all on the device", "the input as jpeg"]

    def cell(found: dict[str, float | None]) -> str:
        said = found["simulated"]
        return f"{found['in_time']:.1f}" + ("" if said is None else f" ({said:.1f})")

    rows = []
    for trace, ways in traces.items():
        others = {name: found for name, found in ways.items() if name not in first}
        best = max(others, key=lambda name: others[name]["in_time"] or 0.0, default="")
        rows.append([
            trace, *(cell(ways[name]) if name in ways else "-" for name in first),
            f"{cell(others[best])} {best}" if best else "-",
        ])  # fmt: skip
    return Table(["trace", "the agent", "rival", "device", "JPEG", "best fixed way"], rows)


def judged(traces: dict[str, dict[str, dict[str, float | None]]]) -> dict[str, Any]:
    """How far the agent is from the best other way, and the simulator from what was measured."""
    short, over, off = [], [], []
    for ways in traces.values():
        counts = {name: found["in_time"] or 0.0 for name, found in ways.items()}
        mine = counts.pop(AGENT)
        short.append(max(counts.values()) - mine)
        simple = [counts[name] for name in list(counts)[:3]]
        if max(simple) < 90:
            over.append(mine - max(simple))
        off += [abs(f["in_time"] - f["simulated"]) for f in ways.values()
                if f["simulated"] is not None and f["in_time"] is not None]  # fmt: skip
    return {
        "below_the_best_mean": round(float(np.mean(short)), 2),
        "below_the_best_most": round(max(short), 2),
        "above_device_jpeg_and_rival_where_below_90_mean":
            round(float(np.mean(over)), 2) if over else None,
        "simulator_off_mean": round(float(np.mean(off)), 2),
        "simulator_off_most": round(max(off), 2),
    }  # fmt: skip


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
        lead_s=QUICK_LEAD_S if options.quick else LEAD_S,
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
         "--max-seconds", "1" if quick else "20", "--out", str(path), "--json"],
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
    write_report(
        "adaptive", str(__doc__).splitlines()[0], table, summary, save=not options.quick,
        in_short=[in_short(summary["traces"])], variant=f"{options.slowdown:g}-times-slower",
    )  # fmt: skip


if __name__ == "__main__":
    main()
