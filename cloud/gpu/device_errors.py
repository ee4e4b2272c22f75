"""What an error says about the device: it has no memory left, it is lost, or neither."""

from __future__ import annotations

from collections.abc import Iterator

import torch

# CUDA's numbers of errors after which "the process must be terminated and relaunched" (NVIDIA, CUDA
# Runtime API, cudaError), and of devices that are gone. Every later call returns the same.
_LOST = frozenset({
    3, 4, 46, 100, 101, 201, 214, 220, 226,  # no device, no context, errors of its memory and links
    700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 999,
})  # fmt: skip
_NO_MEMORY = 2  # cudaErrorMemoryAllocation
# What libraries say that raise no error with a number.
_LOST_WORDS = (
    "illegal memory access", "device-side assert", "unspecified launch failure",
    "misaligned address", "illegal instruction", "invalid program counter",
    "uncorrectable ecc error", "hardware stack error", "gpu is lost", "launch timed out",
    "cublas_status_execution_failed", "cudnn_status_execution_failed", "driver shutting down",
)  # fmt: skip
_NO_MEMORY_WORDS = (
    "out of memory", "failed to allocate memory",
    "cublas_status_alloc_failed", "cudnn_status_alloc_failed",
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it, or an error that it hides, is for want of memory; fewer samples may fit."""
    return any(
        isinstance(one, (torch.OutOfMemoryError, MemoryError))
        or _number(one) == _NO_MEMORY
        or _says(one, _NO_MEMORY_WORDS)
        for one in _chain(error)
    )


def is_device_lost(error: BaseException) -> bool:
    """Whether nothing works on the device any more, until another process begins with it."""
    return any(
        _number(one) in _LOST or (isinstance(one, RuntimeError) and _says(one, _LOST_WORDS))
        for one in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """It, and what it came from or came on top of: a broken capture raises errors of its own."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _number(error: BaseException) -> int | None:
    found = getattr(error, "error_code", None)
    return found if isinstance(error, torch.AcceleratorError) and type(found) is int else None


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    said = str(error).lower()
    return any(word in said for word in words)
