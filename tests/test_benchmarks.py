"""Every benchmark runs in its short version, and the page of measurements names it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripts_in_turn import Scripts, scripts_in_turn
from splitpoint.codec.native import why_not

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
# What the others are made of.
PARTS = {
    "agent_cost", "bare_echo", "device_check", "drawn_text", "honest_clients",
    "hostile_clients", "hostile_frames", "layer_regression", "listening", "photos",
    "prototype_codec", "quick_bundle", "quick_detector", "quick_model", "quick_text", "report",
    "rival_controller", "rival_server", "simulated_edges", "split_rates", "stage_clock",
    "steady_load", "stream_rates", "text_reading", "thin_frames", "thin_model", "virtual_worker",
    "zoo_check", "zoo_files", "zoo_of_timm", "zoo_of_torch", "zoo_of_torchvision",
    "zoo_of_transformers", "zoo_of_ultralytics", "zoo_subject",
}  # fmt: skip
NAMES = sorted({path.stem for path in (ROOT / "benchmarks").glob("*.py")} - PARTS)
# Who takes a bundle that is compiled already, and under which option.
OPTIONS = {
    "adaptive": "--bundle", "dispatch": "--bundle", "edge_start": "--bundle", "soak": "--bundle",
    "throughput": "--bundle", "worth": "--bundle",
    "planner_regret": "--models", "overload": "--model", "neighbour": "--model",
    "endurance": "--model", "frame_cost": "--bundle",
}  # fmt: skip
# tests/test_gpu_script.py runs these, all in short and on the CPU.
BY_GPU_SCRIPT = {"gpu_exactness", "serving", "gpu_limit", "ingest", "cloud_only"}
OF_THIN = {"frame_cost"}  # theirs is another model, and calibrated

sys.path.insert(0, str(ROOT / "benchmarks"))

from photos import own_photos  # noqa: E402
from quick_bundle import QUICK, compiled  # noqa: E402
from thin_model import THIN  # noqa: E402


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(QUICK, tmp_path_factory.mktemp("bundles") / "quick.split")


@pytest.fixture(scope="module")
def thin_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("thin")
    return compiled(THIN, folder / "thin.split", "--calibrate", own_photos(folder / "photos", 0))


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripts]:
    with scripts_in_turn(tmp_path_factory.mktemp("said"), ROOT) as running:
        yield running


@pytest.mark.parametrize("name", NAMES)
def test_measurements_name_it(name: str) -> None:
    assert f"python benchmarks/{name}.py" in PAGE


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMES) - BY_GPU_SCRIPT))
def test_benchmarks(name: str, scripts: Scripts, request: pytest.FixtureRequest) -> None:
    if name == "codec_speed" and why_not():
        pytest.skip(f"there are no two forms to compare: {why_not()}")
    extra = []
    if name in OPTIONS:
        of = "thin_bundle" if name in OF_THIN else "bundle"
        extra = [OPTIONS[name], str(request.getfixturevalue(of))]
    done = scripts.run(ROOT / "benchmarks" / f"{name}.py", "--quick", *extra)
    assert done.returncode == 0, done.stderr
    assert "|" in done.stdout
