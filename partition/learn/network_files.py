"""A trained network becomes files of a bundle, in both forms, which are held against it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from splitpoint.codec import Array, TensorSpec
from torch import nn

from ..bundle.learned_files import NetworkFiles
from ..capture.capture import capture
from ..compile.write_segments import write_segments
from ..errors import LearnError
from ..export.export import export_whole
from ..relative_error import relative_error
from ..run.onnx_segment import OnnxSegment
from ..run.torch_chain import load_segment

TOLERANCE = 1e-4  # of the largest value: they differ in the order of float32 sums
_BATCHES = (1, 3)


def write_network(
    network: nn.Module, spec: TensorSpec, octaves: float, bundle: Path, folder: str
) -> NetworkFiles:
    """Writes it to `folder`, a path inside the bundle. It maps tensors of `spec` and octaves.

    Raises `LearnError` where a form computes something else than the network.
    """
    network = network.cpu().eval()
    example = (torch.randn(spec.shape_at(2)), torch.full((2, 1), octaves))
    captured = capture(network, example)
    ends = (0, len(captured.graph.cuts) - 1)
    nodes = [captured.cut_nodes[end] for end in ends]
    whole = export_whole(captured, [node for crossing in nodes for node in crossing])
    where = bundle / folder
    where.mkdir(parents=True)
    write_segments(captured, whole, [captured.graph.cuts[end] for end in ends], nodes, where)
    found = NetworkFiles(
        onnx=f"{folder}/00.onnx",
        program=f"{folder}/00.json",
        weights=f"{folder}/00.safetensors",
        flops=sum(layer.flops or 0 for layer in captured.graph.layers),
    )
    _verify(network, found, spec, octaves, bundle)
    return found


def _verify(
    network: nn.Module, files: NetworkFiles, spec: TensorSpec, octaves: float, bundle: Path
) -> None:
    onnx = OnnxSegment(bundle / files.onnx, 1)
    cpu = torch.device("cpu")
    _, _, program = load_segment(bundle / files.program, bundle / files.weights, [spec], cpu)

    def in_onnx(tensor: Array, steps: Array) -> Array:
        (found,) = onnx(dict(zip(onnx.inputs, (tensor, steps), strict=True))).values()
        return found

    def in_torch(tensor: Array, steps: Array) -> Array:
        (found,) = program(torch.from_numpy(tensor), torch.from_numpy(steps))
        array: Array = found.numpy()
        return array

    forms: dict[str, Callable[[Array, Array], Array]] = {
        "onnxruntime": in_onnx, "torch": in_torch,
    }  # fmt: skip
    for batch in _BATCHES:
        tensor = np.random.default_rng(batch).normal(size=spec.shape_at(batch)).astype(np.float32)
        steps = np.full((batch, 1), octaves, np.float32)
        with torch.inference_mode():
            exact = network(torch.from_numpy(tensor), torch.from_numpy(steps)).numpy()
            for name, form in forms.items():
                error = relative_error(form(tensor, steps), exact)
                if not error <= TOLERANCE:
                    raise LearnError(
                        f"a network of the codec computes something else in {name}: it is off by "
                        f"{error:.1e} of the largest value",
                        "report this, with the versions that `splitpoint doctor` shows",
                    )
