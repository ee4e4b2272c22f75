"""In which number format a GPU computes: the fastest whose answers stay close to float32's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

import numpy as np
import torch
from splitpoint.codec import Array
from splitpoint.partition.relative_error import relative_error

from ..errors import ServeError
from ..options import AUTO, BF16, FP16, FP32, PRECISIONS, TF32

# Of the largest output of float32: what an automatic choice may be off by.
TOLERANCE = 0.01
_CAST = {BF16: torch.bfloat16, FP16: torch.float16}


def check_precision(name: str, device: torch.device) -> None:
    """Raises `ServeError` for a format that `device` gains nothing from."""
    if device.type == "cpu" and name not in (AUTO, FP32):
        raise ServeError(f"precision {name} needs a GPU", "use --precision fp32 on a CPU")


def computing_in(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Within it torch computes in `precision`; weights stay float32."""
    return _tf32(precision == TF32) if precision not in _CAST else _cast(_CAST[precision], device)


def choose_precision(
    run: Callable[[str], tuple[Mapping[str, Array], float]], tolerance: float = TOLERANCE
) -> tuple[str, dict[str, tuple[float, float]]]:
    """The fastest format whose outputs are within `tolerance`, and what each was found to be.

    `run(precision)` returns outputs and seconds. What was found: the largest difference relative to
    the largest output of float32, and the seconds.
    """
    exact, seconds = run(FP32)
    found = {FP32: (0.0, seconds)}
    for precision in PRECISIONS[1:]:
        outputs, seconds = run(precision)
        found[precision] = (_difference(outputs, exact), seconds)
    good = [name for name, (difference, _) in found.items() if difference <= tolerance]
    return min(good, key=lambda name: found[name][1]), found


def _difference(outputs: Mapping[str, Array], exact: Mapping[str, Array]) -> float:
    """See `relative_error`; integers and truth values must be equal."""
    return max(
        relative_error(outputs[name], expected)
        if np.issubdtype(expected.dtype, np.floating)
        else float((outputs[name] != expected).any())
        for name, expected in exact.items()
    )


@contextlib.contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@contextlib.contextmanager
def _cast(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    # Without its cache: what a graph was captured with must not be freed when this ends.
    with torch.autocast(device.type, dtype, cache_enabled=False):
        yield
