"""No number that people read has an exponent."""

from __future__ import annotations

import math

import pytest
from splitpoint.partition.significant import significant


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (15_432.1, 3, "15,400"),
        (123.4, 2, "120"),
        (842.615, 3, "843"),
        (99.96, 3, "100"),
        (5.85, 3, "5.85"),
        (0.2, 2, "0.2"),
        (-0.00001234, 3, "-0.0000123"),
        (0.0, 3, "0"),
        (math.inf, 3, "inf"),
    ],
)
def test_digits(value: float, digits: int, text: str) -> None:
    assert significant(value, digits) == text
