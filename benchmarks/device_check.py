"""Every suffix of a network on a device, in each form of it, against the unsplit network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from splitpoint.cloud.compute.choose_form import capture_sizes
from splitpoint.cloud.compute.gpu_chain import GpuChain
from splitpoint.cloud.compute.precision import TOLERANCE
from splitpoint.cloud.compute.runner import Runner
from splitpoint.cloud.gpu.compilers_here import compilers_here
from splitpoint.cloud.gpu.device_errors import is_device_lost
from splitpoint.cloud.gpu.gpu import TorchGpu
from splitpoint.cloud.gpu.weight_form import Form
from splitpoint.cloud.options import EAGER, FP16, FP32, PRECISIONS
from splitpoint.codec import Array
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.compile.verify import example_batch, flat_tensors
from splitpoint.partition.relative_error import relative_error
from splitpoint.partition.run.chain import SegmentChain
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.partition.run.torch_chain import TorchChain
from zoo_subject import Given

FP32_TOLERANCE = 1e-3  # of the largest magnitude of an output, with TF32 off
BATCHES = (1, 3)
SIZES = (1, 4)  # that are captured: three samples are filled up
FORMS = (*(Form(precision) for precision in PRECISIONS), Form(channels_last=True))
COMPILED_IN = (FP16, FP32)  # all compilers can do the first
YES, NO, LEFT_OUT = "yes", "NO", "left out"


@dataclass(frozen=True)
class Truth:
    """So many samples in float32 on the CPU: the tensors at each boundary, and the outputs.

    The outputs are those of the unsplit module, in the order of the manifest's `outputs`.
    """

    samples: int
    states: Sequence[Mapping[str, Array]]
    outputs: Sequence[Array]


@dataclass(frozen=True, kw_only=True)
class Found:
    """How far the answers are off from each boundary on, at most, relative to the largest output.

    `graphs` are those of replayed graphs, if there are any; `not_captured` says which segments run
    without one, for which sizes. `failed` is why there are no answers.
    """

    form: str
    is_exact: bool = False
    eager: Sequence[float] = ()
    graphs: Sequence[float] = ()
    not_captured: Sequence[str] = ()
    failed: str = ""

    @property
    def verdict(self) -> str:
        """Whether it may be served. A format that costs too much is one that no worker chooses."""
        if self.is_exact:
            good = not self.failed and max(*self.eager, *self.graphs) <= FP32_TOLERANCE
            return YES if good else NO
        if self.failed or max(self.eager) > TOLERANCE:
            return LEFT_OUT
        # As far off as without graphs, and then as a replay may be from that.
        return YES if max(self.graphs, default=0.0) <= max(self.eager) + TOLERANCE else NO


def truths_of(bundle: Bundle, given: Given) -> list[Truth]:
    """For a batch of each size."""
    boundaries = bundle.manifest.boundaries
    chain = TorchChain(bundle, torch.device("cpu"))
    found = []
    for size in BATCHES:
        tensors = flat_tensors(*example_batch(given.spec, range(size)))
        state = chain.place({
            spec.name: tensor.numpy()
            for spec, tensor in zip(boundaries[0].tensors, tensors, strict=True)
        })  # fmt: skip
        states = []
        for boundary in boundaries[:-1]:
            states.append({spec.name: chain.fetch(state[spec.name]) for spec in boundary.tensors})
            chain.load(boundary.id)
            state |= chain.step(boundary.id, state)
        found.append(Truth(size, states, given.truth(given.spec, range(size))))
    return found


def on_device(bundle: Bundle, truths: Sequence[Truth], device: torch.device) -> list[Found]:
    """In each form that a worker may compute in there, but for those of compilers."""
    if device.type != "cpu":
        return on_gpu(bundle, truths, GpuChain(bundle, TorchGpu(device)), FORMS)
    chains: tuple[SegmentChain, ...] = TorchChain(bundle, device), OnnxChain(bundle)
    return [
        Found(form=f"fp32, {chain.runtime}", is_exact=True, eager=_errors(bundle, chain, truths))
        for chain in chains
    ]


def compiled_on_gpu(
    bundle: Bundle, truths: Sequence[Truth], device: torch.device, end_s: float, cache: Path
) -> list[Found]:
    """In the forms of the compilers that are here; what is not done at `end_s` says so."""

    def check() -> None:
        if time.monotonic() > end_s:
            raise TimeoutError("the time is up")

    chain = GpuChain(bundle, TorchGpu(device), compilers_here(cache, max(SIZES)))
    forms = [Form(one, compiler=name) for name in chain.compilers for one in COMPILED_IN]
    return on_gpu(bundle, truths, chain, forms, check)


def on_gpu(
    bundle: Bundle,
    truths: Sequence[Truth],
    chain: GpuChain,
    forms: Iterable[Form],
    check: Callable[[], None] = lambda: None,
) -> list[Found]:
    """Operation by operation, and then with graphs, in each form.

    What fails is noted; raises where the device is lost.
    """
    found = []
    for form in forms:
        name = form.precision + ", channels last" * form.channels_last
        if form.compiler != EAGER:
            name += f", {form.compiler}"
        is_exact = form.precision == FP32
        try:
            chain.use(form)
            eager = _errors(bundle, chain, truths)
            if form.channels_last and not chain.has_convolutions:
                continue
            said: list[str] = []
            capture_sizes(bundle, chain, SIZES, said.append, check)
            graphs = _errors(bundle, chain, truths, chain.sizes) if chain.sizes else ()
        except Exception as error:
            if is_device_lost(error):
                raise
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            # A worker leaves out what a compiler fails at, or makes wrong, and says so.
            must = is_exact and form.compiler == EAGER
            found.append(Found(form=name, is_exact=must, failed=why))
            continue
        found.append(
            Found(form=name, is_exact=is_exact, eager=eager, graphs=graphs, not_captured=said)
        )
    return found


def _errors(
    bundle: Bundle, chain: SegmentChain, truths: Sequence[Truth], sizes: Sequence[int] = ()
) -> list[float]:
    """The largest of all batches and outputs, for each boundary where frames may enter."""
    manifest = bundle.manifest
    runner = Runner(chain, [boundary.tensors for boundary in manifest.boundaries], sizes)
    for segment in range(len(chain)):
        chain.load(segment)
    worst = [0.0] * len(chain)
    for truth in truths:
        for boundary, values in enumerate(truth.states):
            state = runner.enter(boundary, [values])
            for segment in range(boundary, len(chain)):
                state = runner.step(segment, state, truth.samples)
            answers = runner.answers(state, [truth.samples])[0]
            named = [answers[tensor] for tensor in manifest.outputs.values()]
            errors = map(relative_error, named, truth.outputs)
            worst[boundary] = max(worst[boundary], *errors)
    return worst
