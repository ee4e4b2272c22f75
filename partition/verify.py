"""Checks a compilation against the unsplit model, which is the only oracle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from splitpoint.codec import Array

from .bundle import Bundle, Manifest
from .canonical import parameter_values
from .capture import CapturedModel
from .chain import SegmentChain
from .model_spec import ModelSpec
from .onnx_chain import OnnxChain
from .program import load_program, program_of
from .torch_chain import TorchChain

BATCHES = (1, 3)
CPU = torch.device("cpu")


def example_batch(
    spec: ModelSpec, samples: Sequence[int]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example inputs with these samples of the example batch (modulo its size)."""

    def pick(leaf: Any) -> Any:
        return leaf[[s % len(leaf) for s in samples]] if isinstance(leaf, torch.Tensor) else leaf

    tree_map = torch.utils._pytree.tree_map
    return tree_map(pick, spec.args), tree_map(pick, dict(spec.kwargs))


def flat_tensors(args: Any, kwargs: Any) -> list[torch.Tensor]:
    """Input tensors in the order of boundary 0."""
    leaves = torch.utils._pytree.tree_leaves((args, kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def named_outputs(result: Any) -> list[torch.Tensor]:
    """Output tensors in the order of the manifest's `outputs`."""
    leaves = torch.utils._pytree.tree_leaves(result)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def inseparable_cuts(model: CapturedModel, cuts: Sequence[int], spec: ModelSpec) -> set[int]:
    """Those of `cuts` where a batch is not the concatenation of its samples' tensors.

    Only there may the server concatenate tensors of several requests. A dimension of 12*batch may
    have the batch inside; nothing but running it tells.
    """
    parameters = parameter_values(model.program)
    names = {node: name for node, (name, _) in parameters.items()}
    nodes = [node for cut in cuts for node in model.cut_nodes[cut]]
    inputs = model.cut_nodes[0]
    program = program_of(model, inputs, list(dict.fromkeys(nodes)), names)
    whole = load_program(program, model.graph.cuts[0].tensors, dict(parameters.values()), CPU)
    samples = [0, 1]

    def run(batch: list[int]) -> dict[str, torch.Tensor]:
        given = flat_tensors(*example_batch(spec, batch))
        values = {node.name: tensor for node, tensor in zip(inputs, given, strict=True)}
        with torch.inference_mode():
            results = whole(*(values[name] for name in program["inputs"]))
        return values | dict(zip(program["outputs"], results, strict=True))

    together, apart = run(samples), [run([sample]) for sample in samples]
    bad = set()
    for cut in cuts:
        for tensor in model.graph.cuts[cut].tensors:
            joined = torch.cat([values[tensor.name] for values in apart], tensor.batch_dim)
            if relative_error(together[tensor.name].numpy(), joined.numpy()) > 1e-3:
                bad.add(cut)
    return bad


def worst_relative_error(manifest: Manifest, folder: Path, spec: ModelSpec) -> float:
    """Largest error of the chains of torch and of ONNX segments, relative to the largest output."""
    worst = 0.0
    draft = Bundle(folder=folder, manifest=manifest, digest="")
    chains: list[SegmentChain] = [OnnxChain(draft), TorchChain(draft, CPU)]
    for chain in chains:
        for index in range(len(chain)):
            chain.load(index)
    first = manifest.boundaries[0].tensors
    for batch in BATCHES:
        args, kwargs = example_batch(spec, range(batch))
        given = flat_tensors(args, kwargs)
        with torch.inference_mode():
            expected = [tensor.numpy() for tensor in named_outputs(spec.module(*args, **kwargs))]
        for chain in chains:
            state = chain.place({s.name: t.numpy() for s, t in zip(first, given, strict=True)})
            for index in range(len(chain)):
                state |= chain.step(index, state)
            found = [chain.fetch(state[tensor]) for tensor in manifest.outputs.values()]
            pairs = zip(found, expected, strict=True)
            worst = max(worst, *(relative_error(a, b) for a, b in pairs))
    return worst


def relative_error(found: Array, expected: Array) -> float:
    """Largest difference, relative to the largest magnitude expected; infinite for other shapes."""
    if found.shape != expected.shape:
        return float("inf")
    difference = float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max())
    scale = float(np.abs(expected.astype(np.float64)).max())
    return difference / scale if scale else difference
