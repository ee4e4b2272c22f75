"""What errors say about a device, as torch, CUDA's libraries and broken captures raise them."""

from __future__ import annotations

import pytest
import torch
from splitpoint.cloud.gpu.device_errors import is_device_lost, is_out_of_memory
from standin_cuda import accelerator_error


def chained(error: Exception, under: Exception) -> Exception:
    """One that was raised while the other was on its way."""
    error.__context__ = under
    return error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        accelerator_error(2, "CUDA error: out of memory"),
        accelerator_error(2, "an error in words that nobody foresaw"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[ONNXRuntimeError] Failed to allocate memory for requested buffer"),
        chained(RuntimeError("a capture was broken"), torch.OutOfMemoryError("CUDA out of memory")),
    ],
)
def test_want_of_memory(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_device_lost(error)


@pytest.mark.parametrize(
    "error",
    [
        *(accelerator_error(code, "CUDA error: whatever it says") for code in (700, 710, 719, 214)),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        chained(RuntimeError("a capture was broken"), accelerator_error(700, "CUDA error")),
    ],
)
def test_a_lost_device(error: Exception) -> None:
    assert is_device_lost(error)
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a client's tensor is called 'device-side assert triggered'"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x3 and 4x5)"),
        accelerator_error(9, "CUDA error: invalid configuration argument"),
        accelerator_error(900, "CUDA error: operation not permitted when stream is capturing"),
        IndexError("index out of range in self"),
    ],
)
def test_a_fault_of_one_frame(error: Exception) -> None:
    assert not is_device_lost(error)
    assert not is_out_of_memory(error)
