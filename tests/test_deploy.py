"""What a device is set up with: the unit, the page about it, and the wheels for 64-bit Arm."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
from aarch64 import arm_root
from aarch64.wheels import PipError, base_dependencies, name_of, resolve
from splitpoint.cli.app import app

ROOT = Path(__file__).parents[1]
UNIT = ROOT / "deploy" / "edge" / "splitpoint-edge.service"
PAGE = (ROOT / "docs" / "guides" / "set-up-a-device.md").read_text(encoding="utf-8")
NEWER = ("RestartSteps", "RestartMaxDelaySec")  # than the oldest systemd that the unit is for


def options_of(command: str) -> set[str]:
    group = typer.main.get_command(app)
    found = group.commands[command]  # type: ignore[attr-defined]
    return {option for parameter in found.params for option in parameter.opts}


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return parser


def test_unit_names_a_command_that_exists() -> None:
    program, command, *arguments = shlex.split(unit()["Service"]["ExecStart"])
    assert program == "/opt/splitpoint/bin/splitpoint"
    options = {word for word in arguments if word.startswith("-")}
    assert {"--config", "--cache"} <= options
    assert options <= options_of(command)


def test_the_page_asks_for_the_bits_of_the_system_and_not_of_the_kernel() -> None:
    """A Raspberry Pi OS of 32 bits runs a kernel that calls itself aarch64."""
    first = re.search(r"^## 1\. Install\n.*?^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert first is not None
    assert first[1].splitlines()[0] == "getconf LONG_BIT"


def test_unit_lets_cameras_and_sensors_in_and_no_reports_out() -> None:
    service = unit()["Service"]
    assert "video" in service["SupplementaryGroups"].split()
    hiding = {"PrivateDevices", "ProtectClock", "DeviceAllow", "DevicePolicy", "PrivateNetwork"}
    assert not hiding & set(service)
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) >= 10
    assert "ORT_DISABLE_TELEMETRY=1" in service["Environment"].split()


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
    lines = [
        line for line in done.stderr.splitlines()
        if copy.name in line and not any(f"'{name}'" in line for name in NEWER)
    ]  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not lines


def test_page_names_options_and_files_that_exist() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    commands = [line[1:] for line in lines if line[0].endswith("/splitpoint")]
    assert {command[0] for command in commands} == {"doctor", "run", "profile"}
    for command, *arguments in commands:
        named = {word for word in arguments if word.startswith("-")}
        assert named <= options_of(command), command
    for file in re.findall(r"deploy/[\w./-]*\w", PAGE):
        assert (ROOT / file).exists(), file
    (table,) = re.findall(r"(?:^\|.*beyond the weights, MB.*\n)(?:^\|.*\n)+", PAGE, re.MULTILINE)
    results = (ROOT / "benchmarks" / "results").glob("edge_start-*.md")
    assert any(table in path.read_text(encoding="utf-8") for path in results)


@pytest.mark.slow
@pytest.mark.timeout(170)  # the package index may be slow
def test_edge_has_wheels_for_arm() -> None:
    """Every dependency of the edge, and all of theirs; nothing is downloaded but metadata."""
    wanted = base_dependencies("3.11")
    try:
        wheels = resolve(wanted, "3.11")
    except PipError as error:
        if error.offline:
            pytest.skip(f"the package index cannot be reached: {error}")
        raise
    assert {name_of(each) for each in wanted} <= {name_of(each.split("-")[0]) for each in wheels}
    assert all(each.endswith(("aarch64.whl", "none-any.whl")) for each in wheels)
    assert any("onnxruntime" in each and "aarch64" in each for each in wheels)


def test_arm_system_needs_root_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the remedy, where something is missing and cannot be installed."""
    said: list[str] = []
    monkeypatch.setattr(arm_root.shutil, "which", lambda name: None)
    with pytest.raises(arm_root.SetupError, match=r"no apt-get: install qemu-user-static"):
        arm_root.prepare_root(tmp_path, "", said.append)
    monkeypatch.setattr(arm_root.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(arm_root.os, "geteuid", lambda: 1000)
    with pytest.raises(arm_root.SetupError, match=r"as root once"):
        arm_root.prepare_root(tmp_path, "", said.append)
    ready = tmp_path / "bookworm-arm64" / "splitpoint-ready"
    ready.parent.mkdir()
    ready.touch()
    assert arm_root.prepare_root(tmp_path, "", said.append) == ready.parent
    assert len(said) == 1
