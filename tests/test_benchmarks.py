"""Every benchmark runs in its short version, and the README names it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from processes import splitpoint

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def lite0_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite0, compiled once for those that take a bundle."""
    target = tmp_path_factory.mktemp("bundles") / "lite0.split"
    done = splitpoint("compile", "efficientnet-lite0", "--out", str(target), timeout=170)
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.parametrize("name", ["adaptive", "throughput", "soak"])
def test_benchmarks_that_take_a_bundle(name: str, lite0_folder: Path) -> None:
    assert f"python benchmarks/{name}.py" in README
    run_quickly(name, "--bundle", str(lite0_folder))


@pytest.mark.parametrize(("name", "option"), [("serving", "--models"), ("overload", "--model")])
def test_benchmarks_of_the_worker(name: str, option: str, lite0_folder: Path) -> None:
    assert f"python benchmarks/{name}.py" in README
    run_quickly(name, option, str(lite0_folder))


@pytest.mark.parametrize(
    "name",
    [
        "overhead",
        "models",
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
    run_quickly(name, *(["torchvision:resnet18"] if name == "models" else []))


def run_quickly(name: str, *extra: str) -> None:
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}.py", *extra, "--quick"],
        cwd=ROOT, capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "|" in done.stdout
