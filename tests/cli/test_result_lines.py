"""The lines of a run, whatever the model puts out."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from splitpoint.cli.run.result_lines import FrameDocument, JsonLines, PlainLines
from splitpoint.edge import Outcome, Result
from splitpoint.partition.bundle.model_kind import CLASSIFY

MANIFEST = SimpleNamespace(task=CLASSIFY, segments=("one", "two", "three"))
AGENT, LABELS = SimpleNamespace(manifest=MANIFEST), ("ant", "bee", "cat")
NAN, INF = float("nan"), float("inf")


def result_of(logits: list[float]) -> Result:
    outputs = {"logits": np.array([logits], np.float32)}
    return Result(
        id=1, outcome=Outcome.LOCAL, boundary=3, codec="none", metadata="a.png", outputs=outputs,
        labels=LABELS,
    )  # fmt: skip


def refuse(name: str) -> object:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize(
    "logits", [[1, NAN, 2], [1, INF, 2], [NAN] * 3, [-INF] * 3, [INF, -INF, 0]]
)
def test_no_class_is_made_up_from_what_is_no_number(
    logits: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    JsonLines(FrameDocument(agent=AGENT)).add(result_of(logits))  # type: ignore[arg-type]
    PlainLines(AGENT).add(result_of(logits))  # type: ignore[arg-type]
    as_json, plain = capsys.readouterr().out.splitlines()
    assert json.loads(as_json, parse_constant=refuse)["top"] == []
    assert "a.png  no class: NaN or infinity among the outputs" in plain


def test_a_class_that_cannot_be_has_no_score(capsys: pytest.CaptureFixture[str]) -> None:
    JsonLines(FrameDocument(agent=AGENT)).add(result_of([-INF, 0, 0]))  # type: ignore[arg-type]
    top = json.loads(capsys.readouterr().out, parse_constant=refuse)["top"]
    assert [(one["label"], one["score"]) for one in top] == [("bee", 0.5), ("cat", 0.5), ("ant", 0)]


def test_a_label_that_a_worker_made_up_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    named = replace(result_of([9, 0, 0]), labels=("a\x1b[2J\nb", "bee", "cat"))
    PlainLines(AGENT).add(named)  # type: ignore[arg-type]
    (line,) = capsys.readouterr().out.splitlines()
    assert "a.png  a\\x1b[2J\\nb 1.000" in line


def test_a_frame_that_the_device_finished_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    lost = "finished on the device: the stream is lost"
    finished = replace(result_of([9, 0, 0]), boundary=1, why=lost)
    for result, why in ((finished, lost), (replace(finished, boundary=3), "")):
        JsonLines(FrameDocument(agent=AGENT)).add(result)  # type: ignore[arg-type]
        PlainLines(AGENT).add(result)  # type: ignore[arg-type]
        as_json, plain = capsys.readouterr().out.splitlines()
        assert json.loads(as_json).get("why", "") == why
        assert (lost in plain) == bool(why)
