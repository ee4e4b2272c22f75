"""In which number format a GPU computes: the fastest whose answers stay close to float32's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from splitpoint.codec import Array
from splitpoint.partition.relative_error import relative_error

from ..errors import Interrupted, ServeError
from ..gpu.device_errors import is_device_lost
from ..gpu.gpu import LAUNCHING
from ..gpu.weight_form import SMALL_DTYPES
from ..options import AUTO, FP32, PRECISIONS, TF32

# Of the largest output of float32: what an automatic choice may be off by.
TOLERANCE = 0.01
OutputsByBoundary = Sequence[Mapping[str, Array]]
"""Those of the frames of each boundary, in order."""


def check_precision(name: str, device: torch.device) -> None:
    """Raises `ServeError` for a format that `device` gains nothing from."""
    if device.type == "cpu" and name not in (AUTO, FP32):
        raise ServeError(f"precision {name} needs a GPU", "use --precision fp32 on a CPU")


@contextlib.contextmanager
def computing_in(precision: str, device: torch.device) -> Iterator[None]:
    """Within it torch launches in `precision`, and no other GPU's thread launches in another one.

    This is the only place where torch's flags for TF32 are set. They are the process's, and are
    read at each launch: a graph keeps what they were when it was captured.
    """
    dtype = SMALL_DTYPES.get(precision)
    with LAUNCHING, _tf32(precision == TF32):
        if dtype is None:
            yield
        else:
            # Without its cache: what a graph was captured with must not be freed when this ends.
            with torch.autocast(device.type, dtype, cache_enabled=False):
                yield


def choose_precision(
    run: Callable[[str], tuple[OutputsByBoundary, float]],
    tell: Callable[[str], None],
    tolerance: float = TOLERANCE,
) -> tuple[str, dict[str, tuple[float, float]]]:
    """The fastest format whose outputs are within `tolerance`, and what each was found to be.

    `run(precision)` returns what frames come to that enter at each boundary, and seconds. What was
    found: the largest difference at any of them, relative to the largest output of float32 there,
    and the seconds. A format that fails is left out, and `tell` is told why; float32 must not.
    """
    exact, seconds = run(FP32)
    found = {FP32: (0.0, seconds)}
    for precision in PRECISIONS[1:]:
        try:
            outputs, seconds = run(precision)
        except Exception as error:
            if ends_trials(error):
                raise
            tell(left_out(f"precision {precision}", error))
            continue
        found[precision] = (largest_difference(outputs, exact), seconds)
    good = [name for name, (difference, _) in found.items() if difference <= tolerance]
    return min(good, key=lambda name: found[name][1]), found


def ends_trials(error: Exception) -> bool:
    """Whether it says more than that what was tried fails: the worker stops, the device is lost."""
    return isinstance(error, Interrupted) or is_device_lost(error)


def left_out(what: str, error: Exception) -> str:
    """The line that says why it is."""
    return f"{what} is left out: {type(error).__name__}: {' '.join(str(error).split())[:100]}"


def largest_difference(outputs: OutputsByBoundary, exact: OutputsByBoundary) -> float:
    """Of any boundary's frames, relative to the largest output of `exact` there."""
    return max(_difference(own, expected) for own, expected in zip(outputs, exact, strict=True))


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
