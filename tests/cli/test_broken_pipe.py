"""Commands whose reader goes away: `splitpoint run --json | head -1`."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import MAIN
from splitpoint.cli.main import main
from splitpoint.cli.shell.broken_pipe import READER_GONE
from splitpoint.partition.bundle.bundle import Bundle


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(path)
    return path


class Gone(io.StringIO):
    """A pipe that nobody reads; what is written fails at once, or when it is flushed."""

    def __init__(self, *, buffered: bool) -> None:
        super().__init__()
        self._buffered = buffered

    def write(self, text: str) -> int:
        if not self._buffered:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)

    def flush(self) -> None:
        if self.getvalue():
            raise BrokenPipeError(32, "Broken pipe")


def test_a_run_ends_without_a_word(small_bundle: Bundle, picture: Path) -> None:
    """Frames are under way when its reader has had enough."""
    process = subprocess.Popen(
        [*MAIN, "run", "--bundle", str(small_bundle.folder), "--split", "local", "--json",
         "--source", str(picture), "--repeat", "1000000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["outcome"] == "local"
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == READER_GONE
    assert said.startswith("small: boundary")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "BUNDLE"],
        ["inspect", "BUNDLE", "--json"],
        ["doctor"],
        ["doctor", "--json"],
        ["run", "--bundle", "BUNDLE", "--split", "local", "--source", "PICTURE"],
        ["run", "--bundle", "BUNDLE", "--split", "local", "--source", "PICTURE", "--json"],
        ["--version"],
        ["--help"],
        ["run", "--help"],
    ],
)
def test_every_command_ends_quietly(
    arguments: list[str],
    buffered: bool,
    small_bundle: Bundle,
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    names = {"BUNDLE": str(small_bundle.folder), "PICTURE": str(picture)}
    monkeypatch.setattr("sys.argv", ["splitpoint", *(names.get(a, a) for a in arguments)])
    monkeypatch.setattr("sys.stdout", Gone(buffered=buffered))
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == READER_GONE
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert "error" not in said.lower()


def test_lines_that_nobody_reads_are_dropped_and_the_work_goes_on(
    small_bundle: Bundle,
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--bundle", str(small_bundle.folder), "--split", "local", "--source", str(picture)]
    monkeypatch.setattr("sys.argv", ["splitpoint", "run", "--json", *arguments])
    monkeypatch.setattr("sys.stderr", Gone(buffered=False))
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["summary"]["frames"] == 1


def test_streams_that_the_shell_has_closed(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    monkeypatch.setattr("sys.argv", ["splitpoint", "inspect", str(small_bundle.folder)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
