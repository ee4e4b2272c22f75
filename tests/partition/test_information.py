"""What errors in a detector's outputs cost: by hand, and what is free changes nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from head_outputs import outputs_of, specs_of
from splitpoint.codec import Array
from splitpoint.partition.tasks.head import Head
from splitpoint.partition.tasks.heads import HEADS, DetectForm
from splitpoint.partition.tasks.task import Task

DETECTORS = [name for name, form in HEADS.items() if isinstance(form, DetectForm)]


def opened(name: str, arrays: Mapping[str, Array], min_score: float = 0.3) -> Head:
    found = Task.of_head(name, min_score=min_score).open(specs_of(arrays), (64, 96))
    assert found is not None
    return found


@pytest.mark.parametrize("name", DETECTORS)
def test_what_costs_nothing_changes_nothing(name: str) -> None:
    arrays = outputs_of(name, batch=2)
    head = opened(name, arrays)
    costs = head.information(arrays)
    assert costs.keys() == arrays.keys()
    changed = {}
    for key, array in arrays.items():
        assert costs[key].shape == array.shape
        assert np.isfinite(costs[key]).all()
        assert (costs[key] >= 0).all()
        changed[key] = np.where(costs[key] > 0, array, array - 0.002)
    before, after = (next(iter(head.answer(found).values())) for found in (arrays, changed))
    assert before.any()
    np.testing.assert_array_equal(before, after)
    assert any((changed[key] != array).any() for key, array in arrays.items())


@pytest.mark.parametrize("name", DETECTORS)
def test_what_is_found_costs_something(name: str) -> None:
    arrays = outputs_of(name)
    first = next(iter(opened(name, arrays).information(arrays).values()))
    none = next(iter(opened(name, arrays, min_score=0.9999).information(arrays).values()))
    assert first.any()
    assert not none.any()


def test_a_box_by_hand() -> None:
    """Scores as probabilities, and sides in parts of themselves."""
    row = np.array([50, 40, 20, 10, 0.2, 0.64], np.float32).reshape(1, 6, 1)
    costs = opened("yolo", {"out": row}).information({"out": row})["out"].ravel()
    there = math.sqrt(0.64) / 0.15
    expected = [there / 20, there / 10, there / 20, there / 10, 1 / 0.4, 1 / 0.48]
    np.testing.assert_allclose(costs, expected, rtol=1e-5)


def test_a_logit_is_its_probability() -> None:
    """An error e of a logit is one of p (1 - p) e of its probability."""
    logits = np.array([[[0.7, -2.0]]], np.float32)
    boxes = np.array([[[0.5, 0.5, 0.2, 0.1]]], np.float32)
    arrays = {"logits": logits, "pred_boxes": boxes}
    found = opened("rtdetr", arrays).information(arrays)["logits"].ravel()
    p = 1 / (1 + np.exp(-logits.ravel().astype(np.float64)))
    np.testing.assert_allclose(found, np.sqrt(p * (1 - p)), rtol=1e-5)


def test_landmarks_and_what_is_no_face_are_free() -> None:
    arrays = outputs_of("centerface")
    heat, _, offset, landmarks = opened("centerface", arrays).information(arrays).values()
    assert not landmarks.any()
    assert ((heat > 0) == (arrays["537"] >= 0.3)).all()
    assert ((offset > 0) == (heat > 0)).all()
