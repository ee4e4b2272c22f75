"""Writes a benchmark's result: a table for people, JSON with hardware and date for machines."""

from __future__ import annotations

import datetime
import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from splitpoint.partition.strict_json import to_json

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("splitpoint", "grpcio", "torch", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Table:
    """Column names and rows of text."""

    columns: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """The table in Markdown, padded so that it reads well as plain text too."""
        widths = [
            max(len(str(row[i])) for row in [self.columns, *self.rows])
            for i in range(len(self.columns))
        ]

        def line(cells: list[str]) -> str:
            padded = (str(c).ljust(w) for c, w in zip(cells, widths, strict=True))
            return "| " + " | ".join(padded) + " |"

        rule = "| " + " | ".join("-" * w for w in widths) + " |"
        return "\n".join([line(self.columns), rule, *map(line, self.rows)]) + "\n"


def hardware() -> dict[str, Any]:
    """What the numbers were measured on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        match = re.search(r"model name\s*:\s*(.+)", info.read_text())
        model = match[1].strip() if match else model
    return {"cpu": model, "cores": os.cpu_count(), "machine": platform.machine()}


def versions() -> dict[str, str]:
    """Versions of what was measured."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _without_folder(argument: str) -> str:
    """Where a machine keeps its photos says nothing to others."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def write_report(
    name: str,
    question: str,
    table: Table,
    summary: dict[str, Any],
    *,
    save: bool,
    in_short: Sequence[Table] = (),
    variant: str = "",
) -> None:
    """Prints the tables, those `in_short` first.

    With `save` it also writes them and the JSON under `results/`. A `variant` of a benchmark has
    results of its own.
    """
    tables = "\n".join(shown.markdown() for shown in (*in_short, table))
    device = hardware()
    label = re.sub(r"[^a-z0-9]+", "-", f"{device['cpu']} {device['cores']}core".lower()).strip("-")
    date = datetime.date.today().isoformat()
    print(f"{question}\n{device['cpu']}, {device['cores']} cores, {date}\n\n{tables}")
    if not save:
        return
    RESULTS.mkdir(exist_ok=True)
    named = f"{name}-{variant}" if variant else name
    base = RESULTS / f"{named}-{label}-{date}"
    document = {
        "question": question,
        "hardware": device,
        "versions": versions(),
        "date": date,
        "command": " ".join(
            ["python", f"benchmarks/{name}.py", *map(_without_folder, sys.argv[1:])]
        ),
        "rows": [dict(zip(table.columns, row, strict=True)) for row in table.rows],
        "summary": summary,
    }
    base.with_suffix(".json").write_text(to_json(document, indent=1) + "\n")
    base.with_suffix(".md").write_text(f"{question}\n\n{tables}")
    print(f"written to {base}.json")
