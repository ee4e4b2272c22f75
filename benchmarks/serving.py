"""What does batching across cuts bring to a worker?

Simulated edges on real connections send frames that were encoded before; the worker is a process of
its own. The same engine runs them without batching, in batches per boundary, and in batches that
take frames in on their way; in turn, several rounds, and the best round of each counts. The edges
cut at four boundaries, either as many at each or most at the first.

    python benchmarks/serving.py [--models resnet18 efficientnet-lite0] [--edges 1 8 32 128]

The worker's and the edges' process share the machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from listening import start
from quick_bundle import QUICK, compiled
from report import Table, write_report
from simulated_edges import Load, Payload, closed_loop, open_loop
from splitpoint.codec import codec_named
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.bundle.samples import synthetic_samples
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.proto.frames import encode_tensors

MAIN = ["-c", "from splitpoint.cli.main import main; main()"]
MODELS = ["resnet18", "efficientnet-lite0"]
ROUNDS_OF_ALL = 2.5
POLICIES = ("none", "boundary", "suffix")
# Shares of the four boundaries, from the input on.
MIXES = {"uniform": (1, 1, 1, 1), "skewed": (5, 1, 1, 1)}
WORKER = """
import asyncio, signal, sys
from pathlib import Path
from splitpoint.cloud.schedule.outlook import Batching
from splitpoint.cloud.worker import Worker

async def main():
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # The same runtime for all: which is taken at start depends on a few runs.
    runtime = "onnxruntime" if sys.argv[3] == "cpu" else "auto"
    options = dict(listen="127.0.0.1:0", batching=Batching(sys.argv[2]), device=sys.argv[3],
                   max_batch=int(sys.argv[4]), runtime=runtime)
    async with Worker([Path(sys.argv[1])], **options) as worker:
        print("listening on", worker.address, file=sys.stderr, flush=True)
        await stop.wait()

try:
    import uvloop
    uvloop.run(main())
except ImportError:
    asyncio.run(main())
"""


def payloads_of(bundle: Bundle, count: int = 4) -> list[Payload]:
    """A frame at each of `count` boundaries from the input on, and its answer."""
    manifest = bundle.manifest
    last = len(manifest.segments)
    chosen = [round(i * (last - 1) / (count - 1)) for i in range(count)]
    chain = OnnxChain(bundle)
    state = chain.place(synthetic_samples(manifest).inputs[0])
    states = [state]
    for segment in range(last):
        chain.load(segment)
        state = state | chain.step(segment, state)
        states.append(state)
    top = int(next(iter(states[-1][s.name] for s in manifest.boundaries[-1].tensors)).argmax())
    found = []
    for boundary in chosen:
        specs = manifest.boundaries[boundary].tensors
        codec = codec_named("raw" if boundary == 0 else "q8")
        values = {spec.name: states[boundary][spec.name] for spec in specs}
        found.append(Payload(boundary, codec.name, encode_tensors(values, specs, codec), top))
    return found


def mixed(payloads: Sequence[Payload], shares: Sequence[int]) -> list[Payload]:
    return [payload for payload, share in zip(payloads, shares, strict=True)
            for _ in range(share)]  # fmt: skip


async def run(options: argparse.Namespace, folder: Path) -> tuple[Table, dict[str, Any]]:
    rows, ratios = [], []
    for given in options.models:
        bundle = open_bundle(bundle_of(given, folder))
        model = bundle.manifest.name
        payloads = [payload.on(options.device) for payload in payloads_of(bundle)]
        workers = {policy: start(["-c", WORKER, str(bundle.folder), policy, options.device,
                           str(options.max_batch)])
                   for policy in POLICIES}  # fmt: skip
        try:
            for mix in options.mixes:
                per_s = 0.0
                for edges in options.edges:
                    sent = mixed(payloads, MIXES[mix])
                    # Every edge is to be answered a few times.
                    seconds = max(options.seconds, ROUNDS_OF_ALL * edges / per_s if per_s else 0)
                    best = await in_turn(workers, bundle, sent, edges, None, seconds, options)
                    per_s = best["suffix"].per_s
                    rows += [row(model, mix, f"closed, {edges}", p, best[p]) for p in POLICIES]
                    ratios.append(
                        (model, mix, edges, best["suffix"].per_s / best["boundary"].per_s)
                    )
                for share in options.open:
                    best = await in_turn(
                        workers, bundle, sent, edges, share * per_s, options.seconds, options
                    )
                    what = f"open, {share:.0%} of capacity"
                    rows += [row(model, mix, what, p, best[p]) for p in POLICIES]
        finally:
            for process, _ in workers.values():
                process.terminate()
                process.wait(30)
    summary = {
        "device": options.device,
        "suffix_over_boundary": {f"{m} {x} {e}": round(r, 3) for m, x, e, r in ratios},
        "least": round(min(ratio for *_, ratio in ratios), 3),
    }
    return Table(COLUMNS, rows), summary


COLUMNS = ["model", "cuts", "loop, edges", "batching", "frames/s", "p50 ms", "p99 ms",
           "mean batch", "refused"]  # fmt: skip


def row(model: str, mix: str, loop: str, policy: str, load: Load) -> list[str]:
    return [model, mix, loop, policy, f"{load.per_s:.1f}", f"{load.percentile(50):.0f}",
            f"{load.percentile(99):.0f}", f"{np.mean(load.batch):.1f}",
            str(len(load.refused_ms))]  # fmt: skip


def in_short(table: Table) -> Table:
    """Frames a second of the closed loops, a line for each load."""
    rows = []
    closed = [row for row in table.rows if row[2].startswith("closed")]
    for first in range(0, len(closed), len(POLICIES)):
        group = closed[first : first + len(POLICIES)]
        none, boundary, suffix = (row[4] for row in group)
        ratio = float(suffix) / float(boundary)
        edges = group[0][2].split()[-1]
        rows.append([*group[0][:2], edges, none, boundary, suffix, f"{ratio:.2f}", group[-1][7]])
    columns = ["model", "cuts", "edges", "no batches, frames/s", "per boundary", "across cuts",
               "over per boundary", "mean batch"]  # fmt: skip
    return Table(columns, rows)


async def in_turn(
    workers: dict[str, Any], bundle: Bundle, payloads: Sequence[Payload], edges: int,
    per_s: float | None, seconds: float, options: argparse.Namespace,
) -> dict[str, Load]:  # fmt: skip
    """The best of several rounds for each policy; their order changes from round to round."""
    best: dict[str, Load] = {}
    for number in range(options.rounds):
        for policy in POLICIES if number % 2 == 0 else reversed(POLICIES):
            _, address = workers[policy]
            if per_s is None:
                load = await closed_loop(address, bundle.digest, payloads, edges,
                                         seconds, seconds / 4)  # fmt: skip
            else:
                load = await open_loop(address, bundle.digest, payloads, edges, per_s,
                                       seconds, seconds / 4)  # fmt: skip
            assert load.ms, (policy, edges)
            assert not load.wrong, (policy, load.wrong)
            assert not load.failed, (policy, load.failed)
            better = policy not in best or (
                load.per_s > best[policy].per_s if per_s is None
                else load.percentile(50) < best[policy].percentile(50)
            )  # fmt: skip
            if better:
                best[policy] = load
    print(f"{bundle.manifest.name}, {edges} edges: " + ", ".join(
        f"{p} {best[p].per_s:.0f}/s p50 {best[p].percentile(50):.0f} ms" for p in POLICIES
    ), file=sys.stderr, flush=True)  # fmt: skip
    return best


def bundle_of(model: str, folder: Path) -> Path:
    """`model` is a bundle, a name of torchvision's, or another that `splitpoint compile` knows."""
    if Path(model).is_dir():
        return Path(model)
    source, weights = source_of(model)
    return compiled(source, folder / f"{model.partition(':')[0]}.split", "--weights", weights)


def source_of(model: str) -> tuple[str, str]:
    """What the compiler calls it, and its weights: trained ones where they need no download."""
    if model == QUICK or model.startswith("efficientnet-lite"):
        return model, "default"
    return f"torchvision:{model}", "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--models", nargs="+", help="names, or bundles")
    parser.add_argument("--edges", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--mixes", nargs="+", default=list(MIXES), choices=list(MIXES))
    parser.add_argument("--open", nargs="*", type=float, default=[0.5, 0.9], metavar="SHARE",
                        help="shares of its capacity that come at random")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--max-batch", type=int, default=128)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.edges, options.seconds, options.rounds = [4], 0.5, 1
        options.mixes, options.open = options.mixes[:1], options.open[:1]
    options.models = options.models or ([QUICK] if options.quick else MODELS)
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    with tempfile.TemporaryDirectory() as name:
        table, summary = asyncio.run(run(options, Path(name)))
    write_report(
        "serving", str(__doc__).splitlines()[0], table, summary,
        save=not options.quick, in_short=[in_short(table)], device=options.device,
    )  # fmt: skip


if __name__ == "__main__":
    main()
