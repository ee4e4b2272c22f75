"""Which number format is chosen, by what was seen of each."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from splitpoint.cloud.compute.precision import (
    TOLERANCE,
    OutputsByBoundary,
    check_precision,
    choose_precision,
    computing_in,
)
from splitpoint.cloud.errors import Interrupted, ServeError
from splitpoint.cloud.options import WorkerOptions
from splitpoint.cloud.ray.options import RayOptions
from standin_cuda import ILLEGAL_ADDRESS, accelerator_error

EXACT = np.array([[1.0, -4.0, 2.0]], np.float32)


def chosen(**seen: tuple[float, float]) -> str:
    """From the error, in parts of the largest output, and the seconds of each format."""

    def run(precision: str) -> tuple[OutputsByBoundary, float]:
        error, seconds = seen[precision]
        return [{"scores": EXACT + np.float32(4 * error)}], seconds

    return choose_precision(run, pytest.fail)[0]


def test_the_fastest_that_is_close_enough() -> None:
    good, bad = TOLERANCE / 2, 2 * TOLERANCE
    assert chosen(fp32=(0, 4), tf32=(good, 3), bf16=(good, 2), fp16=(good, 1)) == "fp16"
    assert chosen(fp32=(0, 4), tf32=(good, 3), bf16=(bad, 2), fp16=(bad, 1)) == "tf32"
    assert chosen(fp32=(0, 4), tf32=(bad, 3), bf16=(bad, 2), fp16=(np.nan, 1)) == "fp32"
    assert chosen(fp32=(0, 4), tf32=(good, 5), bf16=(good, 6), fp16=(np.inf, 1)) == "fp32"


def test_a_changed_label_is_not_close_however_small_the_number() -> None:
    def run(precision: str) -> tuple[OutputsByBoundary, float]:
        return [{"label": np.array([1000 + (precision == "fp16")])}], float(precision != "fp16")

    assert choose_precision(run, pytest.fail)[0] != "fp16"


def test_frames_of_every_boundary_have_to_be_close() -> None:
    """What one of them loses in half the range shows nowhere else."""

    def run(precision: str) -> tuple[OutputsByBoundary, float]:
        late = EXACT + np.float32(precision == "fp16")
        return [{"scores": EXACT}, {"scores": late}, {"scores": EXACT}], float(precision != "fp16")

    chosen, found = choose_precision(run, pytest.fail)
    assert chosen != "fp16"
    assert found["fp16"][0] == pytest.approx(0.25)


def test_a_format_that_fails_is_left_out_and_said() -> None:
    said: list[str] = []

    def run(precision: str) -> tuple[OutputsByBoundary, float]:
        if precision == "bf16":
            raise RuntimeError("no kernel image\nis available for bf16")
        return [{"scores": EXACT}], float(precision != "tf32")

    chosen, found = choose_precision(run, said.append)
    assert chosen == "tf32"
    assert "bf16" not in found
    assert said == [
        "precision bf16 is left out: RuntimeError: no kernel image is available for bf16"
    ]


@pytest.mark.parametrize(
    ("precision", "error"),
    [
        ("fp32", RuntimeError("no memory even for one sample")),
        ("tf32", Interrupted("the worker stops")),
        ("tf32", accelerator_error(*ILLEGAL_ADDRESS)),
    ],
)
def test_what_says_more_than_that_a_format_fails_is_raised(
    precision: str, error: Exception
) -> None:
    def run(name: str) -> tuple[OutputsByBoundary, float]:
        if name == precision:
            raise error
        return [{"scores": EXACT}], 1.0

    with pytest.raises(type(error)):
        choose_precision(run, pytest.fail)


def test_no_two_threads_launch_under_one_flag() -> None:
    """It is the process's: engines of two GPUs wait for each other, and leave it as it was."""
    matmul, began, seen = torch.backends.cuda.matmul, threading.Event(), []

    def other() -> None:
        began.set()
        with computing_in("tf32", torch.device("cpu")):
            seen.append(matmul.allow_tf32)

    before = matmul.allow_tf32
    thread = threading.Thread(target=other)
    with computing_in("fp32", torch.device("cpu")):
        thread.start()
        began.wait(60)
        time.sleep(0.05)
        assert not matmul.allow_tf32
        assert not seen
    thread.join(60)
    assert seen == [True]
    assert matmul.allow_tf32 == before


def test_what_is_infinite_in_float32_must_be_so_in_the_other_format() -> None:
    """A class that is never to be chosen has the score -inf; it says nothing of the others."""
    exact = np.array([[1.0, -np.inf, 2.0]], np.float32)
    found = {
        "fp32": exact,
        "tf32": np.array([[1.0, -np.inf, np.nan]], np.float32),
        "bf16": np.array([[1.0, -3e38, 2.0]], np.float32),
        "fp16": np.array([[1.0, -np.inf, 2.001]], np.float32),
    }
    errors = choose_precision(lambda name: ([{"scores": found[name]}], 1.0), pytest.fail)[1]
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
