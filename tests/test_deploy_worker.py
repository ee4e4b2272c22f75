"""What a server is set up with: the worker's unit and its page."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
from splitpoint.cli.app import app
from splitpoint.cli.commands.serve import serve
from splitpoint.cli.shell.config_file import load_config

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy" / "worker"
UNIT = DEPLOY / "splitpoint-worker.service"
PAGE = (ROOT / "docs" / "guides" / "run-the-worker.md").read_text(encoding="utf-8")


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
    grace = load_config(DEPLOY / "worker.toml", serve)["grace"]
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


def test_page_names_options_and_files_that_exist() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    commands = [line[1:] for line in lines if line[0].endswith("splitpoint")]
    assert {command[0] for command in commands} == {"certs", "compile", "doctor", "run", "serve"}
    for command, *arguments in commands:
        named = {word for word in arguments if word.startswith("-")}
        assert named <= options_of(command), command
    for file in re.findall(r"deploy/[\w./-]*\w", PAGE):
        assert (ROOT / file).exists(), file
    for name in re.findall(r"`(splitpoint_worker_\w+)`", PAGE):
        assert name in (DEPLOY / "grafana-worker.json").read_text(encoding="utf-8"), name
