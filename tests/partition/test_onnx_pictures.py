"""ONNX files that take pictures are captured from their pixels on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx_graphs import WEIGHT, graph, ints, node, onnxruntime_answers
from splitpoint.partition.capture.capture import capture
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.errors import CaptureError, ModelError
from splitpoint.partition.from_onnx.known_export import KnownExport, known_export
from splitpoint.partition.from_onnx.load import onnx_model
from splitpoint.partition.from_onnx.picture_options import PictureOptions
from splitpoint.partition.models.find import load_model
from splitpoint.partition.picture import PictureInput
from splitpoint.partition.tasks.task import Task

CONV = [node("Conv", "x", "w", to="a"), node("Relu", "a")]
LAST = [  # channels last, as TensorFlow's are
    node("Transpose", "x", perm=[0, 3, 1, 2], to="t"),
    node("Conv", "t", "w", to="a"),
    node("Relu", "a"),
]
CLASSES = [*CONV[:1], node("GlobalAveragePool", "a", to="b"), node("Flatten", "b")]


def made(nodes: Any, path: Path, shape: Any, **more: Any) -> Path:
    return Path(graph(nodes, path, shape, weights={"w": WEIGHT}, **more))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        PictureOptions(),
        PictureOptions(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)),
        PictureOptions(mean=(104, 117, 123), std=(1, 2, 4), scale=1, order="bgr"),
    ],
)
def test_pixels_become_the_input(options: PictureOptions, last: bool, tmp_path: Path) -> None:
    shape = (1, 6, 8, 3) if last else (1, 3, 6, 8)
    path = made(LAST if last else CONV, tmp_path / "m.onnx", shape)
    spec = onnx_model(path, "default", options)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 6, 8, 3), dtype=np.uint8)
    values = pixels[..., ::-1] if options.order == "bgr" else pixels
    mean, std = options.mean or (0.0,) * 3, options.std or (1.0,) * 3
    values = (values * np.float64(options.scale) - mean) / std
    values = values if last else values.transpose(0, 3, 1, 2)
    (expected,) = onnxruntime_answers(str(path), x=np.ascontiguousarray(values, np.float32))
    found = spec.module(torch.tensor(pixels))["y"].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_a_bundle_of_pictures(tmp_path: Path) -> None:
    path = made(CLASSES, tmp_path / "m.onnx", (1, 3, 8, 8))
    spec = onnx_model(path, "default", PictureOptions(order="bgr"))
    manifest = compile_model(spec, tmp_path / "m.split").manifest
    assert [(s.name, s.shape) for s in manifest.boundaries[0].tensors] == [("pixels", (1, 8, 8, 3))]
    assert [layer.name for layer in manifest.layers][:2] == ["normalise", "conv"]
    assert manifest.classifies
    assert manifest.max_relative_error < 1e-4


@pytest.mark.parametrize("shape", [("N", 3, "H", "W"), (1, 3, 8, 8), (10, 3, 8, 8)])
def test_a_size_of_your_own(shape: Any, tmp_path: Path) -> None:
    path = made(CONV, tmp_path / "m.onnx", shape)
    spec = onnx_model(path, "default", PictureOptions(size_px=(12, 16)))
    assert spec.picture is not None
    assert spec.picture == PictureInput(height_px=12, width_px=16)
    assert spec.module(torch.zeros(2, 12, 16, 3, dtype=torch.uint8))["y"].shape == (2, 4, 10, 14)


def test_one_picture_at_a_time(tmp_path: Path) -> None:
    nodes = [*CONV, node("ReduceMean", "y", axes=[0], to="z", name="mean")]
    path = made(nodes, tmp_path / "m.onnx", (1, 3, 8, 8), outputs=("z",))
    spec = onnx_model(path, "default", PictureOptions())
    assert spec.one_sample
    model = capture(spec.module, spec.args, name_prefix=spec.layer_prefix, one_sample=True)
    assert model.graph.cuts[0].tensors[0].is_picture
    assert model.graph.cuts[-1].tensors[0].shape == (1, 4, 6, 6)


REFUSED: dict[str, tuple[Any, PictureOptions | None, str]] = {
    "free size": (
        ("N", 3, "H", "W"), PictureOptions(), "leaves the pictures' size free.*--input-size"
    ),
    "free size of arrays": (("N", 3, "H", "W"), None, "has no size.*--input-size"),
    "no picture": ((1, 5, 8, 8), PictureOptions(), r"float32 \[1, 5, 8, 8\], and no picture"),
    "too small": (
        (1, 3, 8, 8), PictureOptions(size_px=(2, 2)), "cannot take pictures of 2x2.*--input-size"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, tmp_path: Path) -> None:
    shape, options, words = REFUSED[case]
    path = made([node("Relu", "x")] if "no" in case else CONV, tmp_path / "m.onnx", shape)
    with pytest.raises(ModelError, match=words) as caught:
        onnx_model(path, "default", options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"order": "gbr"}, "use rgb or bgr"),
        ({"std": (1, 0, 1)}, "0 or less"),
        ({"mean": (0, 0)}, "one for each channel"),
        ({"scale": float("nan")}, "finite"),
        ({"size_px": (0, 640)}, "0x640"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        PictureOptions(**options)


def test_other_models_know_their_pictures() -> None:
    with pytest.raises(ModelError, match="brings its pictures' size"):
        load_model("torchvision:resnet18", "none", PictureOptions())


SAID = {
    "author": "Ultralytics",
    "task": "detect",
    "stride": "32",
    "imgsz": "[32, 64]",
    "names": "{0: 'person', 1: 'traffic light'}",
}


def yolo(path: Path, classes: int, tail: Sequence[Any] = (), **said: str) -> Path:
    """A detector of as many cells as the picture has in steps of 8, 16 and 32.

    What it detects is `y`, or, with a `tail`, `all`, of which the tail makes `y`.
    """
    weights = {"w": np.ones((4 + classes, 3, 1, 1), np.float32), "flat": ints(0, 0, -1)}
    weights |= {"ends": ints(4, classes), "few": ints(5)}
    nodes = [node("Conv", "x", "w", to="a")]
    for step in (8, 16, 32):
        pool = {"kernel_shape": [step, step], "strides": [step, step]}
        nodes.append(node("MaxPool", "a", to=f"p{step}", name=f"pool{step}", **pool))
        nodes.append(node("Reshape", f"p{step}", "flat", to=f"q{step}", name=f"flat{step}"))
    nodes.append(node("Concat", "q8", "q16", "q32", axis=2, to="all" if tail else "y"))
    nodes += tail
    shape = ("batch", 3, "height", "width")
    return Path(graph(nodes, path, shape, weights=weights, metadata=SAID | said))


def test_a_file_that_says_what_it_is(tmp_path: Path) -> None:
    spec = onnx_model(yolo(tmp_path / "m.onnx", 2), "default")
    assert spec.picture is not None
    assert (spec.picture.height_px, spec.picture.width_px) == (32, 64)
    assert spec.picture.resize == "letterbox"
    assert spec.labels == ("person", "traffic light")
    assert spec.task == Task.of_head("yolo")


CHOICE = [
    node("Transpose", "all", perm=[0, 2, 1], to="rows"),
    node("Split", "rows", "ends", axis=2, to="boxes scores"),
    node("ReduceMax", "scores", axes=[2], keepdims=0, to="best"),
    node("TopK", "best", "few", to="top places", name="choose"),
    node("Gather", "boxes", "places", axis=1),
]


def test_a_file_that_chooses_its_boxes_gives_all_of_them(tmp_path: Path) -> None:
    """As YOLO26 does: equal scores, of which there are many here, come in any order."""
    spec = onnx_model(yolo(tmp_path / "m.onnx", 2, CHOICE, end2end="True"), "default")
    assert spec.task == Task.of_head("yolo_corners")
    (line,) = [line for line in spec.remarks if "is cut before its tail" in line]
    assert "'choose' (TopK) chooses by tensors' values; its outputs are 'all'" in line
    assert not spec.one_sample
    assert spec.task.max_iou == 1


def test_a_known_file_of_other_channels_takes_arrays(tmp_path: Path) -> None:
    path = made([node("Relu", "x")], tmp_path / "m.onnx", (1, 4, 8, 8), metadata=SAID)
    assert onnx_model(path, "default").picture is None


def test_labels_that_are_not_those_of_the_classes(tmp_path: Path) -> None:
    spec = onnx_model(yolo(tmp_path / "m.onnx", 3), "default")
    with pytest.raises(CaptureError, match="tells 3 classes, and 2 labels came"):
        compile_model(spec, tmp_path / "m.split")


@pytest.mark.parametrize(
    ("task", "head", "shape"),
    [
        ("detect", "boxes", (1, 300, 6)),
        ("detect", "yolo", (1, 6, 84)),
        ("detect", None, (1, 6, 8, 8)),
        ("segment", None, (1, 6, 84)),
        ("classify", "", (1, 2)),
    ],
)
def test_the_head_is_the_one_that_reads_the_outputs(
    task: str, head: str | None, shape: tuple[int, ...]
) -> None:
    known = KnownExport(task=task, labels=("a", "b"), size_px=None)
    found = known.task_for({"y": np.zeros(shape, np.float32)}, (64, 64))
    assert (found and found.head) == head


def test_of_yolov5_the_names_alone_are_known() -> None:
    found = known_export(Said(stride="32", names="{0: 'person'}"))
    assert found is not None
    task = found.task_for({"y": np.zeros((1, 252, 6), np.float32)}, (64, 64))
    assert task == Task.of_head("yolov5")


class Said:
    """Metadata as a model holds it."""

    def __init__(self, **said: str) -> None:
        self.metadata_props = [
            type("Entry", (), {"key": key, "value": value}) for key, value in said.items()
        ]


@pytest.mark.parametrize(
    "names",
    [
        "__import__('os').system('true')", "{0: 'a', 0.5: 'b'}", "{1: 'a'}", "{0: 5}", "[" * 9999,
        "{0: 'a'" + " " * (1 << 19) + "}", "{True: 'a'}", "(" * 300, "-" * 5000 + "1", "",
        "{0: '" + "a" * 300 + "'}", "{'0': 'a'}", "{[]: 'a'}",
    ],
)  # fmt: skip
def test_hostile_metadata_says_nothing(names: str) -> None:
    found = known_export(Said(**SAID | {"names": names, "imgsz": "[640, 1e9]"}))
    assert found == KnownExport(task="detect", labels=(), size_px=None)


def test_of_others_nothing_is_known() -> None:
    assert known_export(Said(**SAID | {"author": "somebody"})) is None
    assert known_export(Said(**SAID | {"task": "__class__"})) is None
    assert known_export(Said()) is None


def test_names_are_a_line_each() -> None:
    found = known_export(Said(**SAID | {"names": "{1: 'a\\nb', 0: '\\t'}"}))
    assert found is not None
    assert found.labels == ("?", "a b")
