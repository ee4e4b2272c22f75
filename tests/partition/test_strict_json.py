"""JSON that every reader takes."""

from __future__ import annotations

import json
import math

import pytest
from splitpoint.partition.strict_json import to_json


def read(text: str) -> object:
    def refuse(name: str) -> object:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_are_not_finite_are_null() -> None:
    document = {"a": math.nan, "b": [math.inf, (-math.inf, 1.5)], "c": {"d": 0}, "e": "NaN"}
    assert read(to_json(document)) == {
        "a": None, "b": [None, [None, 1.5]], "c": {"d": 0}, "e": "NaN",
    }  # fmt: skip


def test_what_has_no_form_is_refused_as_ever() -> None:
    with pytest.raises(TypeError):
        to_json({"a": object()})
    assert to_json({"a": object}, default=lambda value: value.__name__) == '{"a": "object"}'
