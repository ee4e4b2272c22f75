"""`benchmarks/gpu.sh`: all of it on the CPU, and what it makes of steps that fail or take long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"
STEPS = ("gpu_exactness", "serving", "gpu_limit", "ingest", "cloud_only", "gpu_exactness")
# In the interpreter's place: notes what it is to run, and ends as a variable of that name says.
FAKE = """#!/usr/bin/env bash
[[ $1 == - ]] && exec cat > /dev/null
name=$(basename "$1" .py)
echo "$*" >> "$NOTED"
if [[ ${!name:-0} == hang ]]; then exec sleep 60; fi
exit "${!name:-0}"
"""


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *arguments], env=os.environ | variables, capture_output=True, text=True,
        check=False, timeout=400,
    )  # fmt: skip


@pytest.fixture
def fake(tmp_path: Path) -> dict[str, str]:
    interpreter = tmp_path / "python"
    interpreter.write_text(FAKE)
    interpreter.chmod(0o755)
    return {"PYTHON": str(interpreter), "NOTED": str(tmp_path / "noted")}


def noted(fake: dict[str, str]) -> list[list[str]]:
    path = Path(fake["NOTED"])
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def test_every_step_is_run_in_turn_on_the_device(fake: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "resnet50.split").mkdir()
    done = run("--device", "cuda:1", "--bundles", str(tmp_path), **fake)
    assert done.returncode == 0, done.stdout + done.stderr
    commands = noted(fake)
    assert [Path(words[0]).stem for words in commands] == list(STEPS)
    assert all(words[1:3] == ["--device", "cuda:1"] for words in commands)
    named = [words[words.index(option) + 1] for words in commands
             for option in ("--model", "--models") if option in words]  # fmt: skip
    assert named == [str(tmp_path / "resnet50.split")] * 3
    assert "failed: none; left out: none" in done.stdout


def test_one_that_fails_stops_no_other(fake: dict[str, str]) -> None:
    done = run(**fake, serving="7", ingest="1")
    assert done.returncode == 1
    assert [Path(words[0]).stem for words in noted(fake)] == list(STEPS)
    assert "== serving: failed with 7" in done.stdout
    assert "failed: serving ingest; left out: none" in done.stdout


def test_networks_that_were_not_checked_are_no_success(fake: dict[str, str]) -> None:
    done = run(**fake, gpu_exactness="3")
    assert done.returncode == 3
    assert "failed: none; left out: exactness compiled" in done.stdout
    assert len(noted(fake)) == len(STEPS)


def test_what_there_is_no_time_for_is_skipped_with_a_line(fake: dict[str, str]) -> None:
    done = run("--seconds", "15", **fake)
    assert done.returncode == 3
    assert noted(fake) == []
    assert done.stdout.count("skipped, the 15 s are used up") == len(STEPS)


@pytest.mark.slow
def test_one_that_hangs_is_ended_and_the_time_of_all_is_kept(fake: dict[str, str]) -> None:
    done = run("--seconds", "22", **fake, serving="hang")
    assert done.returncode == 1
    assert "== serving: failed, it was ended after 1" in done.stdout
    assert [Path(words[0]).stem for words in noted(fake)] == list(STEPS[:2])
    assert "failed: serving; left out: limit ingest cloud_only compiled" in done.stdout


@pytest.mark.parametrize("arguments", [("--nonsense",), ("--model",), ("--seconds", "soon")])
def test_what_it_does_not_know(arguments: tuple[str, ...], fake: dict[str, str]) -> None:
    done = run(*arguments, **fake)
    assert done.returncode == 64
    assert done.stderr.startswith("Everything that a GPU")
    assert noted(fake) == []


def test_where_there_is_no_gpu_it_says_so_in_a_line() -> None:
    done = run("--device", "cuda:0", PYTHON=sys.executable, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "sees no GPU" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_all_of_it_on_the_cpu(tmp_path: Path) -> None:
    done = run("--device", "cpu", "--quick", "--bundles", str(tmp_path), PYTHON=sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr
    for step in ("exactness", "serving", "limit", "ingest", "cloud_only", "compiled"):
        assert f"== {step}: done in" in done.stdout
    assert done.stdout.count("| -") >= len(STEPS)
    assert [path.name for path in tmp_path.iterdir()] == ["quick_model-small.split"]
