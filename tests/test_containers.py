"""The container files of the worker and of the device, statement by statement."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import typer
from processes import background, free_port
from splitpoint.cli.app import app
from splitpoint.partition.bundle.bundle import Bundle

ROOT = Path(__file__).parents[1]
EDGE = ROOT / "deploy" / "edge" / "Containerfile"
WORKER = ROOT / "deploy" / "worker" / "Containerfile"
KNOWN = {
    "FROM", "ARG", "ENV", "RUN", "COPY", "USER", "WORKDIR", "VOLUME", "EXPOSE", "STOPSIGNAL",
    "ENTRYPOINT", "CMD",
}  # fmt: skip


def options_of(command: str) -> set[str]:
    group = typer.main.get_command(app)
    found = group.commands[command]  # type: ignore[attr-defined]
    return {option for parameter in found.params for option in parameter.opts}


def statements(file: Path) -> list[tuple[str, str]]:
    """Instruction and argument of each statement."""
    text = re.sub(r"^#.*\n", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    found = [line.split(maxsplit=1) for line in lines if line.strip()]
    return [(instruction, argument) for instruction, argument in found]


def arguments_of(file: Path, instruction: str) -> list[str]:
    return [argument for each, argument in statements(file) if each == instruction]


@pytest.mark.parametrize("file", [EDGE, WORKER], ids=["edge", "worker"])
def test_it_builds_from_what_is_here(file: Path) -> None:
    assert {instruction for instruction, _ in statements(file)} <= KNOWN
    copied = set()
    for argument in arguments_of(file, "COPY"):
        if argument.startswith("--from=build "):
            continue
        *sources, target = argument.split()
        assert target.startswith("/src/")
        for source in sources:
            assert (ROOT / source).exists(), source
        copied |= set(sources)
    # Every package, and what pyproject.toml itself reads.
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    rooms = set(re.findall(r'^"splitpoint\.\w+" = "(\w+)"', project, re.MULTILINE))
    assert copied == rooms | {"pyproject.toml", "README.md", "LICENSE"}
    (extras,) = (each[6:] for each in arguments_of(file, "ARG") if each.startswith("EXTRA="))
    for extra in extras.split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
    stages = [argument.split() for argument in arguments_of(file, "FROM")]
    assert stages[0][0] == stages[1][0]  # the environment's python is the one of both
    version = re.search(r":(3\.\d+)-", stages[0][0])
    assert version is not None
    assert version[1] >= "3.10"


@pytest.mark.parametrize("file", [EDGE, WORKER], ids=["edge", "worker"])
def test_it_starts_a_command_as_a_user_without_rights(file: Path) -> None:
    (entrypoint,), (command,) = arguments_of(file, "ENTRYPOINT"), arguments_of(file, "CMD")
    program, name = json.loads(entrypoint)
    assert (program, name) == ("splitpoint", "run" if file == EDGE else "serve")
    assert {word for word in json.loads(command) if word.startswith("-")} <= options_of(name)
    (user,) = arguments_of(file, "USER")
    assert int(user) > 0
    assert any(f"--uid {user}" in line for line in arguments_of(file, "RUN"))
    assert arguments_of(file, "STOPSIGNAL") == ["SIGTERM"]
    assert any("ORT_DISABLE_TELEMETRY=1" in line for line in arguments_of(file, "ENV"))


def test_the_workers_folder_and_ports_are_those_of_its_command() -> None:
    words = json.loads(arguments_of(WORKER, "CMD")[0])
    assert words.pop() == "--insecure"
    given = dict(zip(words[::2], words[1::2], strict=True))
    assert given["--watch"] in arguments_of(WORKER, "VOLUME")
    ports = {given[option].rpartition(":")[2] for option in ("--listen", "--metrics")}
    assert ports == set(arguments_of(WORKER, "EXPOSE")[0].split())


def test_the_device_keeps_its_cache_where_it_may_write() -> None:
    words = json.loads(arguments_of(EDGE, "CMD")[0])
    given = dict(zip(words[::2], words[1::2], strict=True))
    assert [given["--cache"]] == arguments_of(EDGE, "VOLUME")
    assert any(f"install -d -o splitpoint {given['--cache']}" in line
               for line in arguments_of(EDGE, "RUN"))  # fmt: skip


def test_the_workers_command_serves(small_bundle: Bundle, tmp_path: Path) -> None:
    """As it stands in the file, with a folder and ports of this machine."""
    shutil.copytree(small_bundle.folder, tmp_path / "small.split")
    words = json.loads(arguments_of(WORKER, "CMD")[0])
    here = {"/models": str(tmp_path), "0.0.0.0:7070": f"0.0.0.0:{free_port()}",
            "0.0.0.0:9465": f"127.0.0.1:{free_port()}"}  # fmt: skip
    with background(["serve", *(here.get(word, word) for word in words)]) as address:
        assert address == here["0.0.0.0:7070"]
