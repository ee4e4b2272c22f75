"""What a server is set up with: the worker's unit, its page, and its container."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
from processes import background, free_port
from splitpoint.cli.app import app
from splitpoint.cli.commands.serve import serve
from splitpoint.cli.shell.config_file import load_config
from splitpoint.partition.bundle.bundle import Bundle

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
UNIT = DOCS / "splitpoint-worker.service"
PAGE = (DOCS / "deploy-worker.md").read_text(encoding="utf-8")


def options_of(command: str) -> set[str]:
    group = typer.main.get_command(app)
    found = group.commands[command]  # type: ignore[attr-defined]
    return {option for parameter in found.params for option in parameter.opts}


def unit() -> configparser.ConfigParser:
    text = UNIT.read_text(encoding="utf-8")
    parser = configparser.ConfigParser(interpolation=None, strict=False)  # Environment= twice
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return parser


def test_unit_names_a_command_that_exists() -> None:
    program, command, *arguments = shlex.split(unit()["Service"]["ExecStart"])
    assert (program, command) == ("/opt/splitpoint/bin/splitpoint", "serve")
    assert {word for word in arguments if word.startswith("-")} <= options_of("serve")


def test_unit_leaves_time_to_drain_and_the_gpu_open() -> None:
    service = unit()["Service"]
    grace = load_config(DOCS / "worker.toml", serve)["grace"]
    assert int(service["TimeoutStopSec"]) >= grace + 10
    assert (service["Type"], service["KillSignal"]) == ("notify", "SIGTERM")
    assert {"video", "render"} <= set(service["SupplementaryGroups"].split())
    hiding = {"PrivateDevices", "ProtectClock", "DeviceAllow", "DevicePolicy", "PrivateNetwork"}
    assert not hiding & set(service)
    assert "ORT_DISABLE_TELEMETRY=1" in UNIT.read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """Its exit code is 0 whatever it ignores: what it says counts."""
    program = unit()["Service"]["ExecStart"].split()[0]
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text(encoding="utf-8").replace(program, "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if copy.name in line]


def statements() -> list[tuple[str, str]]:
    """Instruction and argument of each statement of the container file."""
    text = re.sub(r"^#.*\n", "", (DOCS / "Containerfile").read_text(encoding="utf-8"), flags=re.M)
    text = text.replace("\\\n", " ")
    found = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(instruction, argument) for instruction, argument in found]


def arguments_of(instruction: str) -> list[str]:
    return [argument for each, argument in statements() if each == instruction]


def test_container_builds_from_what_is_here() -> None:
    known = {
        "FROM", "ARG", "ENV", "RUN", "COPY", "USER", "WORKDIR", "VOLUME", "EXPOSE", "STOPSIGNAL",
        "ENTRYPOINT", "CMD",
    }  # fmt: skip
    assert {instruction for instruction, _ in statements()} == known
    copied = set()
    for argument in arguments_of("COPY"):
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
    (extra,) = (each.removeprefix("EXTRA=") for each in arguments_of("ARG") if "EXTRA" in each)
    assert re.search(rf"^{extra} = \[", project, re.MULTILINE)
    stages = [argument.split() for argument in arguments_of("FROM")]
    assert stages[0][0] == stages[1][0]  # the environment's python is the one of both
    version = re.search(r":(3\.\d+)-", stages[0][0])
    assert version is not None
    assert version[1] >= "3.10"


def test_container_starts_the_worker_as_a_user_without_rights() -> None:
    (entrypoint,), (command,) = arguments_of("ENTRYPOINT"), arguments_of("CMD")
    assert json.loads(entrypoint) == ["splitpoint", "serve"]
    words = json.loads(command)
    assert {word for word in words if word.startswith("-")} <= options_of("serve")
    assert words.pop() == "--insecure"
    given = dict(zip(words[::2], words[1::2], strict=True))
    assert given["--watch"] in arguments_of("VOLUME")
    ports = {given[option].rpartition(":")[2] for option in ("--listen", "--metrics")}
    assert ports == set(arguments_of("EXPOSE")[0].split())
    (user,) = arguments_of("USER")
    assert int(user) > 0
    assert any(f"--uid {user}" in line for line in arguments_of("RUN"))
    assert arguments_of("STOPSIGNAL") == ["SIGTERM"]
    assert any("ORT_DISABLE_TELEMETRY=1" in line for line in arguments_of("ENV"))


def test_the_containers_command_serves(small_bundle: Bundle, tmp_path: Path) -> None:
    """As it stands in the file, with a folder and ports of this machine."""
    shutil.copytree(small_bundle.folder, tmp_path / "small.split")
    words = json.loads(arguments_of("CMD")[0])
    here = {"/models": str(tmp_path), "0.0.0.0:7070": f"0.0.0.0:{free_port()}",
            "0.0.0.0:9465": f"127.0.0.1:{free_port()}"}  # fmt: skip
    with background(["serve", *(here.get(word, word) for word in words)]) as address:
        assert address == here["0.0.0.0:7070"]


def test_page_names_options_and_files_that_exist() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    commands = [line[1:] for line in lines if line[0].endswith("splitpoint")]
    assert {command[0] for command in commands} == {"doctor", "serve", "compile"}
    for command, *arguments in commands:
        named = {word for word in arguments if word.startswith("-")}
        assert named <= options_of(command), command
    for file in re.findall(r"docs/[\w.-]+|(?<=\]\()[\w.-]+(?=\))", PAGE):
        assert (ROOT / file).exists() or (DOCS / file).exists(), file
    for name in re.findall(r"`(splitpoint_worker_\w+)`", PAGE):
        assert name in (DOCS / "grafana-worker.json").read_text(encoding="utf-8"), name
