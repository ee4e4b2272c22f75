"""Average precision and mean IoU: by hand, and their intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from splitpoint.codec import Array
from splitpoint.partition.tasks.detections import Detections
from splitpoint.partition.tasks.similarity import Similarity, average_precision, mean_iou

Box = tuple[float, float, int]  # where it begins, its score, its class


def picture(*boxes: Box) -> Detections:
    rows = np.array([(10 * at, 0, 10 * at + 10, 10, score, c) for at, score, c in boxes], float)
    rows = rows.reshape(-1, 6)
    return Detections(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64))


def test_the_same_boxes() -> None:
    truth = [picture((0, 0.9, 1), (3, 0.5, 2)), picture(), picture((7, 0.6, 1))]
    assert average_precision(truth, truth).value == 1
    copies = [picture((0, 0.9, 1), (0, 0.9, 1))]  # as without suppression
    assert average_precision(copies, copies).value == 1


def test_by_hand() -> None:
    # True: 3 boxes. Hit, miss, hit: recall 1/3 at precision 1, 2/3 at 2/3, and no more.
    truth = [picture((0, 1, 0), (2, 1, 0)), picture((0, 1, 0))]
    found = [picture((0, 0.9, 0), (5, 0.8, 0), (2, 0.7, 0)), picture()]
    assert average_precision(found, truth).value == pytest.approx(1 / 3 + 2 / 9)
    # Precision is made monotonous: miss, hit, hit is 2/3 at both recalls.
    found = [picture((5, 0.9, 0), (0, 0.8, 0)), picture((0, 0.7, 0))]
    assert average_precision(found, truth).value == pytest.approx(2 / 3 * 2 / 3)
    # A second box for the same thing is a miss, and comes before the next hit.
    found = [picture((0, 0.9, 0), (0, 0.8, 0)), picture((0, 0.7, 0))]
    assert average_precision(found, truth).value == pytest.approx(1 / 3 + 2 / 9)


def test_scores_order_across_pictures() -> None:
    truth = [picture((0, 1, 0)), picture((0, 1, 0))]
    found = [picture((0, 0.5, 0), (5, 0.4, 0)), picture((0, 0.3, 0))]
    assert average_precision(found, truth).value == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_the_mean_is_over_true_classes() -> None:
    truth = [picture((0, 1, 0), (0, 1, 1))]
    assert average_precision([picture((0, 0.9, 0), (3, 0.9, 7))], truth).value == 0.5
    wrong_class = [picture((0, 0.9, 1)), picture((0, 0.9, 0))]
    assert average_precision(wrong_class, list(reversed(wrong_class))).value == 0


def test_min_iou() -> None:
    truth, found = [picture((0, 1, 0))], [picture((0.25, 1, 0))]  # IoU 7.5 / 12.5
    assert average_precision(found, truth, 0.6).value == 1
    assert average_precision(found, truth, 0.61).value == 0
    # Each hits the box that it fits best, although the other would do.
    truth = [picture((0, 1, 0), (0.1, 1, 0))]
    assert average_precision([picture((0.1, 0.9, 0), (0, 0.8, 0))], truth, 0.9).value == 1


def test_no_truth() -> None:
    for truth in ([], [picture()], [Detections(np.zeros((1, 4)), np.ones(1), np.ones(1, int))]):
        found = [picture((0, 1, 0))] * len(truth)
        assert math.isnan(average_precision(found, truth).value)
        assert math.isnan(average_precision(found, truth).low)
    assert average_precision([picture()], [picture((0, 1, 0))]) == Similarity(0, 0, 0)


def test_pictures_must_be_paired() -> None:
    with pytest.raises(ValueError, match="zip"):
        average_precision([], [picture((0, 1, 0))])
    with pytest.raises(ValueError, match="zip"):
        mean_iou([], [np.zeros((2, 2), np.uint8)])


places = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1)), max_size=5)


def by_definition(found: list[Detections], truth: list[Detections]) -> float:
    """Boxes of this file either are the same or do not overlap; no two scores are equal."""
    values = []
    for number in sorted({int(c) for one in truth for c in one.classes}):
        left = [[box[0] for box, c in zip(one.boxes, one.classes, strict=True) if c == number]
                for one in truth]  # fmt: skip
        count, hits = sum(map(len, left)), []
        ranked = [(score, picture, box[0]) for picture, one in enumerate(found)
                  for box, score, c in zip(one.boxes, one.scores, one.classes, strict=True)
                  if c == number]  # fmt: skip
        for _, where, at in sorted(ranked, reverse=True):
            hits.append(at in left[where])
            if hits[-1]:
                left[where].remove(at)
        precisions = [sum(hits[: n + 1]) / (n + 1) for n in range(len(hits))]
        values.append(sum(max(precisions[n:]) for n, hit in enumerate(hits) if hit) / count)
    return sum(values) / len(values) if values else math.nan


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(places, places), min_size=1, max_size=4), st.integers(0, 99))
def test_it_is_its_definition(pairs: list[tuple[list[Any], list[Any]]], seed: int) -> None:
    scores = iter(np.random.default_rng(seed).permutation(100) / 100)
    found = [picture(*((at, next(scores), c) for at, c in one)) for one, _ in pairs]
    truth = [picture(*((at, 1.0, c) for at, c in other)) for _, other in pairs]
    expected = pytest.approx(by_definition(found, truth), nan_ok=True)
    once = average_precision(found, truth)
    assert once.value == expected
    # The bootstrap counts a picture twice where it is drawn twice.
    assert average_precision(found * 2, truth * 2).value == expected
    if not math.isnan(once.value):
        assert 0 <= once.low <= once.value <= once.high <= 1


def test_interval_of_perfect_answers_does_not_promise_all() -> None:
    truth = [picture((0, 1, 0), (2, 1, 0))] * 100
    found = average_precision(truth, truth)
    assert (found.value, found.high) == (1, 1)
    assert 0.95 < found.low < 0.98  # 3 of 100


def test_interval_covers() -> None:
    """Of experiments with a true value of 0.8, those whose interval holds it are most of all."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(30):
        lost = rng.random(60) < 0.2
        truth = [picture((0, 1, 0))] * 60
        found = average_precision([picture() if x else picture((0, 1, 0)) for x in lost], truth)
        covered += found.low <= 0.8 <= found.high
    assert covered >= 26


# Maps


def maps(*rows: str) -> Array:
    return np.array([[int(c) for c in row] for row in rows], np.uint8)


def test_mean_iou_by_hand() -> None:
    truth = [maps("0011", "0011"), maps("0000", "2222")]
    assert mean_iou(truth, truth).value == 1
    found = [maps("0001", "0001"), maps("0000", "2222")]
    # Class 0: 8 of 10, class 1: 2 of 4, class 2: all.
    assert mean_iou(found, truth).value == pytest.approx((8 / 10 + 1 / 2 + 1) / 3)
    stray = [maps("0011", "0011"), maps("0003", "2222")]
    assert mean_iou(stray, truth).value == pytest.approx((7 / 8 + 1 + 1) / 3)


def test_mean_iou_interval() -> None:
    rng = np.random.default_rng(0)
    truth = [rng.integers(0, 3, (8, 8), np.uint8) for _ in range(50)]
    found = [np.where(rng.random((8, 8)) < 0.1, 0, t).astype(np.uint8) for t in truth]
    result = mean_iou(found, truth)
    assert 0.75 < result.low < result.value < result.high < 0.96
    same = mean_iou(truth, truth)
    assert (same.value, same.high) == (1, 1)
    assert 0.85 < same.low < 0.95
    assert mean_iou(truth, truth) == same
