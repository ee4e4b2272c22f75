"""A user's function that does what none should: its frame fails, in words, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from splitpoint.codec import TensorSpec
from splitpoint.partition.errors import TaskError
from splitpoint.partition.tasks import user_head
from splitpoint.partition.tasks.head import Limits
from splitpoint.partition.tasks.user_head import allow_head, answer_specs, open_user_head

HEADS = """
import asyncio
import sys

def quits(outputs):
    sys.exit("enough")

def cancels(outputs):
    raise asyncio.CancelledError

def recurses(outputs):
    return recurses(outputs)

def ragged(outputs):
    return {"a": [[1], [1, 2]]}

def holds_itself(outputs):
    endless = []
    endless.append(endless)
    return {"a": endless}

class Speechless(Exception):
    def __str__(self):
        raise RuntimeError("no words")

def speechless(outputs):
    raise Speechless

class Torn(dict):
    def items(self):
        raise RuntimeError("torn")

def torn(outputs):
    return Torn(a=1)

def too_large(outputs):
    return [[10**400] * 6]
"""
ANSWER = TensorSpec(name="a", dtype="float32", shape=(1, 1), batch_dim=0)
OUTPUT = TensorSpec(name="output", dtype="float32", shape=(1, 9), batch_dim=0)
LIMITS = Limits(min_score=0.05, max_iou=0.5, max_detections=100)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where modules of heads are, of which none is allowed."""
    monkeypatch.setattr(user_head, "_allowed", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd_heads.py").write_text(HEADS)
    yield tmp_path
    for name in ("odd_heads", "quits_at_once", "edits_the_path"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("quits", "SystemExit: enough"),
        ("cancels", "CancelledError"),
        ("recurses", "RecursionError"),
        ("ragged", "returned dict"),
        ("holds_itself", "returned dict"),
        ("speechless", "Speechless"),
        ("torn", "returned Torn"),
    ],
)
def test_the_frame_fails_in_words(name: str, words: str) -> None:
    head = f"odd_heads:{name}"
    allow_head(head)
    opened = open_user_head(head, "raw", {"output": OUTPUT}, [ANSWER], LIMITS)
    given = {"output": np.zeros((1, 9), np.float32)}
    with pytest.raises(TaskError, match=words):
        opened.answer(given)
    with pytest.raises(TaskError, match=words):
        answer_specs(head, "raw", {"output": given["output"][0]}, LIMITS)


def test_a_number_that_no_float_holds() -> None:
    allow_head("odd_heads:too_large")
    with pytest.raises(TaskError, match="returned list"):
        answer_specs("odd_heads:too_large", "detect", {"output": np.zeros(9)}, LIMITS)


def test_a_module_that_ends_the_process_when_it_is_imported(folder: Path) -> None:
    (folder / "quits_at_once.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(TaskError, match=r"cannot be imported \(SystemExit: 0\)"):
        allow_head("quits_at_once:head")


def test_a_module_that_edits_the_path(folder: Path) -> None:
    code = "import sys\nsys.path[:] = [p for p in sys.path if p]\ndef head(outputs): return {}\n"
    (folder / "edits_the_path.py").write_text(code)
    allow_head("edits_the_path:head")
    assert "" not in sys.path
