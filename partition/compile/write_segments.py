"""A captured model's segments on disk, in both forms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import onnx
import torch
from torch.fx import Node

from ..bundle.graph import Cut
from ..capture.canonical import parameter_values
from ..capture.capture import CapturedModel
from ..export.cutter import OnnxCutter
from ..export.export import WholeOnnx
from ..export.layer_names import layer_names
from .write_program import program_of, with_turned
from .write_weights import save_weights


def write_segments(
    model: CapturedModel,
    whole: WholeOnnx,
    cuts: Sequence[Cut],
    nodes: Sequence[Sequence[Node]],
    folder: Path,
) -> None:
    """Every segment as a program and as an ONNX model, with the weights that both of them read.

    They are called by their numbers: `00.json`, `00.onnx`, `00.safetensors`.
    """
    cutter = OnnxCutter(whole, layer_names(whole, model.layers))
    parameters = parameter_values(model.program)
    names = {node: name for node, (name, _) in parameters.items()}
    values: dict[str, torch.Tensor] = dict(parameters.values())
    crossing = [list(zip(n, cut.tensors, strict=True)) for n, cut in zip(nodes, cuts, strict=True)]
    for index, (entering, leaving) in enumerate(pairwise(crossing)):
        stem = f"{index:02}"
        segment = cutter.segment(entering, leaving)
        program = program_of(model, nodes[index], nodes[index + 1], names)
        turned = save_weights(
            {name: values[name] for name in program["weights"]},
            segment.model,
            whole.weights,
            segment.turned,
            folder / f"{stem}.safetensors",
        )
        onnx.save_model(segment.model, folder / f"{stem}.onnx")
        (folder / f"{stem}.json").write_text(
            json.dumps(with_turned(program, turned), separators=(",", ":")), encoding="utf-8"
        )
