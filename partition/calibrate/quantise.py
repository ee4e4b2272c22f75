"""A segment in INT8: onnxruntime's static quantisation, with weights that no processor overflows.

Activations and weights are signed 8-bit integers, weights with a scale for each output channel,
activations with the range that the calibration inputs filled. What enters and leaves stays float32.

x86 processors without VNNI multiply bytes in pairs and add each pair in 16 bits, which saturates:
two neighbouring weights of nearly full size lose what is beyond. That alone made EfficientNet-Lite0
change 12 % of its answers. The usual remedy is weights of 7 bits. A pair only overflows if its sum
exceeds 128 steps, though, and few do: a channel's scale grows by just as much as its largest pair
needs. What was judged on one processor then holds for every other.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from splitpoint.codec import Array

# What runtimes have integer kernels for; the rest stays in float32.
_WEIGHTED = ("Conv", "Gemm", "MatMul")
_QUANTISED = (*_WEIGHTED, "Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat")
# These only move values or clip them, and stay in INT8 where both sides are.
_CARRIED = ("Relu", "Clip", "MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten")


def quantise_segment(path: Path, out: Path, inputs: Iterable[Mapping[str, Array]]) -> None:
    """Writes the INT8 form of the ONNX segment `path`, its weights inside, to `out`.

    `inputs` are the tensors that enter, one mapping for each calibration input.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    model = onnx.load(path)
    # The batch norms are folded and the shapes known: what its "pre-processing" would do.
    add_pre_process_metadata(model)
    entering = {value.name for value in model.graph.input}
    reader = _Reader({name: given[name] for name in entering} for given in inputs)
    with contextlib.redirect_stdout(io.StringIO()):  # stdout is for results
        quantization.quantize_static(
            model,
            str(out),
            reader,
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=[*_QUANTISED, *_CARRIED],
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=_before_weights(model.graph),
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options={"TensorQuantOverrides": _weight_ranges(model.graph)},
        )


class _Reader:
    """Calibration inputs as onnxruntime asks for them."""

    def __init__(self, inputs: Iterator[dict[str, Array]]) -> None:
        self._inputs = inputs

    def get_next(self) -> dict[str, Array] | None:
        """The next input, None after the last."""
        return next(self._inputs, None)


def _before_weights(graph: onnx.GraphProto) -> list[str]:
    """Nodes that no weighted one comes before, as a picture's normalisation: cheap, and exact."""
    behind: set[str] = set()
    found = []
    for node in graph.node:
        if node.op_type in _WEIGHTED or behind & set(node.input):
            behind.update(node.output)
        else:
            found.append(node.name)
    return found


def _weight_ranges(graph: onnx.GraphProto) -> dict[str, list[dict[str, Any]]]:
    """Weight -> onnxruntime's settings for each output channel, with a range that is safe."""
    from onnxruntime.quantization import QuantType

    weights = {tensor.name: tensor for tensor in graph.initializer}
    found: dict[str, list[dict[str, Any]]] = {}
    for node in graph.node:
        if node.op_type not in _WEIGHTED or node.input[1] not in weights:
            continue
        weight = numpy_helper.to_array(weights[node.input[1]])
        attributes = {a.name: a.i for a in node.attribute}
        if weight.ndim < 2 or attributes.get("group", 1) > 1:
            continue  # grouped ones are multiplied in 16 bits
        axis = 0 if node.op_type == "Conv" or attributes.get("transB") else weight.ndim - 1
        found[node.input[1]] = [
            {
                "quant_type": QuantType.QInt8,
                "axis": axis,
                "rmin": -limit,
                "rmax": limit,
                "symmetric": True,
            }
            for limit in safe_range(np.moveaxis(weight, axis, 0))
        ]
    return found


def safe_range(weight: Array) -> Array:
    """For each channel of `[channels, ...]` the magnitude that is to become 127 steps, float32.

    That of its largest weight, or of the largest sum of two neighbours of one sign: rounded, they
    are at most 128 steps, and 128 * 255 fits into 16 bits. Kernels take a convolution's weights
    `[out, in, y, x]` in this order or with `in` last.
    """
    orders = [weight.reshape(len(weight), -1)]
    if weight.ndim > 2:
        orders.append(np.moveaxis(weight, 1, -1).reshape(len(weight), -1))
    limit = np.abs(orders[0]).max(1)
    for rows in orders:
        for side in (np.maximum(rows, 0), np.maximum(-rows, 0)):
            if rows.shape[1] > 1:
                limit = np.maximum(limit, (side[:, 1:] + side[:, :-1]).max(1))
    return np.asarray(limit, np.float32)
