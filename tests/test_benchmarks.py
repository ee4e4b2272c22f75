"""Every benchmark runs in its short version, and the README names it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    [
        "overhead",
        "models",
        "edge_memory",
        "edge_runtime",
        "edge_start",
        "planner_regret",
        "layer_sum",
        "rate_accuracy",
        "video_bytes",
        "codec_models",
    ],
)
def test_benchmarks(name: str) -> None:
    assert f"python benchmarks/{name}.py" in README
    extra = ["torchvision:resnet18"] if name == "models" else []
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}.py", *extra, "--quick"],
        cwd=ROOT, capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "|" in done.stdout
