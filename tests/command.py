"""Runs the command in the test's own process: no second for its imports.

Processes (processes.py) are for signals, for what happens side by side, and for what may not be
imported.
"""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from splitpoint.cli.main import main

BRIEF_S = 1.0  # for which an agent that plans measures its device at most


class Command:
    """`command("inspect", folder)` gives the exit code and what was printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object, cwd: Path | None = None) -> CompletedProcess[str]:
        argv = ["splitpoint", *map(str, arguments)]
        self._capsys.readouterr()  # only what the command prints
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", argv)
            patch.setattr(sys, "path", [*sys.path])  # `compile` looks for factories in the folder
            if cwd is not None:
                patch.chdir(cwd)
            with pytest.raises(SystemExit) as caught:
                main()
        code = caught.value.code or 0
        assert isinstance(code, int)
        printed = self._capsys.readouterr()
        return CompletedProcess(argv, code, printed.out, printed.err)
