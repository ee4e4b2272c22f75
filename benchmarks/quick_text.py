"""Two models for `--quick`: one marks what is darker or brighter around, one reads by chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from drawn_text import SIZE_PX
from onnx import TensorProto, helper, numpy_helper
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.picture import PictureInput
from splitpoint.partition.tasks.task import Task


class Contrast(torch.nn.Module):
    """Marks where pixels differ from their neighbourhood."""

    def __init__(self) -> None:
        super().__init__()
        self.down = torch.nn.AvgPool2d(4)
        self.blur = torch.nn.AvgPool2d(9, 1, 4)
        self.up = torch.nn.Upsample(scale_factor=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(x.mean(1, keepdim=True))
        return self.up(torch.sigmoid(40 * self.blur((x - self.blur(x)).abs()) - 2))


def marking_bundle(folder: Path) -> Path:
    height, width = SIZE_PX
    picture = PictureInput(resize="stretch", height_px=height, width_px=width)
    spec = ModelSpec.of_picture_model(
        "quick", Contrast().eval(), picture, mean=(0.5,) * 3, std=(0.5,) * 3,
        task=Task.of_head("mask_probability"), weights="none",
    )  # fmt: skip
    compile_model(spec, folder / "quick.split", boundaries=3)
    return folder / "quick.split"


def reading_model(folder: Path) -> Path:
    """Random weights that make characters of columns."""
    known = "abc"
    weights = np.random.default_rng(0).normal(0, 1, (len(known) + 2, 3, 48, 8)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["columns"], strides=[48, 8]),
            helper.make_node("Squeeze", ["columns", "axis"], ["rows"]),
            helper.make_node("Transpose", ["rows"], ["y"], perm=[0, 2, 1]),
        ],
        "reader",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 48, "width"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "steps", len(known) + 2])],
        [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(np.array([2], np.int64), "axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"character": "\n".join(known)})
    onnx.save(model, folder / "reader.onnx")
    return folder / "reader.onnx"
