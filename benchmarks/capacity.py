"""How many devices does a GPU carry?

MODELLED, from batch times: the worker's own schedule runs under a virtual clock, on a device that
takes exactly as long as the times say. They are measured here (on a CPU, unless there is a GPU), or
given as a JSON document; no GPU was measured for the results in this repository. Frames of many
devices come at random; sought is the rate at which 1 % of them are refused, and left to their
devices. From it follow devices a worker, and workers for a thousand to a million devices. Last, a
million devices' own frames are dealt out to so many workers for a short while, as a check.

    python benchmarks/capacity.py [--model efficientnet-lite0] [--fps 1] [--budget-ms 100 300]
    python benchmarks/capacity.py --times gpu.json
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from report import Table, write_report
from serving import bundle_of
from splitpoint.cloud.schedule.batch_times import BatchTimes
from virtual_worker import Arrival, Share, TimedModel, poisson, serve

FLEETS = (1_000, 10_000, 100_000, 1_000_000)
REFUSED = 0.01
MANY = 1_000  # devices of one simulated worker: none of them comes near a client's share
WARM = 0.2  # of the simulated time
CLOSE = 0.02  # how exactly the rate is sought


@dataclass(frozen=True)
class Case:
    """Where frames enter, with which shares, and how long each may stay at the worker."""

    what: str
    cuts: tuple[int, ...]
    shares: tuple[float, ...]
    budget_ms: float


@dataclass(frozen=True)
class Capacity:
    """What one worker can do in a case."""

    per_s: float
    share: Share


def cases(segments: int, budgets_ms: Sequence[float]) -> list[Case]:
    """All at the input, all in the middle, all at the last cut, and a mixture."""
    middle, last = segments // 2, segments - 1
    places = {
        "input": ((0,), (1.0,)),
        f"boundary {middle}": ((middle,), (1.0,)),
        f"boundary {last}": ((last,), (1.0,)),
        "half input, rest mixed": ((0, *range(1, segments)), (segments - 1.0, *[1.0] * last)),
    }
    return [Case(what, cuts, shares, budget)
            for budget in budgets_ms for what, (cuts, shares) in places.items()]  # fmt: skip


def at_rate(model: TimedModel, case: Case, per_s: float, frames: int) -> Share:
    """So many frames at a rate, and what became of them."""
    seconds = frames / per_s
    arrivals = poisson(per_s, seconds, case.cuts, case.shares, 7, MANY)
    return serve(model, arrivals, case.budget_ms / 1e3, WARM * seconds, seconds)


def capacity(model: TimedModel, case: Case, frames: int) -> Capacity | None:
    """The highest rate with at most 1 % refused; None where even frames alone are too slow."""
    times, weight = model.batch_times, sum(case.shares)
    if max(times.suffix_s(cut, 1) for cut in case.cuts) > case.budget_ms / 1e3:
        return None
    most = times.max_batch
    each_s = sum(
        share / weight * min(times.suffix_s(cut, n) / n for n in range(1, most + 1))
        for cut, share in zip(case.cuts, case.shares, strict=True)
    )
    low, high = 0.0, 1.2 / each_s  # nobody does more than in the best batches alone
    found: Capacity | None = None
    while high - low > CLOSE * high:
        middle = (low + high) / 2
        share = at_rate(model, case, middle, frames)
        if share.refusals <= REFUSED:
            low, found = middle, Capacity(middle, share)
        else:
            high = middle
    return found


def fleet_refusals(
    model: TimedModel, case: Case, workers: int, fps: float, *, dealt: bool, sample: int
) -> float:
    """The share refused of a million devices' frames, over `sample` of the workers.

    Each device sends every 1/fps s, from a moment of its own. `dealt` out evenly, or each to a
    worker by chance.
    """
    chance = np.random.default_rng(11)
    devices = FLEETS[-1]
    worker = np.arange(devices) % workers if dealt else chance.integers(0, workers, devices)
    phase, weights = chance.uniform(0, 1 / fps, devices), np.array(case.shares)
    cut = chance.choice(np.array(case.cuts), devices, p=weights / weights.sum())
    seconds = max(5 * case.budget_ms / 1e3, 2.0)
    offered = refused = 0
    for number in range(min(sample, workers)):
        own = np.flatnonzero(worker == number)
        arrivals: list[Arrival] = []
        for turn in range(math.ceil(seconds * fps)):
            at_s = phase[own] + turn / fps
            arrivals += zip(at_s.tolist(), own.tolist(), cut[own].tolist(), strict=True)
        arrivals = sorted(arrival for arrival in arrivals if arrival[0] < seconds)
        share = serve(model, arrivals, case.budget_ms / 1e3, WARM * seconds, seconds)
        offered, refused = offered + share.offered, refused + share.refused
    return refused / max(offered, 1)


COLUMNS = ["frames enter at", "budget there, ms", "frames/s a worker", "mean batch", "busy",
           "p95, ms", "devices a worker", *[f"workers for {n:,}" for n in FLEETS]]  # fmt: skip


def run(options: argparse.Namespace, model: TimedModel) -> tuple[Table, dict[str, Any]]:
    rows, found = [], []
    for case in cases(len(model.batch_times), options.budget_ms):
        ability = capacity(model, case, options.frames)
        if ability is None:
            rows.append([case.what, f"{case.budget_ms:g}", "none in time", *["-"] * 8])
            continue
        found.append((case, ability))
        share = ability.share
        workers = [math.ceil(n * options.fps / ability.per_s) for n in FLEETS]
        rows.append([
            case.what, f"{case.budget_ms:g}", f"{ability.per_s:.3g}", f"{share.batch:.1f}",
            f"{share.busy_s / share.seconds:.2f}", f"{share.percentile_ms(95):.0f}",
            f"{ability.per_s / options.fps:.3g}", *(f"{count:,}" for count in workers),
        ])  # fmt: skip
        print(f"{case.what}, {case.budget_ms:g} ms: {ability.per_s:.3g}/s", file=sys.stderr)
    summary: dict[str, Any] = {
        "kind": "modelled",
        "model": model.name,
        "batch_times": model.source,
        "gpu_measured": model.source.startswith("measured on cuda"),
        "fps": options.fps,
        "refused_at_most": REFUSED,
    }
    if found:
        case, ability = found[-1]
        workers = math.ceil(FLEETS[-1] * options.fps / ability.per_s)
        summary["check"] = {
            "devices": FLEETS[-1],
            "workers": workers,
            "simulated_workers": min(options.sample, workers),
            "frames_enter_at": case.what,
            "budget_ms": case.budget_ms,
            **{
                f"refused_{name}": round(fleet_refusals(
                    model, case, workers, options.fps, dealt=dealt, sample=options.sample), 4)
                for name, dealt in (("dealt_evenly", True), ("by_chance", False))
            },
        }  # fmt: skip
        print(f"a million devices: {summary['check']}", file=sys.stderr)
    return Table(COLUMNS, rows), summary


def measured(options: argparse.Namespace) -> TimedModel:
    """Batch times of this machine, as the worker measures them at its start."""
    if options.quick:  # nothing is compiled or timed
        rows = [{1: ms, 8: 3 * ms, 64: 18 * ms} for ms in (1.0, 2.0, 1.5, 0.5)]
        return TimedModel(name="four segments", source="invented, to try the benchmark",
                          batch_times=BatchTimes(rows, 64))  # fmt: skip
    from splitpoint.cloud.compute.load import load_served_model  # torch, which others do without
    from splitpoint.cloud.options import WorkerOptions
    from splitpoint.partition.run.torch_chain import describe_device, pick_device

    device = pick_device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        target = options.bundle or bundle_of(options.model, Path(folder))
        served = load_served_model(
            target, device,
            WorkerOptions(max_batch=options.max_batch, measure=True),
            profiles={}, progress=lambda line: print(line, file=sys.stderr),
        )  # fmt: skip
    model = TimedModel(
        name=served.bundle.manifest.name,
        source=f"measured on {describe_device(device)}, in {served.runner.chain.runtime}",
        batch_times=served.batch_times,
    )
    if options.save_times:
        model.save(options.save_times, padded=bool(served.runner.sizes))
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--bundle", type=Path, help="compiled already")
    parser.add_argument("--times", type=Path, help="batch times as JSON (see virtual_worker.py)")
    parser.add_argument("--save-times", type=Path, help="where to write those measured here")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--max-batch", type=int, default=128)
    parser.add_argument("--fps", type=float, default=1.0, help="frames a second of each device")
    parser.add_argument("--budget-ms", type=float, nargs="+", default=[100.0, 300.0],
                        help="how long a frame may stay at the worker")  # fmt: skip
    parser.add_argument("--frames", type=int, default=40_000, help="simulated, for each rate")
    parser.add_argument("--sample", type=int, default=1_000_000, help="workers in the last check")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.frames, options.sample, options.budget_ms = 2_000, 3, [100.0]
    model = TimedModel.load(options.times) if options.times else measured(options)
    question = f"{str(__doc__).splitlines()[0]} (modelled: {model.name}, times {model.source})"
    table, summary = run(options, model)
    write_report("capacity", question, table, summary, save=not options.quick)


if __name__ == "__main__":
    main()
