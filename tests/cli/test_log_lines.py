"""Whatever a log line was made of, it is one line, and moves no cursor."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from splitpoint.cli.shell.log_lines import JsonLine
from splitpoint.cli.shell.output import MOST_LOGGED, OneLine, say, setup_logging

HOSTILE = "x)\nWARNING gate-1 is refused\x1b[31m\x9b2J\u2028" + "y" * 10_000


def record_of(*, failed: bool = False) -> logging.LogRecord:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        info = sys.exc_info() if failed else None
    record = logging.LogRecord("splitpoint", logging.INFO, "", 1, "%s uses", (HOSTILE,), info)
    record.client = HOSTILE
    return record


def test_text() -> None:
    line = OneLine("%(message)s").format(record_of())
    assert line.startswith("x)\\nWARNING gate-1 is refused\\x1b[31m\\x9b2J\\u2028")
    assert line.isprintable()
    assert len(line) <= MOST_LOGGED + 40
    first, *traceback = OneLine("%(message)s").format(record_of(failed=True)).splitlines()
    assert all(line.isprintable() for line in (first, *traceback))
    assert all(line.startswith("    ") for line in traceback)
    assert "ValueError: x)" in traceback[-3]


def test_json() -> None:
    line = JsonLine().format(record_of(failed=True))
    assert line.isprintable()
    assert line.isascii()
    assert json.loads(line)["client"] == HOSTILE


def test_a_line_in_a_file_is_not_wrapped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    root, own = logging.getLogger(), logging.getLogger("splitpoint")
    level = own.level
    monkeypatch.setattr(root, "handlers", [])
    try:
        setup_logging(verbose=False)
        logging.getLogger("splitpoint.edge").warning("%s is lost; opening it again", "x" * 100)
    finally:
        own.setLevel(level)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f" WARNING {'x' * 100} is lost; opening it again")


def test_what_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Errors, too, hold names that a worker gave."""
    say(f"error: worker:7070 serves {HOSTILE}")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert "serves x)\\nWARNING" in line
