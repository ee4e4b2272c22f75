"""The chain of a runtime, by the runtime's name."""

from __future__ import annotations

from collections.abc import Sequence

from ..bundle.bundle import Bundle
from ..bundle.segment_files import TORCH, check_runtime
from ..errors import DeviceError
from .chain import SegmentChain
from .onnx_chain import OnnxChain
from .onnx_providers import choose_providers


def open_chain(
    bundle: Bundle,
    runtime: str,
    *,
    threads: int = 0,
    providers: Sequence[str] = (),
    device: str = "cpu",
) -> SegmentChain:
    """Runs segments in one of `RUNTIMES`; `device` is torch's, `providers` are onnxruntime's.

    Raises `PlanError` for a runtime that there is not, or that the bundle has no files for, and
    `DeviceError` for what is not on this machine: torch, a device, a provider.
    """
    check_runtime(bundle.manifest, runtime)
    if runtime != TORCH:
        return OnnxChain(bundle, threads, runtime, choose_providers(providers))
    if any(name.lower() != "cpu" for name in providers):
        raise DeviceError("torch has no execution providers", "leave --providers out")
    try:
        from .torch_chain import TorchChain, pick_device
    except ModuleNotFoundError as error:
        raise DeviceError(
            f"the runtime torch needs {error.name}, which is not installed",
            'install it with `pip install "splitpoint[torch]"`, or use onnxruntime',
        ) from error
    return TorchChain(bundle, pick_device(device), threads)
