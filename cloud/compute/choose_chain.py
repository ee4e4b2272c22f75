"""In which runtime and number format a bundle is served: what was asked for, or the fastest."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.bundle.segment_files import ONNX, TORCH
from splitpoint.partition.run.chain import SegmentChain
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.partition.run.torch_chain import TorchChain

from ..errors import ServeError
from ..gpu.compiler import Compiler
from ..gpu.gpu import TorchGpu
from ..gpu.weight_form import Form
from .choose_form import TRIAL_BATCH, form_and_capture, trial_s
from .gpu_chain import GpuChain


def choose_chain(
    bundle: Bundle,
    device: torch.device,
    *,
    runtime: str,
    precision: str,
    form: Form | None = None,
    max_batch: int,
    compilers: Mapping[str, Compiler],
    tune_s: float = 0.0,
    progress: Callable[[str], None],
    check: Callable[[], None],
) -> SegmentChain:
    """The segments in `runtime` and `precision`; with "auto", in what is fastest here.

    That is found with a small batch, and never one of more than `max_batch` samples. On a GPU they
    are captured for batches of up to that, in `form` where that is known; where it is not,
    `compilers` are tried as well, for `tune_s` seconds in all. Raises `ServeError` for a runtime
    that there is not on this device.
    """
    if device.type != "cpu":
        if runtime == ONNX:
            raise ServeError("onnxruntime serves on a CPU only", "use --runtime torch on a GPU")
        chain = GpuChain(bundle, TorchGpu(device), compilers)
        form_and_capture(
            bundle,
            chain,
            precision=precision,
            form=form,
            max_batch=max_batch,
            tune_s=tune_s,
            tell=progress,
            check=check,
        )
        return chain
    if runtime == TORCH:
        return TorchChain(bundle, device)
    if runtime == ONNX:
        return OnnxChain(bundle)
    batch = min(TRIAL_BATCH, max_batch)
    chains: list[SegmentChain] = [OnnxChain(bundle), TorchChain(bundle, device)]
    return min(chains, key=lambda chain: trial_s(bundle, chain, batch, check))


def check_tuning(minutes: float, device: torch.device) -> None:
    """Raises `ServeError` for compilers that are to be tried on a CPU: there none is captured."""
    if minutes and device.type == "cpu":
        raise ServeError("compilers are tried on a GPU only", "leave --tune-minutes out on a CPU")


def form_of(chain: SegmentChain) -> Form:
    """What the chain computes in, how its weights lie, and who makes its kernels."""
    return chain.form if isinstance(chain, GpuChain) else Form()


def captured_sizes(chain: SegmentChain) -> tuple[int, ...]:
    """The batch sizes that were captured; none where every size is computed as it comes."""
    return chain.sizes if isinstance(chain, GpuChain) else ()
