"""The last line of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table
from splitpoint.edge.figures.run_costs import RunCosts
from splitpoint.edge.figures.run_stats import RunStats
from splitpoint.partition.energy.meter import EnergyReading
from splitpoint.partition.significant import significant

from ..shell.output import human_bytes, out, print_json
from .energy_words import energy_words
from .source_counts import SourceCounts


def print_summary(
    stats: RunStats,
    costs: RunCosts,
    energy: EnergyReading,
    sources: SourceCounts,
    sinks: dict[str, Any],
    *,
    drift: float | None,
    slowdown: float,
    as_json: bool,
) -> None:
    """Frames, outcomes, percentiles, bytes, energy and costs, as a JSON line or a table.

    `drift` is how far the last pictures were from calibration's: above 1 they had left it.
    """
    summary: dict[str, Any] = stats.summary()
    if by_source := sources.summary():
        summary["sources"] = by_source
    if sinks:
        summary["sinks"] = sinks
    summary["energy_mj"] = None if energy.mj is None else round(energy.mj, 3)
    summary["energy_kind"] = energy.kind if energy.mj is not None else "none"
    if energy.mj is not None:
        summary["energy_meter"] = energy.meter
    monthly = costs.figures(energy)
    summary |= monthly
    if drift is not None:
        summary["camera_drift"] = round(drift, 3)
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
    for name, counted in by_source.items():
        rate = "" if counted["fps"] is None else f", {counted['fps']:g} a second"
        ended = ", ".join(f"{count} {outcome}" for outcome, count in counted["outcomes"].items())
        table.add_row(name, f"{counted['frames']}{rate}: {ended}")
    for name, of in sinks.items():
        said = [f"{count} {what}" for what, count in of.items() if count]
        table.add_row(name, ", ".join(said) or "nothing to deliver")
    for name in ("p50", "p95", "p99"):
        if summary[f"{name}_ms"] is not None:
            table.add_row(name, f"{summary[f'{name}_ms']:.1f} ms")
    table.add_row("sent", human_bytes(stats.bytes_up))
    if energy.mj is not None:
        table.add_row("energy", energy_words(energy))
    for words in _at_this_rate(monthly, energy):
        table.add_row("at this rate", words)
    if drift is not None and drift > 1:
        table.add_row("camera", f"unlike calibration: {drift:.1f} times the limit")
    if "emulated" in summary:
        table.add_row("emulated", summary["emulated"])
    out.print(table)


def _at_this_rate(monthly: dict[str, Any], energy: EnergyReading) -> Iterator[str]:
    if not monthly:
        return
    sent = f"{significant(monthly['mb_per_hour'])} MB an hour"
    sent += f", {significant(monthly['gb_per_month'])} GB a month"
    if "price_per_month" in monthly:
        sent += f", which costs {monthly['price_per_month']:.2f}"
    yield f"{sent} (at this run's measured rate)"
    if monthly["server_hours_per_month"]:
        yield f"{significant(monthly['server_hours_per_month'])} server hours a month (likewise)"
    if "watts" in monthly:
        drawn = f"{significant(monthly['watts'])} W"
        if "battery_hours" in monthly:
            drawn += f", {significant(monthly['battery_hours'])} hours of battery"
        yield f"{drawn} ({energy.kind})"
