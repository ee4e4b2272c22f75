"""In which runtime and number format a bundle is served: what was asked for, or the fastest."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from splitpoint.codec import Array
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.bundle.samples import synthetic_samples
from splitpoint.partition.bundle.segment_files import ONNX, TORCH
from splitpoint.partition.run.chain import SegmentChain
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.partition.run.torch_chain import TorchChain

from ..errors import ServeError
from ..options import AUTO, FP32
from .gpu_chain import GpuChain
from .interruptible_chain import InterruptibleChain
from .precision import choose_precision
from .runner import Runner

TRIAL_BATCH, TRIAL_ROUNDS = 4, 3


def choose_chain(
    bundle: Bundle,
    device: torch.device,
    *,
    runtime: str,
    precision: str,
    max_batch: int,
    progress: Callable[[str], None],
    check: Callable[[], None],
) -> SegmentChain:
    """The segments in `runtime` and `precision`; with "auto", in what is fastest here.

    That is found with a small batch, and never one of more than `max_batch` samples.
    Raises `ServeError` for a runtime that there is not on this device.
    """
    batch = min(TRIAL_BATCH, max_batch)
    if device.type != "cpu":
        if runtime == ONNX:
            raise ServeError("onnxruntime serves on a CPU only", "use --runtime torch on a GPU")
        chain = GpuChain(bundle, device)
        if precision == AUTO:
            precision = _fastest_precision(bundle, chain, batch, progress, check)
        chain.use(precision)
        return chain
    if runtime == TORCH:
        return TorchChain(bundle, device)
    if runtime == ONNX:
        return OnnxChain(bundle)
    chains: list[SegmentChain] = [OnnxChain(bundle), TorchChain(bundle, device)]
    return min(chains, key=lambda chain: _trial_s(bundle, InterruptibleChain(chain, check), batch))


def precision_of(chain: SegmentChain) -> str:
    """What the chain computes in."""
    return chain.precision if isinstance(chain, GpuChain) else FP32


def _fastest_precision(
    bundle: Bundle,
    chain: GpuChain,
    batch: int,
    progress: Callable[[str], None],
    check: Callable[[], None],
) -> str:
    """The fastest that is close enough, from a small batch."""
    boundaries = [boundary.tensors for boundary in bundle.manifest.boundaries]
    values = synthetic_samples(bundle.manifest).inputs[0]
    interruptible = InterruptibleChain(chain, check)
    runner = Runner(interruptible, boundaries)

    def run(name: str) -> tuple[dict[str, Array], float]:
        chain.use(name)
        seconds = _trial_s(bundle, interruptible, batch)
        state = runner.enter(0, [values])
        for segment in range(len(chain)):
            state = runner.step(segment, state, 1)
        return runner.answers(state, [1])[0], seconds

    chosen, found = choose_precision(run)
    progress(
        f"{bundle.manifest.name}: precision {chosen}, off by {100 * found[chosen][0]:.2g} % of the "
        "largest output"
    )
    return chosen


def _trial_s(bundle: Bundle, chain: SegmentChain, batch: int) -> float:
    """Seconds for so many samples, from the input to the end."""
    runner = Runner(chain, [boundary.tensors for boundary in bundle.manifest.boundaries])
    for segment in range(len(chain)):
        chain.load(segment)
    values = synthetic_samples(bundle.manifest).inputs[0]
    times = []
    for _ in range(1 + TRIAL_ROUNDS):
        start = time.perf_counter()
        state = runner.enter(0, [values] * batch)
        for segment in range(len(chain)):
            state = runner.step(segment, state, batch)
        chain.wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])
