"""Where the batch size stands in a captured tensor's shape."""

from __future__ import annotations

from typing import Any

import torch
from splitpoint.codec import DTYPES, TensorSpec

from ..errors import CaptureError

TORCH_DTYPES: dict[torch.dtype, str] = {getattr(torch, name): name for name in DTYPES}


def batch_multiple(extent: int | torch.SymInt) -> int | None:
    """k when `extent` is k times the batch size, None when it does not depend on it.

    Raises `CaptureError` for any other expression, such as a shape that depends on values.
    """
    if isinstance(extent, int):
        return None
    expression = extent.node.expr
    symbols = expression.free_symbols
    if not symbols:
        return None
    if len(symbols) == 1:
        (symbol,) = symbols
        factor = expression / symbol
        if factor.is_Integer and factor > 0 and not symbol.name.startswith("u"):
            return int(factor)
    raise CaptureError(
        f"the model computes a size of {expression}, which is no multiple of the batch size",
        "remove the operation whose output shape depends on values, or export a part of the model",
    )


def shape_of_one(tensor: torch.Tensor) -> tuple[int, ...]:
    """The shape at batch size 1."""
    return tuple(
        int(extent) if (factor := batch_multiple(extent)) is None else factor
        for extent in tensor.shape
    )


def spec_of(name: str, tensor: torch.Tensor, *, one_sample: bool = False) -> TensorSpec | None:
    """The specification of a captured tensor, or None if it cannot cross a boundary.

    It can when its dtype is on the wire's table and exactly one dimension grows with the batch, or
    none does in a model that takes `one_sample` at a time.
    """
    dims = [d for d, extent in enumerate(tensor.shape) if batch_multiple(extent) is not None]
    if one_sample:
        dims = [0]
    shape = shape_of_one(tensor)
    if len(dims) != 1 or tensor.dtype not in TORCH_DTYPES or not 1 <= len(shape) <= 8:
        return None
    if any(extent < 1 for extent in shape):
        return None
    return TensorSpec(
        name=name,
        dtype=TORCH_DTYPES[tensor.dtype],
        shape=shape,
        batch_dim=dims[0],
        one_sample=one_sample,
    )


def fake_value(node: torch.fx.Node) -> Any:
    """What the node computes, as a tensor without data (or a SymInt, or a tuple of tensors)."""
    return node.meta.get("val")
