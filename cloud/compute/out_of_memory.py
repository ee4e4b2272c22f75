"""Whether an error says that a device has no memory left."""

from __future__ import annotations

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """torch says so with a type of its own; onnxruntime and CUDA libraries in words."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    words = str(error).lower()
    return "out of memory" in words or "failed to allocate memory" in words
