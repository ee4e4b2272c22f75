"""Does the worker stay whole, fair and small for honest clients beside hostile ones?

A worker with its default options and a file of tokens. Twelve honest clients of every kind (cuts,
codecs, batches of 1 to 16, cancels, budgets that are too short, reconnects) use it all the time,
and one more is watched: it asks ten times a second. In turn, for the same while, nobody else is
there, and one kind of hostile client; at the end all kinds at once. The hostile process has the
lowest priority, but shares the machine's cores with the worker.

    python benchmarks/endurance.py [--minutes 10] [--model efficientnet-lite0] [--only KIND]

Every honest frame must have its right answer, or the refusal or the end that it asked for. After
the second minute the worker's memory must not grow.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from honest_clients import HonestClient, Question, Tally, Watched, questions_of
from hostile_clients import KINDS, Target
from listening import start
from quick_bundle import QUICK
from report import Table, write_report
from serving import MAIN, bundle_of
from splitpoint.partition.bundle.bundle import open_bundle
from splitpoint.proto.frames import build_frame

ALL, HONEST, PER_S, TARGET = "all of them at once", 12, 10.0, 2.0
SETTLED_S = 120.0
TOKENS = ("watched", "honest", "hostile", "limited")


def tokens_file(folder: Path) -> Path:
    """A client for each of `TOKENS`, whose token is its name."""
    tables = [f'[{name}]\ntoken_sha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n'
              for name in TOKENS]  # fmt: skip
    path = folder / "tokens.toml"
    path.write_text("\n".join(tables) + "max_requests_per_s = 5\n")
    return path


async def honest(address: str, folder: str) -> None:
    """The child with the honest clients; at its end it says what became of their frames."""
    bundle = open_bundle(Path(folder))
    questions, tally, stop = questions_of(bundle), Tally(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    clients = [HonestClient(address, bundle.digest, "honest", questions, number)
               for number in range(HONEST)]  # fmt: skip
    running = [asyncio.create_task(client.run(tally, stop)) for client in clients]
    print("ready", flush=True)
    await asyncio.gather(*running)
    print(json.dumps(tally.outcomes), flush=True)


async def hostile(address: str, folder: str, kind: str) -> None:
    """The child with the hostile ones; it is ended from outside."""
    bundle = open_bundle(Path(folder))
    good = [build_frame(id=1, boundary=q.boundary, codec=q.codec, tensors=q.tensors, budget_ms=0)
            for q in questions_of(bundle, (1,))]  # fmt: skip
    chosen = KINDS if kind == ALL else {kind: KINDS[kind]}
    targets = {name: Target(address, bundle, "hostile", "limited", good) for name in chosen}

    async def again(name: str) -> None:
        while True:
            try:
                await chosen[name](targets[name])
            except Exception as error:  # noqa: BLE001 - a worker that hangs up is what it may do
                print(f"{name}: {str(error).splitlines()[:1]}", file=sys.stderr, flush=True)
            await asyncio.sleep(0.1)

    running = [asyncio.create_task(again(name)) for name in chosen]
    print("ready", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    print(sum(target.count for target in targets.values()), flush=True)
    for task in running:
        task.cancel()
    os._exit(0)  # thousands of open calls are the worker's to clear away


def child(*arguments: str, nice: int = 0) -> subprocess.Popen[str]:
    """Another process of this script, once it is at work."""
    process = subprocess.Popen(
        ["nice", f"-n{nice}", sys.executable, __file__, "--child", json.dumps(arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        raise RuntimeError(f"{arguments[0]} did not start")
    return process


def ended(process: subprocess.Popen[str]) -> str:
    """What it says at its end."""
    process.terminate()
    try:
        return process.communicate(timeout=30)[0]
    finally:
        process.kill()


@dataclass
class Sample:
    """The worker at one moment, seconds after the first."""

    at_s: float
    rss_mb: float
    files: int
    threads: int


async def sampled(pid: int, samples: list[Sample], began_s: float) -> None:
    process = psutil.Process(pid)
    while True:
        samples.append(Sample(
            time.perf_counter() - began_s, process.memory_info().rss / 1e6, process.num_fds(),
            process.num_threads(),
        ))  # fmt: skip
        await asyncio.sleep(1)


async def phases(
    address: str, folder: Path, kinds: list[str], seconds: float, question: Question
) -> tuple[dict[str, Watched], list[Watched], dict[str, int]]:
    """The watched client beside each kind, alone before each, and how often each kind did it."""
    digest = open_bundle(folder).digest
    beside: dict[str, Watched] = {}
    alone: list[Watched] = []
    counts: dict[str, int] = {}
    for kind in kinds:
        alone.append(Watched(address, digest, "watched", question))
        await alone[-1].run(PER_S, seconds)
        process = await asyncio.to_thread(child, "hostile", address, str(folder), kind, nice=19)
        try:
            beside[kind] = Watched(address, digest, "watched", question)
            await beside[kind].run(PER_S, seconds)
        finally:
            said = await asyncio.to_thread(ended, process)
        counts[kind] = int(said.split()[-1]) if said.split() else 0
        print(f"{kind}: {dict(beside[kind].tally.outcomes)}", file=sys.stderr, flush=True)
    return beside, alone, counts


async def run(options: argparse.Namespace, folder: Path) -> tuple[Table, Table, dict[str, Any]]:
    bundle = open_bundle(bundle_of(options.model, folder))
    kinds = options.only or [*([] if options.quick else KINDS), ALL]
    seconds = 60 * options.minutes / (2 * len(kinds))
    question = next(q for q in questions_of(bundle, (1,)) if q.boundary == 1)
    serve = [*MAIN, "serve", str(bundle.folder), "--listen", "127.0.0.1:0", "--tokens",
             str(tokens_file(folder))]  # fmt: skip
    worker, address = start(serve)
    draining = asyncio.create_task(asyncio.to_thread(worker.stdout.read))  # its log
    others = await asyncio.to_thread(child, "honest", address, str(bundle.folder))
    samples: list[Sample] = []
    sampling = asyncio.create_task(sampled(worker.pid, samples, time.perf_counter()))
    try:
        beside, alone, counts = await phases(address, bundle.folder, kinds, seconds, question)
        outcomes = Counter(json.loads(await asyncio.to_thread(ended, others)))
        assert worker.poll() is None, "the worker has ended"
    finally:
        sampling.cancel()
        others.kill()
        worker.terminate()
        worker.wait(30)
        log = await draining
    alone_ms = [ms for watched in alone for ms in watched.ms]
    rows = [row("nobody", alone_ms, sum((w.tally.outcomes for w in alone), Counter()), 0, alone_ms)]
    rows += [row(kind, w.ms, w.tally.outcomes, counts[kind], alone_ms)
             for kind, w in beside.items()]  # fmt: skip
    all_ms = [ms for watched in beside.values() for ms in watched.ms]
    wrong = {what: count for what, count in outcomes.items() if what != what.lower()}
    summary = {
        "minutes": options.minutes,
        "honest_outcomes": dict(outcomes),
        "must_not_be": wrong,
        "p99_over_alone": round(float(np.percentile(all_ms, 99) / np.percentile(alone_ms, 99)), 3),
        "target": TARGET,
        "errors_in_the_log": log.count("ERROR"),
        "rss_mb_each_minute": [round(s.rss_mb) for s in samples[::60]],
    }
    return Table(COLUMNS, rows), table_of(samples), summary


COLUMNS = ["beside", "it did", "frames", "refused", "other", "p50 ms", "p99 ms", "p99 over alone"]


def row(
    kind: str, ms: list[float], outcomes: Counter[str], count: int, alone_ms: list[float]
) -> list[str]:
    other = outcomes.total() - outcomes["right"] - outcomes["refused"]
    return [kind, str(count), str(outcomes.total()), str(outcomes["refused"]), str(other),
            f"{np.percentile(ms, 50):.1f}", f"{np.percentile(ms, 99):.1f}",
            f"{np.percentile(ms, 99) / np.percentile(alone_ms, 99):.2f}"]  # fmt: skip


def table_of(samples: list[Sample]) -> Table:
    """The worker's size, from the second minute on where there is one."""
    settled = [s for s in samples if s.at_s >= SETTLED_S]
    first = "after 2 min" if settled else "at the start"
    settled = settled or samples
    minutes = [s.at_s / 60 for s in settled]
    rows = []
    for name, label in (("rss_mb", "resident memory, MB"), ("files", "file descriptors"),
                        ("threads", "threads")):  # fmt: skip
        values = [getattr(s, name) for s in settled]
        slope = float(np.polyfit(minutes, values, 1)[0]) if len(values) > 2 else float("nan")
        rows.append([label, f"{values[0]:.0f}", f"{max(values):.0f}", f"{values[-1]:.0f}",
                     f"{slope:+.2f}"])  # fmt: skip
    return Table(["of the worker", first, "most", "at the end", "a fitted line, per min"],
                 rows)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--model", help="a name, or a bundle")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--only",
        action="append",
        choices=[*KINDS, ALL],
        metavar="KIND",
        help="hostile clients of this kind; may be repeated; saves no results",
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, *arguments = json.loads(options.child)
        asyncio.run({"honest": honest, "hostile": hostile}[kind](*arguments))
        return
    if options.quick:
        options.minutes = 0.1
    options.model = options.model or (QUICK if options.quick else "efficientnet-lite0")
    with tempfile.TemporaryDirectory() as name:
        table, size, summary = asyncio.run(run(options, Path(name)))
    write_report("endurance", str(__doc__).splitlines()[0], table, summary,
                 save=not (options.quick or options.only), in_short=[size])  # fmt: skip
    print(json.dumps(summary))
    assert not summary["must_not_be"], summary["must_not_be"]


if __name__ == "__main__":
    main()
