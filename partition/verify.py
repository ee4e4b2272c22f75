"""Checks a compilation against the unsplit model, which is the only oracle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from splitpoint.codec import Array, TensorSpec

from .bundle import Manifest
from .canonical import parameter_values
from .capture import CapturedModel
from .model_spec import ModelSpec
from .onnx_segment import OnnxSegment
from .program import load_program, program_of
from .weights import load_weights

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
    edge = [OnnxSegment(folder / segment.onnx) for segment in manifest.segments]
    cloud = [
        TorchSegment(folder, index, manifest.boundaries[index].tensors)
        for index in range(len(manifest.segments))
    ]
    first = manifest.boundaries[0].tensors
    for batch in BATCHES:
        args, kwargs = example_batch(spec, range(batch))
        given = flat_tensors(args, kwargs)
        with torch.inference_mode():
            expected = [tensor.numpy() for tensor in named_outputs(spec.module(*args, **kwargs))]
        for chain in (edge, cloud):
            values = {s.name: t.numpy() for s, t in zip(first, given, strict=True)}
            for segment in chain:
                values |= segment(values)
            found = [values[tensor] for tensor in manifest.outputs.values()]
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


class TorchSegment:
    """A segment as the cloud loads it."""

    def __init__(self, folder: Path, index: int, specs: Sequence[TensorSpec]) -> None:
        path = folder / "segments" / f"{index:02}.json"
        program = json.loads(path.read_text(encoding="utf-8"))
        weights = load_weights(path.with_suffix(".safetensors"), CPU)
        self._module = load_program(program, specs, weights, CPU)
        self._inputs, self._outputs = program["inputs"], program["outputs"]

    def __call__(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """The tensors that the segment adds."""
        with torch.inference_mode():
            results = self._module(*(torch.tensor(values[name]) for name in self._inputs))
        return {name: tensor.numpy() for name, tensor in zip(self._outputs, results, strict=True)}
