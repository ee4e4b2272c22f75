"""What `--help` shows of every command on a terminal of 80 columns."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer
from command import Command
from splitpoint.cli.app import app

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
COLUMNS = 80


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_stands_there_whole(command: Command, name: str) -> None:
    shown = command(name, "--help").stdout
    words = re.split(r"[\s,]+", shown)
    options = [param for param in COMMANDS[name].params if param.param_type_name == "option"]
    wanted = [option for param in options for option in (*param.opts, *param.secondary_opts)]
    assert wanted
    assert [option for option in wanted if option not in words] == []
    assert [line for line in shown.splitlines() if len(line) > COLUMNS] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_does_stands_there_whole(command: Command, name: str) -> None:
    says = COMMANDS[name].help.partition("\n\n")[0].split()
    assert " ".join(says) in " ".join(command("--help").stdout.split())


def test_options_stand_under_their_headings(command: Command) -> None:
    headings = re.findall(r"^(\w+):$", command("plan", "--help").stdout, re.MULTILINE)
    assert headings == ["Arguments", "Options", "Conditions", "Constraints", "Output"]


@pytest.mark.parametrize("name", COMMANDS)
def test_no_line_ends_in_the_middle_of_a_name(command: Command, name: str) -> None:
    lines = command(name, "--help").stdout.splitlines()
    assert [line for line in lines if re.search(r"\w-$", line)] == []
