"""Ctrl-C and SIGTERM while a command still imports its libraries."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE_S

# Signals itself at the moment at which it begins to import what the first argument names.
SIGNALLED = """
import os, sys

class Moment:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), number)

module, number = sys.argv.pop(1), int(sys.argv.pop(1))
sys.meta_path.insert(0, Moment())
from splitpoint.cli.main import main
main()
"""
RUN = ("run", "--source", "none.png", "--server", "127.0.0.1:1")
SERVE = ("serve", "none.split", "--listen", "127.0.0.1:0")
IMPORTS = {
    RUN: "splitpoint.codec numpy rich.console typer splitpoint.cli.app splitpoint.edge grpc",
    SERVE: "numpy splitpoint.cloud.worker torch torch.nn",
}
MOMENTS = [
    pytest.param(command, name, id=f"{command[0]}-{name}")
    for command, names in IMPORTS.items()
    for name in names.split()
]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize(
    ("arguments", "module"), MOMENTS, ids=lambda value: str(value).split("'")[-1]
)
def test_it_ends_without_a_word(
    arguments: tuple[str, ...], module: str, number: signal.Signals, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, module, str(int(number)), *arguments],
        capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.stdout + done.stderr == ""
    # A shell calls both 128 + the signal's number.
    assert done.returncode == (130 if number == signal.SIGINT else -signal.SIGTERM)


def test_what_the_shell_ignores_stays_ignored(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh",
         sys.executable, "-c", SIGNALLED, "typer", str(int(signal.SIGINT)), *RUN],
        capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "none.png" in done.stderr
