"""Do the stages of a stream overlap?

One frame at a time shows how long every stage takes; a stream of the same frames can be no faster
than its slowest stage. Edge compute is slowed down and the link emulated, so that each in turn is
the slowest, and so that two cores are enough for a device and a worker.

    python benchmarks/throughput.py [--bundle NAME.split] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from listening import start
from photos import own_photos
from quick_bundle import QUICK, compiled
from report import Table, write_report
from splitpoint.edge import EdgeAgent, Given, Outcome
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.bundle.samples import find_pictures

MAIN = ["-c", "from splitpoint.cli.main import main; main()"]
TARGET = 0.85


@dataclass(frozen=True)
class Case:
    """A split on a link, on a device that is so many times slower."""

    split: str
    codec: str
    slowdown: float
    mbps: float


CASES = (
    Case("4", "q8", 8, 100),  # the device is slowest
    Case("2", "q8", 2, 4),  # the link is
    Case("input", "jpeg", 1, 3),
    Case("input", "png", 12, 100),  # encoding is
)


async def measure(case: Case, bundle: Bundle, worker: str, frames: list[Given], count: int,
                  folder: Path) -> list[str]:  # fmt: skip
    link = f"{case.mbps:g}mbps,20ms"
    process, address = start(
        [*MAIN, "emulate", "--server", worker, "--listen", "127.0.0.1:0", "--link", link]
    )
    try:
        async with EdgeAgent(
            address, bundle=bundle.folder, split=case.split, codec=case.codec,
            slowdown=case.slowdown, cache=folder, threads=1, finish_locally=False,
            budget_ms=60_000,
        ) as agent:  # fmt: skip
            one = [await agent.infer(frames[i % len(frames)].inputs) for i in range(count // 3)]
            given = [frames[i % len(frames)] for i in range(count)]
            begin = time.perf_counter()
            ends = []
            async for result in agent.stream(given):
                assert result.outcome is Outcome.ANSWERED, result.why
                ends.append(time.perf_counter() - begin)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)

    def median(stage: str) -> float:
        return statistics.median(getattr(result.stages_ms, stage) for result in one[3:])

    stages = {
        "edge": median("edge"),
        "encode": median("encode"),
        "link": statistics.mean(r.bytes_up for r in one) * 8e-3 / case.mbps,
        "cloud": median("cloud"),
    }
    slowest = max(stages, key=lambda name: stages[name])
    # From the moment when the pipe is full.
    steady = ends[len(ends) // 4 :]
    fps = (len(steady) - 1) / (steady[-1] - steady[0])
    alone = 1e3 / statistics.mean(result.total_ms for result in one[3:])
    share = fps * stages[slowest] / 1e3
    return [
        f"{case.split} as {case.codec}, {case.slowdown:g}x, {case.mbps:g} Mbit/s",
        *(f"{stages[name]:.1f}" for name in stages), slowest, f"{alone:.1f}", f"{fps:.1f}",
        f"{share:.2f}",
    ]  # fmt: skip


COLUMNS = [
    "boundary, slowdown, link (emulated)", "edge ms", "encode ms", "link ms", "cloud ms",
    "slowest", "fps one by one", "fps streamed", "of 1 / slowest",
]  # fmt: skip


async def run(target: Path, folder: Path, *, quick: bool) -> tuple[Table, dict[str, Any]]:
    bundle = open_bundle(target)
    picture, spec = bundle.manifest.picture, bundle.manifest.boundaries[0].tensors[0]
    assert picture is not None
    paths = find_pictures(own_photos(folder / "photos", 0))
    frames = [Given(inputs={spec.name: picture.read(path)[np.newaxis]}) for path in paths]
    process, worker = start([*MAIN, "serve", str(target), "--listen", "127.0.0.1:0"])
    try:
        rows = [
            await measure(case, bundle, worker, frames, 12 if quick else 120, folder / "cache")
            for case in (CASES[:1] if quick else CASES)
        ]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    shares = [float(row[-1]) for row in rows]
    return Table(COLUMNS, rows), {"least_share": min(shares), "target": TARGET}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="EfficientNet-Lite0, compiled already")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target = options.bundle or compiled(
            QUICK if options.quick else "efficientnet-lite0", folder / "m.split"
        )
        table, summary = asyncio.run(run(target, folder, quick=options.quick))
    write_report("throughput", str(__doc__).splitlines()[0], table, summary,
                 save=not options.quick)  # fmt: skip


if __name__ == "__main__":
    main()
