"""Suppression against a plain loop over all pairs."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from splitpoint.codec import Array
from splitpoint.partition.tasks.nms import best_apart, iou

Box = tuple[int, int, int, int]


def exact_iou(one: Box, other: Box) -> Fraction:
    w = min(one[2], other[2]) - max(one[0], other[0])
    h = min(one[3], other[3]) - max(one[1], other[1])
    both = max(w, 0) * max(h, 0)
    union = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)) - both
    return Fraction(both, union) if union else Fraction(0)


def loop(boxes: list[Box], classes: list[int], max_iou: float, most: int) -> list[int]:
    kept: list[int] = []
    for i in range(len(boxes)):
        if all(classes[i] != classes[k] or exact_iou(boxes[i], boxes[k]) <= max_iou for k in kept):
            kept.append(i)
    return kept[:most]


def as_boxes(rows: list[Box]) -> Array:
    return np.array(rows, np.float32).reshape(-1, 4)


spans = st.tuples(st.integers(0, 6), st.integers(0, 6)).map(sorted)
a_box = st.tuples(spans, spans).map(lambda s: (s[0][0], s[1][0], s[0][1], s[1][1]))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(a_box, st.integers(0, 2)), max_size=40),
    st.sampled_from((0.0, 0.25, 0.5, 0.75, 1.0)),
    st.integers(1, 12),
)
def test_it_is_the_loop(rows: list[tuple[Box, int]], max_iou: float, most: int) -> None:
    boxes, classes = [box for box, _ in rows], [c for _, c in rows]
    found = best_apart(as_boxes(boxes), np.array(classes, np.int64), max_iou, most)
    assert found.tolist() == loop(boxes, classes, max_iou, most)


@pytest.mark.parametrize("most", [1, 30, 100, 1000])
def test_it_is_the_loop_over_blocks(most: int) -> None:
    rng = np.random.default_rng(0)
    low = rng.integers(0, 60, (700, 2))
    rows = np.concatenate([low, low + rng.integers(0, 30, (700, 2))], axis=1)
    boxes: list[Box] = [tuple(row) for row in rows.tolist()]
    classes = rng.integers(0, 3, 700)
    found = best_apart(as_boxes(boxes), classes, 0.25, most)
    assert found.tolist() == loop(boxes, classes.tolist(), 0.25, most)


def test_iou_of_what_is_too_large_for_float32() -> None:
    boxes = np.array([[0, 0, 1e38, 1e38], [0, 0, 1e38, 2e38], [1, 1, 1, 1]], np.float32)
    assert iou(boxes, boxes).round(6).tolist() == [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 0]]
