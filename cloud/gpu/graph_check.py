"""Whether a graph's replay computes what it should: on the device, as outputs may be large."""

from __future__ import annotations

import torch


def spoil(value: torch.Tensor, expected: torch.Tensor) -> None:
    """Puts something else there than is expected, so that it shows where nothing is written."""
    if value.is_floating_point():
        value.fill_(float("nan"))
    elif value.dtype == torch.bool:
        value.copy_(~expected)
    else:
        value.copy_(expected + 1)


def differs(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    """By more than `tolerance` of the largest finite value expected; elsewhere at all.

    That is in integers, and in what is not finite. It waits for the device.
    """
    if not expected.is_floating_point():
        return not torch.equal(found, expected)
    if not expected.numel():
        return False
    finite = expected.isfinite()
    if not torch.equal(_oddities(found), _oddities(expected)):
        return True
    scale = expected.where(finite, 0.0).abs().amax()
    difference = (found - expected).where(finite, 0.0).abs().amax()
    return bool((difference > tolerance * scale).item())


def _oddities(value: torch.Tensor) -> torch.Tensor:
    """0 where it is finite, and another number for NaN and each infinity."""
    return value.isnan() + 2 * value.isposinf() + 3 * value.isneginf()
