"""Every benchmark runs in its short version, and the README names it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# What the others are made of.
PARTS = {
    "hostile_frames", "layer_regression", "photos", "prototype_codec", "quick_model", "report",
    "rival_controller", "rival_server", "simulated_edges", "virtual_worker",
}  # fmt: skip
NAMES = sorted({path.stem for path in (ROOT / "benchmarks").glob("*.py")} - PARTS)


@pytest.mark.parametrize("name", NAMES)
def test_benchmarks(name: str) -> None:
    assert f"python benchmarks/{name}.py" in README
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}.py", "--quick"],
        cwd=ROOT, capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "|" in done.stdout
