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

from splitpoint.partition.energy.nvml import load_pynvml
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


def hardware(device: str = "cpu") -> dict[str, Any]:
    """What the numbers were measured on; the GPU, too, where the `device` of the worker is one."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        match = re.search(r"model name\s*:\s*(.+)", info.read_text())
        model = match[1].strip() if match else model
    found = {"cpu": model, "cores": os.cpu_count(), "machine": platform.machine()}
    return found if device == "cpu" else found | _gpu(device)


def _gpu(device: str) -> dict[str, Any]:
    """Its name, memory, driver and CUDA; nothing where `device` comes to a CPU."""
    import torch  # scripts that measure no GPU start seconds sooner without it
    from splitpoint.partition.run.torch_chain import pick_device

    chosen = pick_device(device)
    if chosen.type == "cpu":
        return {}
    found = torch.cuda.get_device_properties(chosen)
    gpu = {
        "gpu": found.name,
        "gpus": torch.cuda.device_count(),
        "gpu_memory_mb": round(found.total_memory / 1e6),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
    return gpu | _driver()


def _driver() -> dict[str, str]:
    try:
        nvml = load_pynvml()
    except ImportError:
        return {}
    try:
        nvml.nvmlInit()
        return {"driver": str(nvml.nvmlSystemGetDriverVersion())}
    except nvml.NVMLError:
        return {}


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
    device: str = "cpu",
) -> None:
    """Prints the tables, those `in_short` first.

    With `save` it also writes them and the JSON under `results/`. A `variant` of a benchmark has
    results of its own. `device` is the worker's.
    """
    tables = "\n".join(shown.markdown() for shown in (*in_short, table))
    machine = hardware(device)
    gpu = machine.get("gpu", "")
    words = f"{gpu} {machine['cpu']} {machine['cores']}core"
    label = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    date = datetime.date.today().isoformat()
    on = ", ".join(filter(None, [gpu, machine["cpu"], f"{machine['cores']} cores", date]))
    print(f"{question}\n{on}\n\n{tables}")
    if not save:
        return
    RESULTS.mkdir(exist_ok=True)
    named = f"{name}-{variant}" if variant else name
    base = RESULTS / f"{named}-{label}-{date}"
    document = {
        "question": question,
        "hardware": machine,
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
