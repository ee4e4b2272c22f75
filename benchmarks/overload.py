"""What becomes of a worker that is asked for more than it can do?

Simulated edges send at random times, from half of what the worker can do to three times that; each
frame has a budget. Goodput is the answers within the budget; a frame that is refused can still be
finished by its device, if it learns of it soon.

    python benchmarks/overload.py [--model efficientnet-lite0] [--edges 32] [--budget-ms 500]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from listening import start
from quick_bundle import QUICK
from report import Table, write_report
from serving import WORKER, bundle_of, payloads_of
from simulated_edges import Load, closed_loop, open_loop
from splitpoint.partition.bundle.bundle import open_bundle

SHARES = (0.5, 0.8, 1.0, 1.5, 2.0, 3.0)
TARGET, REFUSED_MS = 0.9, 20.0


async def run(options: argparse.Namespace, folder: Path) -> tuple[Table, dict[str, Any]]:
    bundle = open_bundle(bundle_of(options.model, folder))
    payloads = payloads_of(bundle)
    process, address = start(
        ["-c", WORKER, str(bundle.folder), "suffix", options.device, str(options.max_batch)]
    )
    found: dict[float, Load] = {}
    try:
        full = await closed_loop(
            address, bundle.digest, payloads, options.edges, options.seconds, options.seconds / 4
        )
        print(f"capacity {full.per_s:.0f}/s", file=sys.stderr, flush=True)
        for share in SHARES[:: 3 if options.quick else 1]:
            found[share] = await open_loop(
                address, bundle.digest, payloads, options.edges, share * full.per_s,
                options.seconds, options.seconds / 4, budget_ms=options.budget_ms,
            )  # fmt: skip
            assert not found[share].wrong
    finally:
        process.terminate()
        process.wait(30)
    peak = max(load.per_s for load in found.values())
    assert peak, "no answer came within the budget"
    rows = [
        [f"{share:g}", f"{share * full.per_s:.0f}", f"{load.per_s:.1f}", f"{load.per_s / peak:.2f}",
         f"{load.percentile(50):.0f}", f"{load.percentile(99):.0f}", str(len(load.refused_ms)),
         f"{np.median(load.refused_ms):.1f}" if load.refused_ms else "-", str(len(load.failed))]
        for share, load in found.items()
    ]  # fmt: skip
    most = found[max(found)]
    summary = {
        "capacity_per_s": round(full.per_s, 1),
        "goodput_at_most_over_peak": round(most.per_s / peak, 3),
        "refused_median_ms": round(float(np.median(most.refused_ms)), 2)
        if most.refused_ms
        else None,
        "targets": {"goodput": TARGET, "refused_ms": REFUSED_MS},
    }
    return Table(COLUMNS, rows), summary


COLUMNS = ["load, of capacity", "offered/s", "in time/s", "of the peak", "p50 ms", "p99 ms",
           "refused", "learnt of it, ms (median)", "late or lost"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--model", help="a name, or a bundle")
    parser.add_argument("--edges", type=int, default=32)
    parser.add_argument("--budget-ms", type=float, default=500)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--max-batch", type=int, default=128)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.edges, options.budget_ms = 1, 8, 10_000
    options.model = options.model or (QUICK if options.quick else "efficientnet-lite0")
    with tempfile.TemporaryDirectory() as name:
        table, summary = asyncio.run(run(options, Path(name)))
    write_report("overload", str(__doc__).splitlines()[0], table, summary, save=not options.quick)


if __name__ == "__main__":
    main()
