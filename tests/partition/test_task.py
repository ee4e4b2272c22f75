"""What a manifest may say of a task."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from splitpoint.partition.errors import TaskError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.models.task_options import TaskOptions
from splitpoint.partition.tasks.heads import HEADS
from splitpoint.partition.tasks.task import Task


@pytest.mark.parametrize("head", HEADS)
def test_a_task_reads_itself(head: str) -> None:
    task = Task.of_head(head, ("a", "b"), max_detections=7)
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task
    assert task.kind == HEADS[head].kind


def test_tasks_without_head() -> None:
    for kind in ("classify", "raw"):
        task = Task(kind=kind)
        assert Task.from_json(task.to_json()) == task


HOSTILE: list[tuple[str, Any]] = [
    ("kind", "track"),
    ("kind", None),
    ("kind", ["detect"]),
    ("head", ""),
    ("head", "segment"),
    ("head", 3),
    ("head", {}),
    ("outputs", "out"),
    ("outputs", None),
    ("outputs", [1]),
    ("outputs", [""]),
    ("outputs", [["a"]]),
    ("outputs", ["a", "a"]),
    ("outputs", [str(n) for n in range(1000)]),
    ("outputs", ["a" * 1_000_000]),
    ("min_score", -0.1),
    ("min_score", 1.1),
    ("min_score", math.nan),
    ("min_score", "0.5"),
    ("min_score", True),
    ("min_score", None),
    ("max_iou", math.inf),
    ("max_iou", 10**5000),
    ("max_detections", 0),
    ("max_detections", 1001),
    ("max_detections", 10.0),
    ("max_detections", True),
    ("max_detections", 10**5000),
    ("unknown", 1),
]


@pytest.mark.parametrize(("key", "value"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_manifests(key: str, value: Any) -> None:
    good = Task.of_head("yolo").to_json()
    with pytest.raises(TaskError) as error:
        Task.from_json({**good, key: value})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_malformed_manifests() -> None:
    good = Task.of_head("yolo").to_json()
    deep: Any = []
    for _ in range(10_000):
        deep = [deep]
    lacking = {key: value for key, value in good.items() if key != "kind"}
    more = {**good, "kind": deep}
    malformed: list[Any] = [None, [], "detect", 1, {}, lacking, more]
    for bad in malformed:
        with pytest.raises(TaskError):
            Task.from_json(bad)


def test_an_unknown_head_is_named_with_those_there_are() -> None:
    with pytest.raises(TaskError, match="unknown head 'ssd': use one of yolo, "):
        Task.of_head("ssd")
    with pytest.raises(TaskError, match="the task raw has no head 'yolo': name none"):
        Task(kind="raw", head="yolo")


@pytest.mark.parametrize("said", [
    {"head": "segment"}, {"kind": "classify"}, {"kind": "raw"}, {},
])  # fmt: skip
def test_only_a_detector_has_most_detections(said: dict[str, str]) -> None:
    known = ModelSpec(source="m", module=torch.nn.Identity(), task=Task(kind="classify"))
    with pytest.raises(TaskError, match="--max-detections"):
        TaskOptions(**said, max_detections=5).applied(known)  # type: ignore[arg-type]
    spec = TaskOptions(head="boxes", max_detections=5).applied(known)
    assert spec.task is not None
    assert spec.task.max_detections == 5
