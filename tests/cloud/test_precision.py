"""Which number format is chosen, by what was seen of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from splitpoint.cloud.compute.precision import TOLERANCE, check_precision, choose_precision
from splitpoint.cloud.errors import ServeError
from splitpoint.cloud.options import WorkerOptions
from splitpoint.cloud.ray.options import RayOptions

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


def test_what_is_infinite_in_float32_must_be_so_in_the_other_format() -> None:
    """A class that is never to be chosen has the score -inf; it says nothing of the others."""
    exact = np.array([[1.0, -np.inf, 2.0]], np.float32)
    found = {
        "fp32": exact,
        "tf32": np.array([[1.0, -np.inf, np.nan]], np.float32),
        "bf16": np.array([[1.0, -3e38, 2.0]], np.float32),
        "fp16": np.array([[1.0, -np.inf, 2.001]], np.float32),
    }
    errors = choose_precision(lambda name: ({"scores": found[name]}, 1.0))[1]
    assert errors["tf32"][0] == errors["bf16"][0] == np.inf
    assert errors["fp16"][0] == pytest.approx(0.0005, rel=1e-3)


@pytest.mark.parametrize("name", ["fp8", "FP32", ""])
@pytest.mark.parametrize("what", ["precision", "runtime"])
def test_unknown_names_are_refused_where_they_are_written(what: str, name: str) -> None:
    given: dict[str, Any] = {what: name}
    with pytest.raises(ServeError, match=f"unknown {what}"):
        WorkerOptions(**given)
    with pytest.raises(ServeError, match=f"unknown {what}"):
        RayOptions(bundles=["a.split"], **given)


def test_a_cpu_computes_in_fp32() -> None:
    for name in ("auto", "fp32"):
        check_precision(name, torch.device("cpu"))
    with pytest.raises(ServeError, match="needs a GPU"):
        check_precision("bf16", torch.device("cpu"))
