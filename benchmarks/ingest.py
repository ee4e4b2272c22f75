"""What do a worker and an agent cost a frame, in CPU time, beside a bare echo of the same bytes?

A calibrated model of next to no compute, whose inner boundary is 60 kB as float32: raw, `q8` and
`fkt@4` there, and JPEG at its input. First an agent streams to a worker. Then a load of streams
that only send what was built before keeps the worker busy, and a bare grpc.aio echo of the same
messages after it, in turn; all that once more for each number of ingest processes. CPU time is user
and system of a whole process over its frames, that of ingest processes together: on a machine with
other work it changes less than times do.

    python benchmarks/ingest.py [--quick] [--streams 1 4 16 64] [--ingest 0 1 2]
                                [--device cuda]
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from agent_cost import AGENT_COLUMNS, one_agent
from photos import own_photos
from quick_bundle import compiled
from report import Table, write_report
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.bundle.samples import find_pictures
from splitpoint.proto.tasks import run_in_loop
from steady_load import hello_of, load
from thin_frames import Sent, Servers, check, frames_of
from thin_model import THIN


async def many_streams(
    sent: Sent,
    streams: int,
    ingest: int,
    bundle: Bundle,
    servers: Servers,
    options: argparse.Namespace,
) -> tuple[list[str], dict[str, float]]:
    seconds = 0.5 if options.quick else 2.0
    worker, echo = [], []
    for _ in range(options.rounds):
        echo.append(await load(
            servers.echo_address, servers.echo.pid, sent.messages, streams, seconds, None
        ))  # fmt: skip
        worker.append(await load(
            servers.address, servers.worker.pid, sent.messages, streams, seconds,
            hello_of(bundle.digest),
        ))  # fmt: skip
        check(sent, worker[-1])
    median = statistics.median
    found = {
        "worker_cpu_ms": median(run.server_ms for run in worker),
        "ingest_cpu_ms": median(run.beside_ms for run in worker),
        "echo_cpu_ms": median(run.server_ms for run in echo),
        "load_cpu_ms": median(run.load_ms for run in worker),
        "fps": median(run.per_s for run in worker),
        "echo_fps": median(run.per_s for run in echo),
        "of_echo": median(w.per_s / e.per_s for w, e in zip(worker, echo, strict=True)),
    }
    cores = os.cpu_count() or 1
    limits = [max(found, key=found.count) for found in (
        [run.at_limit(cores) for run in runs] for runs in (worker, echo)
    )]  # fmt: skip
    row = [sent.name, str(ingest), str(streams), *(f"{found[key]:.3f}" for key in list(found)[:4]),
           f"{found['fps']:.0f}", f"{found['echo_fps']:.0f}", f"{found['of_echo']:.2f}x",
           *limits]  # fmt: skip
    return row, found


STREAMS_COLUMNS = [
    "frame", "ingest", "streams", "worker, CPU ms", "ingest, CPU ms", "echo, CPU ms",
    "load, CPU ms", "frames/s", "echo's frames/s", "of the echo's", "at its limit", "with the echo",
]  # fmt: skip


async def measure(
    bundle: Bundle, photo: Path, folder: Path, options: argparse.Namespace
) -> tuple[Table, Table, dict[str, Any]]:
    agents: list[list[str]] = []
    rows: list[list[str]] = []
    summary: dict[str, Any] = {"device": options.device, "agent": {}, "streams": {}}
    for ingest in options.ingest:
        servers = Servers.start(bundle, ingest, options.device)
        try:
            for sent in frames_of(bundle, photo):
                if ingest == options.ingest[0]:
                    row, found = await one_agent(
                        sent, bundle, servers, folder / "cache",
                        frames=100 if options.quick else 1000, rounds=options.rounds,
                    )  # fmt: skip
                    agents.append(row)
                    summary["agent"][sent.codec] = found
                gc.collect()
                for streams in options.streams:
                    row, found = await many_streams(sent, streams, ingest, bundle, servers, options)
                    rows.append(row)
                    summary["streams"][f"{sent.codec} {streams} ingest {ingest}"] = found
        finally:
            servers.stop()
    return Table(AGENT_COLUMNS, agents), Table(STREAMS_COLUMNS, rows), summary


def run(folder: Path, options: argparse.Namespace) -> tuple[Table, Table, dict[str, Any]]:
    photos = own_photos(folder / "photos", 0)
    target = options.bundle or compiled(THIN, folder / "thin.split", "--calibrate", photos)
    return run_in_loop(measure(open_bundle(target), find_pictures(photos)[0], folder, options))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--bundle", type=Path, help=f"{THIN}, compiled and calibrated already")
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--ingest", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="of the worker")
    parser.add_argument("--quick", action="store_true", help="a minute's version")
    options = parser.parse_args()
    if options.quick:
        options.streams, options.ingest, options.rounds = [1, 16], [0, 2], 1
    with tempfile.TemporaryDirectory() as name:
        agents, streams, summary = run(Path(name), options)
    write_report(
        "ingest", str(__doc__).splitlines()[0], streams, summary,
        save=not options.quick, in_short=[agents], device=options.device,
    )  # fmt: skip


if __name__ == "__main__":
    main()
