"""Every command of the README is run as it is written; only ports are replaced."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from processes import background, free_port, splitpoint
from splitpoint.partition.capture.capture import capture
from videos import write_video

ROOT = Path(__file__).parents[1]
PORTS = ("7070", "7071", "7072", "7443", "9464", "9465")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    inline = re.findall(r"`(splitpoint [^`]*|python benchmarks/[^`]*)`", README)
    return [shlex.split(line) for line in [*lines, *inline]]


def test_every_command_is_of_a_kind_that_is_tested() -> None:
    for command in commands():
        known = (
            command[0] == "splitpoint"
            or (command[0] == "make" and command[1] in ("demo", "test", "test-aarch64", "test-ray"))
            or command[:2] == ["pip", "install"]
            or command[0] in ("sudo", "podman")
            or (command[0] == "python" and command[1].startswith("benchmarks/"))
        )
        assert known, command


@pytest.mark.slow
@pytest.mark.timeout(500)  # all commands of a session, one after the other
def test_splitpoint_commands(photos: Path, tmp_path: Path) -> None:
    """Compile, inspect, serve, run, emulate and the Python example, in the README's order."""
    shutil.copytree(photos, tmp_path / "photos")
    for folder in ("typical", "models"):
        (tmp_path / folder).mkdir()
    for path in photos.iterdir():
        with Image.open(path) as photo:
            for left in (0, 60, 120):
                crop = photo.crop((left, 0, left + 250, 250)).convert("RGB")
                crop.save(tmp_path / "typical" / f"{path.stem}{left}.png")
    write_video(tmp_path / "clip.mp4", 5, "mp4v")
    ports = {port: str(free_port()) for port in PORTS}

    def local(word: str) -> str:
        return re.sub("|".join(PORTS), lambda match: ports[match[0]], word)

    (example,) = blocks("toml")
    (tmp_path / "agent.toml").write_text(local(example), encoding="utf-8")
    ran = set()
    with ExitStack() as stack:
        for command in commands():
            if command[0] != "splitpoint" or command[1] == "demo" or "--ray" in command:
                continue  # Ray's is run by tests/cloud/test_ray.py, in make test-ray
            arguments = [local(word) for word in command[1:]]
            if len(arguments) == 1 and arguments[0] not in ("doctor",):
                assert splitpoint(arguments[0], "--help").returncode == 0  # named in passing
                continue
            ran.add(arguments[0])
            if arguments[0] in ("serve", "emulate"):
                stack.enter_context(background(arguments, cwd=tmp_path))
                continue
            if arguments[0] == "run":
                arguments += ["--cache", str(tmp_path / "cache")]
            if arguments[0] == "profile":
                arguments += ["--max-seconds", "3"]
            done = splitpoint(*arguments, cwd=tmp_path)
            assert done.returncode == 0, (command, done.stderr)
            assert done.stdout or arguments[0] == "certs"
        for block in (block for block in blocks("python") if "EdgeAgent" in block):
            done = subprocess.run(
                [sys.executable, "-c", local(block)],
                capture_output=True, text=True, timeout=60, check=False,
                env={"XDG_CACHE_HOME": str(tmp_path / "xdg"), "PATH": "/usr/bin:/bin"},
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith("answered (1, 1000)")
    assert ran == {
        "compile",
        "inspect",
        "profile",
        "plan",
        "serve",
        "run",
        "emulate",
        "doctor",
        "certs",
    }
    assert "<svg" in (tmp_path / "plan.html").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_targets() -> None:
    for target, must in (
        ("demo", "splitpoint demo"), ("test", "pytest"), ("test-aarch64", "tests/aarch64/run.py"),
        ("test-ray", "-m ray"),
    ):  # fmt: skip
        done = subprocess.run(
            ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert must in done.stdout


def test_what_needs_root_or_podman_names_what_is_here() -> None:
    """The unit and the container file have tests of their own."""
    for command in commands():
        if command[:2] == ["sudo", "cp"]:
            assert (ROOT / command[2]).is_file()
        elif command[:2] == ["sudo", "systemctl"]:
            assert list(ROOT.glob(f"deploy/*/{command[-1]}.service"))
        elif command[:2] == ["podman", "build"]:
            assert (ROOT / command[command.index("-f") + 1]).is_file()
        elif command[:2] == ["podman", "run"]:
            container = (ROOT / "deploy/worker/Containerfile").read_text(encoding="utf-8")
            assert "VOLUME /models\n" in container
            assert "EXPOSE 7070 " in container
        elif command[0] == "sudo":
            assert command[1] == "mkdir"


def test_pip_commands_name_extras_that_exist() -> None:
    from importlib.metadata import metadata

    extras = set(metadata("splitpoint").get_all("Provides-Extra") or ())
    installs = [command[-1] for command in commands() if command[0] == "pip"]
    assert installs
    for target in installs:
        match = re.fullmatch(r"\.(?:\[(.*)\])?", target)
        assert match is not None, target
        assert set((match[1] or "").split(",")) - {""} <= extras


def test_quoted_figures_stand_in_results() -> None:
    """The tables of the README are those under benchmarks/results, to the letter."""
    results = [path.read_text() for path in (ROOT / "benchmarks" / "results").glob("*.md")]
    tables = re.findall(r"(?:^\| .*\n)+", README, re.MULTILINE)
    quoted = [table for table in tables if "compile, s" in table or "bare echo" in table
              or "planner against" in table
              or "sum of layers" in table or "than the prototype" in table
              or "INT8, ms" in table or "a fitted line" in table
              or "in time" in table or "fps streamed" in table
              or "over per boundary" in table
              or "first answer, s (of CPU)" in table]  # fmt: skip
    assert len(quoted) == 11
    for table in quoted:
        assert any(table in result for result in results)


def test_models_of_ones_own() -> None:
    """The factories of the README return what can be captured."""
    (block,) = (block for block in blocks("python") if "ModelSpec" in block)
    names: dict[str, Any] = {}
    exec(block, names)
    specs = [names[name]() for name in ("sequences", "wide_photos")]
    found = [capture(spec.module, spec.args, spec.kwargs) for spec in specs]
    assert [len(model.layers) for model in found] == [3, 4]
