"""The runtimes that a segment can run in, and the files of a bundle that each of them needs."""

from __future__ import annotations

from ..errors import PlanError
from .bundle import Manifest

ONNX, INT8, TORCH = "onnxruntime", "onnxruntime-int8", "torch"
RUNTIMES = (ONNX, INT8, TORCH)


def check_runtime(manifest: Manifest, runtime: str) -> None:
    """Raises `PlanError` for a runtime that does not exist, or that the bundle has no files for."""
    if runtime not in RUNTIMES:
        raise PlanError(f"unknown runtime {runtime!r}", f"use {', '.join(RUNTIMES)}")
    if runtime == INT8 and not manifest.has_int8:
        raise PlanError(
            f"{manifest.name} has no INT8 segments",
            "compile it with --calibrate DIR --int8, or use another runtime",
        )


def runtime_files(manifest: Manifest, index: int, runtime: str) -> tuple[str, ...]:
    """What `runtime` needs of segment `index`, as paths inside the bundle: first what it loads."""
    segment = manifest.segments[index]
    if runtime == INT8:
        return (segment.int8,)  # its weights are inside
    # Both the ONNX model and the program refer to the weights beside them.
    return (segment.program if runtime == TORCH else segment.onnx, segment.weights)
