"""Checks a compilation against the unsplit model, which is the only oracle."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from splitpoint.codec import Array

from ..bundle.boundary import Boundary
from ..bundle.bundle import Bundle, Manifest
from ..capture.borrowed import borrowed
from ..capture.canonical import parameter_values
from ..capture.capture import CapturedModel
from ..errors import CaptureError
from ..model_spec import ModelSpec
from ..relative_error import relative_error
from ..run.chain import SegmentChain
from ..run.onnx_chain import OnnxChain
from ..run.program import load_program
from ..run.torch_chain import TorchChain
from .diagnose_mismatch import cause_of_difference
from .write_program import program_of

BATCHES = (1, 3)  # but for a model that takes one sample at a time
CPU = torch.device("cpu")

See = Callable[[Boundary, Mapping[str, Array]], None]
"""Called with each boundary and arrays that crossed it."""


def example_batch(
    spec: ModelSpec, samples: Sequence[int]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example inputs with these samples of the example batch (modulo its size)."""
    if spec.one_sample:
        return spec.args, dict(spec.kwargs)

    def pick(leaf: Any) -> Any:
        return leaf[[s % len(leaf) for s in samples]] if isinstance(leaf, torch.Tensor) else leaf

    tree_map = torch.utils._pytree.tree_map
    return tree_map(pick, spec.args), tree_map(pick, dict(spec.kwargs))


def flat_tensors(args: Any, kwargs: Any) -> list[torch.Tensor]:
    """Input tensors in the order of boundary 0."""
    leaves = torch.utils._pytree.tree_leaves((args, kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def tensors_in_order(result: Any) -> list[torch.Tensor]:
    """Output tensors in the order of the manifest's `outputs`."""
    leaves = torch.utils._pytree.tree_leaves(result)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def inseparable_cuts(model: CapturedModel, cuts: Sequence[int], spec: ModelSpec) -> set[int]:
    """Those of `cuts` where a batch is not the concatenation of its samples' tensors.

    Only there may the server concatenate tensors of several requests. A dimension of 12*batch may
    have the batch inside; nothing but running it tells. Nor can a cut where a tensor holds NaN be
    told to be one. Where there are no batches, none is found. Raises `CaptureError` for a model
    whose answers are NaN.
    """
    parameters = parameter_values(model.program)
    names = {node: name for node, (name, _) in parameters.items()}
    nodes = [node for cut in cuts for node in model.cut_nodes[cut]]
    inputs = model.cut_nodes[0]
    program = program_of(model, inputs, list(dict.fromkeys(nodes)), names)
    whole = load_program(program, model.graph.cuts[0].tensors, dict(parameters.values()), CPU)
    samples = [0] if spec.one_sample else [0, 1]

    def run(batch: list[int]) -> dict[str, torch.Tensor]:
        given = flat_tensors(*example_batch(spec, batch))
        values = {node.name: tensor for node, tensor in zip(inputs, given, strict=True)}
        with torch.inference_mode():
            results = whole(*(values[name] for name in program["inputs"]))
        return values | dict(zip(program["outputs"], results, strict=True))

    together, apart = run(samples), [run([sample]) for sample in samples]
    for name, node in model.outputs.items():
        if any(values[node.name].isnan().any() for values in (together, *apart)):
            raise CaptureError(
                f"the model answers NaN to its example inputs (output {name!r})",
                "give example inputs that it answers with numbers: none, say, that is all padding",
            )
    bad: set[int] = set()
    for cut in () if spec.one_sample else cuts:
        for tensor in model.graph.cuts[cut].tensors:
            joined = torch.cat([values[tensor.name] for values in apart], tensor.batch_dim)
            if relative_error(together[tensor.name].numpy(), joined.numpy()) > 1e-3:
                bad.add(cut)
    return bad


def verified_error(
    manifest: Manifest, folder: Path, spec: ModelSpec, tolerance: float, see: See
) -> float:
    """`worst_relative_error`; `CaptureError` with what is known of the cause if it is larger."""
    worst = worst_relative_error(manifest, folder, spec, see)
    if worst <= tolerance:
        return worst
    differ = (
        f"the segments differ from the unsplit model by {worst:.1e} of its largest output"
        if math.isfinite(worst)
        else "the segments answer NaN, infinity or another shape where the unsplit model does not"
    )
    with _without_fast_path() as was_enabled:
        if was_enabled and worst_relative_error(manifest, folder, spec) <= tolerance:
            raise CaptureError(
                f"{differ}, but not when torch's fast path for nn.TransformerEncoder is off",
                "the fast path answers zeros for padding: build the encoder with "
                "enable_nested_tensor=False, or mask what it answers there",
            )
    samples = range(1 if spec.one_sample else 3)
    cause, remedy = cause_of_difference(partial(_unsplit, spec), tolerance, samples)
    raise CaptureError(f"{differ}, {cause}", remedy)


def _unsplit(spec: ModelSpec, samples: Sequence[int]) -> list[Array]:
    """The unsplit model's outputs for these samples of the example."""
    args, kwargs = example_batch(spec, samples)
    with borrowed(spec.module), torch.inference_mode():
        return [tensor.numpy() for tensor in tensors_in_order(spec.module(*args, **kwargs))]


@contextmanager
def _without_fast_path() -> Iterator[bool]:
    """Within it transformers compute as they are written; whether the fast path was on before."""
    before: bool = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield before
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def worst_relative_error(
    manifest: Manifest, folder: Path, spec: ModelSpec, see: See = lambda boundary, values: None
) -> float:
    """Largest error of the chains of torch and of ONNX segments, relative to the largest output."""
    draft = Bundle(folder=folder, manifest=manifest, digest="")
    sizes = BATCHES[:1] if spec.one_sample else BATCHES
    batches = [example_batch(spec, range(batch)) for batch in sizes]
    expected = [_unsplit(spec, range(batch)) for batch in sizes]
    given = [[tensor.numpy() for tensor in flat_tensors(*batch)] for batch in batches]
    worst = 0.0
    for chain in _chains(draft):  # one after the other: each holds all weights
        for index in range(len(chain)):
            chain.load(index)
        for inputs, answers in zip(given, expected, strict=True):
            found = _answers(chain, manifest, inputs, see)
            errors = (relative_error(a, b) for a, b in zip(found, answers, strict=True))
            worst = max(worst, *errors)
        del chain
        gc.collect()  # a program's module refers to itself
    return worst


def _chains(draft: Bundle) -> Iterator[SegmentChain]:
    yield TorchChain(draft, CPU)
    yield OnnxChain(draft)  # last: onnxruntime keeps what it had


def _answers(
    chain: SegmentChain, manifest: Manifest, inputs: Sequence[Array], see: See
) -> list[Array]:
    """The outputs in the order of the manifest's `outputs`."""
    first = manifest.boundaries[0].tensors
    state = chain.place({s.name: value for s, value in zip(first, inputs, strict=True)})
    for boundary in manifest.boundaries[:-1]:
        see(boundary, {s.name: chain.fetch(state[s.name]) for s in boundary.tensors})
        state |= chain.step(boundary.id, state)
    return [chain.fetch(state[tensor]) for tensor in manifest.outputs.values()]
