"""NaN and infinity: refused in one line by every option that takes a number."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from command import Command
from splitpoint.cli.app import app
from splitpoint.cli.shell.finite import NotFiniteError

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def numbers() -> Iterator[tuple[str, str]]:
    """Each command's options that are declared as floats."""
    for name, command in COMMANDS.items():
        declared = inspect.signature(inspect.unwrap(command.callback)).parameters
        for param in command.params:
            if str(declared[param.name].annotation).startswith("Annotated[float"):
                yield name, param.opts[0]


OPTIONS = list(numbers())


def test_there_are_such_options() -> None:
    assert {"run", "plan", "profile", "serve", "emulate"} <= {name for name, _ in OPTIONS}
    assert ("run", "--budget-ms") in OPTIONS
    assert ("plan", "--deadline-ms") in OPTIONS


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_what_is_no_number_to_reckon_with(name: str, option: str) -> None:
    for text in ("nan", "inf", "-inf", "1e999"):
        with pytest.raises(NotFiniteError) as caught:
            COMMANDS[name].make_context(name, [f"{option}={text}"])
        assert str(caught.value) == f"{option} {text}: give a finite number"


def test_it_is_one_line(command: Command) -> None:
    done = command("emulate", "--server", "a:1", "--jitter-ms", "inf")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: --jitter-ms inf: give a finite number\n"


def test_other_text_and_what_is_out_of_range_is_wrong_usage(command: Command) -> None:
    for text in ("long", "-5", "0.5"):
        done = command("run", "--source", "x.png", "--budget-ms", text)
        assert done.returncode == 2
        assert "--budget-ms" in done.stderr


def test_a_name_that_reads_like_one_is_a_name(command: Command, tmp_path: Path) -> None:
    done = command("run", "--source", tmp_path / "none.png", "--server", "a:1", "--model", "nan")
    assert "nan" not in done.stderr
    assert done.returncode == 1
