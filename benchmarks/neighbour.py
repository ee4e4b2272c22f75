"""What does a hostile client cost the one beside it?

One simulated edge sends a frame when it has its last answer, alone and, in turn, beside another
process that sends damaged and lying frames as fast as it gets their answers; for scale also beside
one that makes the same frames at the same rate and keeps them to itself, since both share this
machine's cores with the worker, and beside one that sends good frames. Median of the rounds.

    python benchmarks/neighbour.py [--model efficientnet-lite0] [--seconds 10]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from hostile_frames import hostile_frames
from listening import start
from quick_bundle import QUICK
from report import Table, write_report
from serving import WORKER, bundle_of, payloads_of
from simulated_edges import Load, Payload, closed_loop
from splitpoint.partition.bundle.bundle import open_bundle
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import build_frame
from splitpoint.proto.limits import MAX_CREDITS, PROTOCOL, SERVICE

ALONE, HOSTILE, KEPT, GOOD = "nobody", "hostile frames", "the same, not sent", "good frames"
TARGET = 2.0


def frame_of(payload: Payload, frame_id: int) -> bytes:
    return build_frame(
        id=frame_id, boundary=payload.boundary, codec=payload.codec,
        tensors=payload.tensors, budget_ms=0,
    )  # fmt: skip


def frames(kind: str, payloads: list[Payload]) -> Iterator[bytes]:
    if kind == GOOD:
        for number in itertools.count(1):
            yield frame_of(payloads[number % len(payloads)], number)
    good = [frame_of(payload, 1) for payload in payloads]
    for seed in itertools.count():
        yield from hostile_frames(good, 1000, seed)


async def flood(address: str, kind: str, folder: str, per_s: float) -> None:
    """Sends until it is ended, and prints how many frames were answered so far, each second."""
    bundle = open_bundle(Path(folder))
    if kind == KEPT:
        print(0, flush=True)
        for _ in frames(kind, payloads_of(bundle)):
            await asyncio.sleep(1 / max(per_s, 1.0))
    loop, answered, said_s = asyncio.get_running_loop(), 0, 0.0
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream(f"/{SERVICE}/Infer")()
        hello = pb.Hello(protocol=PROTOCOL, digest=bundle.digest)
        await call.write(pb.ClientMessage(hello=hello).SerializeToString())
        await call.read()
        for number, data in enumerate(frames(kind, payloads_of(bundle))):
            await call.write(data)
            if number >= MAX_CREDITS - 1:
                await call.read()
                answered += 1
            if loop.time() > said_s + 1:
                said_s = loop.time()
                print(answered, flush=True)


def flooding(address: str, kind: str, folder: Path, per_s: float) -> subprocess.Popen[str]:
    """The other process, once its first frames were answered."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--flood", json.dumps([address, kind, str(folder), per_s])],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    return process


async def measure(
    kind: str, address: str, folder: Path, payloads: list[Payload], seconds: float, per_s: float
) -> tuple[Load, float]:
    """The edge's answers beside `kind`, and frames a second of the other."""
    bundle = open_bundle(folder)
    process = None if kind == ALONE else flooding(address, kind, folder, per_s)
    try:
        load = await closed_loop(address, bundle.digest, payloads, 1, seconds, 0.5)
    finally:
        if process is not None:
            process.terminate()
            said, _ = process.communicate()
    if kind in (HOSTILE, GOOD):
        per_s = int(said.split()[-1]) / (seconds + 0.5)
    assert not load.failed, ("the neighbour lost a frame", load.failed)
    assert not load.wrong, "the neighbour got a wrong answer"
    assert not load.refused_ms or kind == GOOD, "the neighbour was refused"
    return load, per_s


async def run(options: argparse.Namespace, folder: Path) -> tuple[Table, dict[str, Any]]:
    bundle = open_bundle(bundle_of(options.model, folder))
    payloads = payloads_of(bundle)
    process, address = start(["-c", WORKER, str(bundle.folder), "suffix", "cpu", "128"])
    found: dict[str, list[tuple[Load, float]]] = {ALONE: [], HOSTILE: [], KEPT: [], GOOD: []}
    try:
        for number in range(options.rounds):
            for kind, loads in found.items():
                per_s = found[HOSTILE][-1][1] if kind == KEPT else 0.0
                loads.append(
                    await measure(kind, address, bundle.folder, payloads, options.seconds, per_s)
                )
                print(f"round {number + 1}, {kind}: p99 {loads[-1][0].percentile(99):.1f} ms",
                      file=sys.stderr, flush=True)  # fmt: skip
    finally:
        process.terminate()
        process.wait(30)

    def ms(kind: str, percent: float) -> float:
        return statistics.median(load.percentile(percent) for load, _ in found[kind])

    rows = [
        [kind, f"{statistics.median(per_s for _, per_s in loads):.0f}",
         str(sum(len(load.ms) for load, _ in loads)),
         str(sum(len(load.refused_ms) for load, _ in loads)), f"{ms(kind, 50):.1f}",
         f"{ms(kind, 99):.1f}", f"{ms(kind, 99) / ms(ALONE, 99):.2f}"]
        for kind, loads in found.items()
    ]  # fmt: skip
    summary = {
        "p99_over_alone": round(ms(HOSTILE, 99) / ms(ALONE, 99), 3),
        "p99_over_not_sent": round(ms(HOSTILE, 99) / ms(KEPT, 99), 3),
        "target": TARGET,
    }
    return Table(COLUMNS, rows), summary


COLUMNS = ["beside it", "its frames/s", "answers of the edge", "refused", "p50 ms", "p99 ms",
           "p99 over alone"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--model", help="a name, or a bundle")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--flood", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flood:
        asyncio.run(flood(*json.loads(options.flood)))
        return
    if options.quick:
        options.seconds, options.rounds = 1, 1
    options.model = options.model or (QUICK if options.quick else "efficientnet-lite0")
    with tempfile.TemporaryDirectory() as name:
        table, summary = asyncio.run(run(options, Path(name)))
    write_report("neighbour", str(__doc__).splitlines()[0], table, summary,
                 save=not options.quick)  # fmt: skip


if __name__ == "__main__":
    main()
