"""`len` of a tensor while a model is exported.

Python wants a number of it, and torch gives one: that of the example, whereby the batch size is
fixed. `x.shape[0]` is the same, and stays free.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def free_length() -> Iterator[None]:
    """Within it, `len` of a tensor may be a size that is not known yet."""
    counted = builtins.len

    def length(value: Any, /) -> Any:
        if isinstance(value, torch.Tensor) and value.ndim:
            return value.shape[0]
        return counted(value)

    builtins.len = length
    try:
        yield
    finally:
        builtins.len = counted
