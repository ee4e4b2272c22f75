"""Answers are judged by what the task is: boxes, maps, classes, or values."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from split_tables import level
from splitpoint.codec import Array, TensorSpec
from splitpoint.partition.bundle.ladder import CodecLevel, Judged, least_bound, usual_loss
from splitpoint.partition.calibrate.spread import OutputSpread
from splitpoint.partition.calibrate.truth import AnswersTruth, Outputs, OutputsTruth
from splitpoint.partition.relative_error import relative_error
from splitpoint.partition.tasks.head import Head
from splitpoint.partition.tasks.similarity import Similarity
from splitpoint.partition.tasks.task import Task

PICTURES = 12


def head_of(task: Task, shape: tuple[int, ...]) -> Head:
    spec = TensorSpec(name="out", dtype="float32", shape=shape, batch_dim=0)
    head = task.open({"out": spec}, (64, 64))
    assert head is not None
    return head


def batches(outputs: Array, size: int = 5) -> Iterator[Outputs]:
    return ({"out": outputs[i : i + size]} for i in range(0, len(outputs), size))


def boxes(scores: Array) -> Array:
    """Ten boxes of 5 pixels apart from each other, one class, `[pictures, 5, 10]`."""
    found = np.zeros((len(scores), 5, 10), np.float32)
    found[:, 0] = 6 * np.arange(10) + 3
    found[:, 1:4] = np.array([20, 5, 5])[:, None]
    found[:, 4] = scores
    return found


DETECTOR = head_of(Task.of_head("yolo"), (1, 5, 10))
SCORES = np.random.default_rng(0).uniform(0.3, 1, (PICTURES, 10)).astype(np.float32)


def test_a_detector_is_judged_by_its_boxes() -> None:
    truth = AnswersTruth(batches(boxes(SCORES)), DETECTOR, "detect")
    assert not truth.is_empty
    same = truth.outcome(batches(boxes(SCORES), 3))
    assert same is not None
    found = Judged(**same)
    assert (found.judged, found.agreed, found.loss, found.drop) == (PICTURES, None, 0, 0)
    assert found.drop_interval == pytest.approx((0, least_bound(PICTURES, "detect")))
    fewer = boxes(SCORES)
    fewer[::2, 4] = 0  # half of the pictures show nothing any more
    half = truth.outcome(batches(fewer))
    assert half is not None
    assert Judged(**half).drop == pytest.approx(0.5)
    assert half["loss"] == pytest.approx(0.5)


def test_what_scores_little_is_no_truth() -> None:
    low = np.full_like(SCORES, 0.2)
    assert AnswersTruth(batches(boxes(low)), DETECTOR, "detect").is_empty
    mixed = SCORES.copy()
    mixed[:, 0] = 0.2
    truth = AnswersTruth(batches(boxes(mixed)), DETECTOR, "detect")
    mixed[:, 0] = 0
    without = truth.outcome(batches(boxes(mixed)))
    assert without is not None
    assert without["similarity"].value == 1


def test_a_segmenter_is_judged_by_its_maps() -> None:
    head = head_of(Task.of_head("segment"), (1, 2, 8, 8))
    scores = np.zeros((PICTURES, 2, 8, 8), np.float32)
    scores[:, 1, :4] = 1  # the upper half is of class 1
    truth = AnswersTruth(batches(scores), head, "segment")
    same = truth.outcome(batches(scores, 12))
    assert same is not None
    assert Judged(**same).drop == 0
    assert same["similarity"].low == pytest.approx(1 - least_bound(PICTURES, "segment"))
    scores[:, 1, :2] = -1
    quarter = truth.outcome(batches(scores))
    assert quarter is not None
    assert quarter["similarity"].value == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize("size", [1, 5, 12])
def test_values_are_judged_in_parts(size: int) -> None:
    rng = np.random.default_rng(1)
    before, noise = rng.normal(2, 3, (2, PICTURES, 7)).astype(np.float32)
    after = before + noise / 50
    found = OutputsTruth(batches(before), classifies=False).outcome(batches(after, size))
    assert found is not None
    expected = ((after - before) ** 2).mean() / before.var() / 2
    assert found["loss"] == pytest.approx(expected, rel=1e-3)
    assert found["worst_error"] == pytest.approx(relative_error(after, before), rel=1e-3)
    spread = OutputSpread()
    for batch in batches(before, size):
        spread.see(batch)
    assert spread.deviations["out"] == pytest.approx(before.std(), rel=1e-5)


def test_no_numbers_are_no_answer() -> None:
    broken = boxes(SCORES)
    broken[7, 4, 3] = np.nan
    for truth in (
        AnswersTruth(batches(boxes(SCORES)), DETECTOR, "detect"),
        OutputsTruth(batches(boxes(SCORES)), classifies=False),
    ):
        assert truth.outcome(batches(broken)) is None


def test_a_rung_keeps_its_similarity() -> None:
    like = Similarity(0.97, 0.93, 0.99)
    rung = level("q4", agreed=None, loss=0.03, similarity=like)
    assert CodecLevel.from_json(rung.to_json()) == rung
    assert rung.drop == pytest.approx(0.03)
    assert rung.drop_interval == pytest.approx((0.01, 0.07))
    assert "similarity" not in level("q4").to_json()
    assert usual_loss(rung) == 0.03
    assert usual_loss(level("jpeg", agreed=None, loss=0.0, similarity=like)) == 0.025
    for low, high in ((0.98, 0.99), (0.9, 0.95), (float("nan"), 1.0), (-0.1, 1.0)):
        with pytest.raises(ValueError, match="impossible similarity"):
            level("q4", agreed=None, similarity=Similarity(0.97, low, high))
