"""Heads against loops that a person can check, and against NaN, ties, batches and wrong shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from splitpoint.codec import Array, TensorSpec
from splitpoint.partition.errors import TaskError
from splitpoint.partition.tasks.detections import Detections, detections_of
from splitpoint.partition.tasks.head import Head
from splitpoint.partition.tasks.heads import HEADS, DetectForm
from splitpoint.partition.tasks.scored import MOST_CANDIDATES, every_class
from splitpoint.partition.tasks.task import Task

SIZE_PX = (64, 96)  # height, width
CLASSES, BOXES = 5, 126  # a YOLO's cells in an input of that size
Row = tuple[float, float, float, float, float, int]


def spec(name: str, *shape: int, dtype: str = "float32", batch_dim: int = 0) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape, batch_dim=batch_dim)


def specs_of(arrays: Mapping[str, Array]) -> dict[str, TensorSpec]:
    return {name: spec(name, 1, *array.shape[1:]) for name, array in arrays.items()}


def opened(task: Task, arrays: Mapping[str, Array]) -> Head:
    head = task.open(specs_of(arrays), SIZE_PX)
    assert head is not None
    return head


def answers(task: Task, arrays: Mapping[str, Array]) -> Array:
    head = opened(task, arrays)
    answer = head.answer(arrays)
    assert list(answer) == [s.name for s in head.specs]
    for one in head.specs:
        one.check(answer[one.name])
    return answer[head.specs[0].name]


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random(shape, np.float32)


def outputs_of(head: str, batch: int = 1, seed: int = 0) -> dict[str, Array]:
    """Made up outputs: boxes that overlap, scores that are few and good."""
    n = BOXES * 3 if head == "yolov5" else BOXES
    height, width = SIZE_PX
    boxes = noise(batch, n, 4, seed=seed) * np.array(
        [width, height, 40, 40], np.float32
    )  # centre and size
    parts = boxes / np.array([width, height, width, height], np.float32)
    around = np.concatenate([boxes[..., :2] - boxes[..., 2:] / 2,
                             boxes[..., :2] + boxes[..., 2:] / 2], axis=2)  # fmt: skip
    scores = noise(batch, n, CLASSES, seed=seed + 1) ** 8
    logits = 6 * noise(batch, n, CLASSES + 1, seed=seed + 2) - 4
    heat = noise(batch, 1, 16, 24, seed=seed + 3) ** 8
    maps = noise(batch, 14, 16, 24, seed=seed + 4)
    numbers = np.floor(CLASSES * noise(batch, n, 1, seed=seed + 5))
    match head:
        case "yolo":
            return {"out": np.concatenate([boxes, scores], axis=2).transpose(0, 2, 1).copy()}
        case "yolo_corners":
            return {"out": np.concatenate([around, scores], axis=2).transpose(0, 2, 1).copy()}
        case "yolov5":
            return {"out": np.concatenate([boxes, noise(batch, n, 1), scores], axis=2)}
        case "boxes":
            return {"out": np.concatenate([around, scores[..., :1], numbers], axis=2)}
        case "detr":
            return {"logits": logits, "pred_boxes": parts}
        case "rtdetr":
            return {"logits": logits[..., 1:], "pred_boxes": parts}
        case "rtdetr_joined":
            return {"out": np.concatenate([parts, scores], axis=2)}
        case "decoded":
            return {"boxes": around, "scores": scores}
        case "decoded_background":
            return {"boxes": around, "scores": scores}
        case "centerface":
            return {"537": heat, "538": maps[:, :2] + 1, "539": maps[:, 2:4], "540": maps[:, 4:]}
        case "segment":
            return {"out": noise(batch, CLASSES, 6, 7, seed=seed)}
        case "mask_logit":
            return {"out": noise(batch, 1, 6, 7, seed=seed) - 0.5}
    return {"out": noise(batch, 1, 6, 7, seed=seed)}


# The same in loops: (x0, y0, x1, y1, score, class) of all candidates of one sample


def around(x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def loop_yolo(out: Array) -> list[Row]:
    return [(*around(*column[:4]), max(column[4:]), column[4:].index(max(column[4:])))
            for column in out.T.tolist()]  # fmt: skip


def loop_yolo_corners(out: Array) -> list[Row]:
    return [(*column[:4], score, number) for column in out.T.tolist()
            for number, score in enumerate(column[4:])]  # fmt: skip


def loop_yolov5(out: Array) -> list[Row]:
    found = []
    for row in out:
        scores = (row[4] * row[5:]).tolist()
        found.append((*around(*row[:4].tolist()), max(scores), scores.index(max(scores))))
    return found


def loop_boxes(out: Array) -> list[Row]:
    return [(*row[:5], int(row[5])) for row in out.tolist()]


def in_pixels(box: Array) -> tuple[float, float, float, float]:
    height, width = SIZE_PX
    x0, y0, x1, y1 = around(*box.tolist())
    return x0 * width, y0 * height, x1 * width, y1 * height


def loop_detr(logits: Array, boxes: Array) -> list[Row]:
    found = []
    shares, numbers = torch.from_numpy(logits).softmax(-1)[:, :-1].max(-1)
    for share, number, box in zip(shares.tolist(), numbers.tolist(), boxes, strict=True):
        found.append((*in_pixels(box), share, number))
    return found


def loop_rtdetr(logits: Array, boxes: Array) -> list[Row]:
    shares = torch.from_numpy(logits).sigmoid().tolist()
    return [(*in_pixels(box), share, number) for row, box in zip(shares, boxes, strict=True)
            for number, share in enumerate(row)]  # fmt: skip


def loop_rtdetr_joined(out: Array) -> list[Row]:
    return [(*in_pixels(row[:4]), max(row[4:].tolist()), int(row[4:].argmax())) for row in out]


def loop_decoded(boxes: Array, scores: Array) -> list[Row]:
    return [(*box, score, number) for box, row in zip(boxes.tolist(), scores.tolist(), strict=True)
            for number, score in enumerate(row)]  # fmt: skip


def loop_decoded_background(boxes: Array, scores: Array) -> list[Row]:
    return [row for row in loop_decoded(boxes, scores) if row[5] > 0]


def loop_centerface(heat: Array, scale: Array, offset: Array, _: Array) -> list[Row]:
    found = []
    for row in range(heat.shape[1]):
        for column in range(heat.shape[2]):
            y, x = (float(v) for v in offset[:, row, column])
            h, w = (4 * math.exp(v) for v in scale[:, row, column])
            box = around(4 * (column + x + 0.5), 4 * (row + y + 0.5), w, h)
            found.append((*box, float(heat[0, row, column]), 0))
    return found


LOOPS: dict[str, Callable[..., list[Row]]] = {
    "yolo": loop_yolo,
    "yolo_corners": loop_yolo_corners,
    "yolov5": loop_yolov5,
    "boxes": loop_boxes,
    "detr": loop_detr,
    "rtdetr": loop_rtdetr,
    "rtdetr_joined": loop_rtdetr_joined,
    "decoded": loop_decoded,
    "decoded_background": loop_decoded_background,
    "centerface": loop_centerface,
}


def loop_iou(one: Row, other: Row) -> float:
    w = min(one[2], other[2]) - max(one[0], other[0])
    h = min(one[3], other[3]) - max(one[1], other[1])
    both = max(w, 0) * max(h, 0)
    union = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)) - both
    return both / union if union > 0 else 0.0


def loop_best(rows: Sequence[Row], task: Task) -> list[Row]:
    kept: list[Row] = []
    for row in sorted((row for row in rows if row[4] >= task.min_score), key=lambda row: -row[4]):
        if all(row[5] != k[5] or loop_iou(row, k) <= task.max_iou for k in kept):
            kept.append(row)
    return kept[: task.max_detections]


DETECTORS = [name for name, form in HEADS.items() if isinstance(form, DetectForm)]


@pytest.mark.parametrize("head", DETECTORS)
@pytest.mark.parametrize("max_iou", [0.3, 1.0])
def test_a_head_is_its_loop(head: str, max_iou: float) -> None:
    task = Task.of_head(head, min_score=0.3, max_iou=max_iou, max_detections=40)
    arrays = outputs_of(head)
    expected = loop_best(LOOPS[head](*(array[0] for array in arrays.values())), task)
    assert len(expected) >= 10
    (found,) = answers(task, arrays)
    np.testing.assert_allclose(
        found[: len(expected)], np.array(expected, np.float32), rtol=1e-5, atol=1e-4
    )
    assert not found[len(expected) :].any()
    assert found.shape == (40, 6)


@pytest.mark.parametrize("head", HEADS)
def test_a_batch_is_its_samples(head: str) -> None:
    task = Task.of_head(head)
    batch = outputs_of(head, batch=3)
    together = answers(task, batch)
    for number in range(3):
        alone = answers(task, {name: a[number : number + 1] for name, a in batch.items()})
        np.testing.assert_array_equal(together[number : number + 1], alone)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38, -3e38])
def test_values_that_are_none_are_no_error(head: str, value: float) -> None:
    task = Task.of_head(head)
    arrays = outputs_of(head)
    here = np.random.default_rng(0)
    for array in arrays.values():
        array[here.random(array.shape) < 0.1] = value
    assert np.isfinite(answers(task, arrays)).all()
    full = {name: np.full_like(array, value) for name, array in arrays.items()}
    assert np.isfinite(answers(task, full)).all()


@pytest.mark.parametrize("head", DETECTORS)
def test_nothing_found(head: str) -> None:
    arrays = {name: np.full_like(array, -30) for name, array in outputs_of(head, batch=2).items()}
    if head == "detr":
        arrays["logits"][..., -1] = 30
    assert not answers(Task.of_head(head), arrays).any()
    assert not answers(Task.of_head(head, min_score=0.9999), arrays).any()


def a_row(*values: float) -> dict[str, Array]:
    return {"out": np.array([values], np.float32).reshape(1, -1, 6)}


def found_of(arrays: Mapping[str, Array], **limits: Any) -> Detections:
    (rows,) = answers(Task(kind="detect", head="boxes", **limits), arrays)
    return detections_of(rows)


def test_equal_scores_stay_in_order() -> None:
    found = found_of(a_row(0, 0, 9, 9, 0.5, 1, 20, 0, 29, 9, 0.5, 1, 0, 20, 9, 29, 0.75, 1))
    assert found.boxes[:, :2].tolist() == [[0, 20], [0, 0], [20, 0]]
    found = found_of(a_row(1, 0, 9, 9, 0.5, 1, 0, 0, 9, 9, 0.5, 1))
    assert found.boxes.tolist() == [[1, 0, 9, 9]]  # the first of two that overlap


def test_classes_do_not_suppress_each_other() -> None:
    rows = a_row(0, 0, 9, 9, 0.5, 1, 0, 0, 9, 9, 0.4, 2, 0, 0, 9, 9, 0.3, 1)
    assert found_of(rows).classes.tolist() == [1, 2]
    assert found_of(rows, max_iou=1.0).classes.tolist() == [1, 2, 1]
    assert found_of(rows, max_iou=1.0, max_detections=1).classes.tolist() == [1]


def test_boxes_without_area_are_found_and_impossible_ones_are_not() -> None:
    points = (5, 5, 5, 5, 0.5, 0, 5, 5, 5, 5, 0.4, 0)
    turned, unscored = (9, 0, 0, 9, 0.9, 0), (0, 0, 1, 1, 0, 1)
    no_classes = (0, 0, 1, 1, 0.9, -1, 0, 0, 1, 1, 0.9, 1e30)
    found = found_of(a_row(*points, *turned, *unscored, *no_classes))
    assert found.scores.tolist() == [0.5, np.float32(0.4)]


def test_a_score_of_the_least_is_enough() -> None:
    rows = a_row(0, 0, 9, 9, 0.25, 1)
    assert len(found_of(rows, min_score=0.25)) == 1
    assert len(found_of(rows, min_score=0.26)) == 0
    assert len(found_of(a_row(0, 0, 9, 9, 0, 1), min_score=0)) == 0


def test_classes_of_maps() -> None:
    scores = np.array([[1, math.nan, 5], [3, 4, 5], [2, 3, math.inf]], np.float32).reshape(
        1, 3, 1, 3
    )
    assert answers(Task.of_head("segment"), {"out": scores}).tolist() == [[[1, 1, 2]]]
    noisy = noise(2, 150, 9, 11)
    expected = noisy.argmax(axis=1)
    assert (answers(Task.of_head("segment"), {"out": noisy}) == expected).all()
    one = np.array([-1, 0, 0.4, 0.5, 0.6, math.nan, math.inf], np.float32).reshape(1, 1, 1, 7)
    assert answers(Task.of_head("mask_logit"), {"out": one}).ravel().tolist() == [
        0,
        0,
        1,
        1,
        1,
        0,
        1,
    ]
    assert answers(Task.of_head("mask_probability"), {"out": one}).sum() == 2


def test_an_answer_from_anywhere_is_read() -> None:
    rows = np.zeros((8, 6), np.float32)
    rows[0] = 1, 2, 3, 4, 0.5, 7
    for number, value in enumerate((math.nan, math.inf, -1, 1e30), start=1):
        rows[number] = 1, 2, 3, 4, 0.5, value
    rows[5] = 1, 2, math.inf, 4, 0.5, 1
    rows[6] = 1, 2, 3, 4, -0.5, 1
    found = detections_of(rows)
    assert found.boxes.tolist() == [[1, 2, 3, 4]]
    assert found.classes.tolist() == [7]
    assert len(found.of_score(0.5)) == 1
    assert len(found.of_score(0.6)) == 0


# Opening


def test_outputs_are_chosen_and_ordered_by_name() -> None:
    arrays = outputs_of("detr")
    other = {"hidden": noise(1, 3), **dict(reversed(arrays.items()))}
    chosen = Task.of_head("detr", ("logits", "pred_boxes"))
    assert (answers(chosen, other) == answers(Task.of_head("detr"), arrays)).all()
    assert Task(kind="raw").open({}, None) is None


def message(task: Task, *specs: TensorSpec, size: tuple[int, int] | None = SIZE_PX) -> str:
    with pytest.raises(TaskError) as error:
        task.open({s.name: s for s in specs}, size)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_wrong_shapes_are_named() -> None:
    assert message(Task.of_head("yolo"), spec("logits", 1, 1000)) == (
        "the head yolo does not read the model's 'logits' float32 [batch, 1000]: it reads floats "
        "[batch, 4 + classes, boxes]; name the outputs in that order, or another head"
    )
    detr = Task.of_head("detr")
    logits, boxes = spec("logits", 1, 100, 92), spec("pred_boxes", 1, 100, 4)
    assert "[batch, 100, 92], 'pred_boxes' float32 [batch, 99, 4]" in message(
        detr, logits, spec("pred_boxes", 1, 99, 4)
    )
    assert "'pred_boxes' float32 [batch, 100, 4], 'logits'" in message(detr, boxes, logits)
    assert "and 1 more" in message(detr, logits, boxes, *(spec(n, 1, 2) for n in "abc"))
    assert "size of the model's input" in message(detr, logits, boxes, size=None)
    assert message(Task.of_head("detr", ("a",)), logits) == (
        "the model has no output 'a': it has logits"
    )


@pytest.mark.parametrize(
    ("head", "bad"),
    [
        ("yolo", spec("a", 1, 4, 84)),
        ("yolo", spec("a", 84, 84, 1, batch_dim=2)),
        ("yolo", spec("a", 2, 84, 8400)),
        ("yolo", spec("a", 1, 84, 8400, dtype="int64")),
        ("yolo", spec("a", 1, BOXES, 9)),  # YOLOv5's order
        ("yolov5", spec("a", 1, 9, 3 * BOXES)),
        ("boxes", spec("a", 1, 300, 7)),
        ("segment", spec("a", 1, 257, 8, 8)),
        ("segment", spec("a", 1, 1, 8, 8)),
        ("mask_logit", spec("a", 1, 2, 8, 8)),
    ],
)
def test_shapes_that_are_refused(head: str, bad: TensorSpec) -> None:
    assert head in message(Task.of_head(head), bad)


def test_the_form_of_a_shape_is_what_is_read() -> None:
    for form in HEADS.values():
        for shape in form.expects:
            assert re.fullmatch(r"\[batch(, (\d+|[a-z]+|\d+ \+ [a-z]+|[a-z]+ \+ \d+))+\]", shape)


@pytest.mark.parametrize(
    ("head", "outputs", "classes"),
    [
        ("yolo", [spec("a", 1, 84, BOXES)], 80),
        ("yolo_corners", [spec("a", 1, 84, BOXES)], 80),
        ("yolov5", [spec("a", 1, 3 * BOXES, 85)], 80),
        ("boxes", [spec("a", 1, 300, 6)], None),
        ("detr", [spec("a", 1, 100, 92), spec("b", 1, 100, 4)], 91),
        ("decoded", [spec("a", 1, 50, 4), spec("b", 1, 50, 91)], 91),
        ("decoded_background", [spec("a", 1, 50, 4), spec("b", 1, 50, 91)], 91),
        ("segment", [spec("a", 1, 21, 8, 8)], 21),
        ("mask_logit", [spec("a", 1, 1, 8, 8)], 2),
        ("centerface", [spec("abcd"[i], 1, n, 8, 8) for i, n in enumerate((1, 2, 2, 10))], 1),
    ],
)
def test_how_many_classes_have_a_number(
    head: str, outputs: list[TensorSpec], classes: int | None
) -> None:
    opened = Task.of_head(head).open({one.name: one for one in outputs}, SIZE_PX)
    assert opened is not None
    assert opened.classes == classes


def test_of_many_scores_the_best_are_looked_at_and_of_equal_ones_the_first() -> None:
    """A frame can be made that fills every place of an output, and others wait for its answer."""
    scores = np.full((3_000, 91), 0.5, np.float32)
    scores[2_999, 90], scores[0, 0] = 0.9, 0.1
    found = every_class(scores, 0.05)
    assert len(found.rows) == MOST_CANDIDATES
    assert (found.rows[-1], found.classes[-1]) == (2_999, 90)
    places = found.rows[:-1] * 91 + found.classes[:-1]
    assert places.tolist() == list(range(1, MOST_CANDIDATES))


def test_a_map_that_a_small_reply_would_blow_up_is_refused() -> None:
    spec = TensorSpec(name="m", dtype="float32", shape=(1, 2, 4, 1 << 20), batch_dim=0)
    with pytest.raises(TaskError, match="4x1048576"):
        Task.of_head("segment").open({"m": spec}, None)
