"""The last line of a run."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from splitpoint.edge.figures.run_stats import RunStats
from splitpoint.partition.energy.meter import EnergyReading
from splitpoint.partition.significant import significant

from ..shell.output import human_bytes, out, print_json


def print_summary(
    stats: RunStats, energy: EnergyReading, *, slowdown: float, as_json: bool
) -> None:
    """Frames, outcomes, percentiles, bytes and energy, as a JSON line or a table."""
    summary: dict[str, Any] = stats.summary()
    summary["energy_mj"] = None if energy.mj is None else round(energy.mj, 3)
    summary["energy_kind"] = energy.kind if energy.mj is not None else "none"
    if energy.mj is not None:
        summary["energy_meter"] = energy.meter
    if slowdown > 1:
        summary["emulated"] = f"edge compute slowed down {slowdown:g} times"
    if as_json:
        print_json({"summary": summary})
        return
    table = Table(show_header=False, box=None)
    table.add_row("frames", str(summary["frames"]))
    for name, number in summary["outcomes"].items():
        if number:
            table.add_row(name, str(number))
    for name in ("p50", "p95", "p99"):
        if summary[f"{name}_ms"] is not None:
            table.add_row(name, f"{summary[f'{name}_ms']:.1f} ms")
    table.add_row("sent", human_bytes(stats.bytes_up))
    if energy.mj is not None:
        table.add_row("energy", f"{significant(energy.mj / 1e3)} J ({energy.kind}, {energy.meter})")
    if "emulated" in summary:
        table.add_row("emulated", summary["emulated"])
    out.print(table)
