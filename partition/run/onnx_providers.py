"""What onnxruntime computes with: its execution providers, the fastest that are here first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from ..errors import DeviceError

_NAMES = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
CPU_ONLY = (_NAMES["cpu"],)


def choose_providers(wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """onnxruntime's names of the providers to use, the CPU always last.

    Without `wanted`, TensorRT and CUDA where this onnxruntime has them, as on a Jetson. `wanted`
    are `tensorrt`, `cuda`, `cpu`, or names of onnxruntime's own. Raises `DeviceError` for one that
    is not here.
    """
    here = onnxruntime.get_available_providers()
    if not wanted:
        return tuple(name for name in _NAMES.values() if name in here)
    chosen = []
    for name in wanted:
        full = _NAMES.get(name.lower(), name)
        if full not in here:
            short = {long: short for short, long in _NAMES.items()}
            raise DeviceError(
                f"onnxruntime has no execution provider {name!r} here",
                f"use one of {', '.join(short.get(name, name) for name in here)}",
            )
        chosen.append(full)
    return (*dict.fromkeys(chosen), *(() if _NAMES["cpu"] in chosen else CPU_ONLY))


def with_options(providers: Sequence[str], folder: Path) -> list[str | tuple[str, dict[str, Any]]]:
    """The providers as a session takes them.

    TensorRT builds an engine for minutes; it is kept in `folder`, beside the segment.
    """
    keep = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(folder)}
    return [(name, keep) if name == _NAMES["tensorrt"] else name for name in providers]


def device_of(providers: Sequence[str]) -> str:
    """`cpu`, `cuda` or `tensorrt`: what a session with these providers computes on first."""
    short = {long: short for short, long in _NAMES.items()}
    return short.get(providers[0], providers[0]) if providers else "cpu"
