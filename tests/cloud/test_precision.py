"""Which number format is chosen, by what was seen of each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from splitpoint.cloud.errors import ServeError
from splitpoint.cloud.precision import TOLERANCE, check_precision, choose_precision

EXACT = np.array([[1.0, -4.0, 2.0]], np.float32)


def chosen(**seen: tuple[float, float]) -> str:
    """From the error, in parts of the largest output, and the seconds of each format."""

    def run(precision: str) -> tuple[dict[str, np.ndarray], float]:
        error, seconds = seen[precision]
        return {"scores": EXACT + np.float32(4 * error)}, seconds

    return choose_precision(run)[0]


def test_the_fastest_that_is_close_enough() -> None:
    good, bad = TOLERANCE / 2, 2 * TOLERANCE
    assert chosen(fp32=(0, 4), tf32=(good, 3), bf16=(good, 2), fp16=(good, 1)) == "fp16"
    assert chosen(fp32=(0, 4), tf32=(good, 3), bf16=(bad, 2), fp16=(bad, 1)) == "tf32"
    assert chosen(fp32=(0, 4), tf32=(bad, 3), bf16=(bad, 2), fp16=(np.nan, 1)) == "fp32"
    assert chosen(fp32=(0, 4), tf32=(good, 5), bf16=(good, 6), fp16=(np.inf, 1)) == "fp32"


def test_a_changed_label_is_not_close_however_small_the_number() -> None:
    def run(precision: str) -> tuple[dict[str, np.ndarray], float]:
        return {"label": np.array([1000 + (precision == "fp16")])}, float(precision != "fp16")

    assert choose_precision(run)[0] != "fp16"


@pytest.mark.parametrize("name", ["fp8", "FP32", ""])
def test_unknown_formats_are_refused(name: str) -> None:
    with pytest.raises(ServeError, match="unknown precision"):
        check_precision(name, torch.device("cpu"))


def test_a_cpu_computes_in_fp32() -> None:
    for name in ("auto", "fp32"):
        check_precision(name, torch.device("cpu"))
    with pytest.raises(ServeError, match="needs a GPU"):
        check_precision("bf16", torch.device("cpu"))
