"""Modules of known libraries: the pictures that they take, and the answers that they give."""

from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from splitpoint.codec import TensorSpec
from splitpoint.partition.bundle.model_kind import CLASSIFY
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.models.find import load_model
from splitpoint.partition.models.known_modules import known_module
from splitpoint.partition.models.torchvision import import_torchvision
from torch import Tensor, nn

torchvision: Any = import_torchvision()
detection: Any = torchvision.models.detection
SIDE_PX, CLASSES = 64, 5


class Backbone(nn.Module):
    """Features in two grids."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3, 8, 1), nn.Conv2d(32, 32, 3, 2, 1)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        fine = torch.relu(self.first(x))
        return OrderedDict(fine=fine, coarse=torch.relu(self.second(fine)))


def anchors(*sizes: tuple[int, ...]) -> Any:
    return detection.anchor_utils.AnchorGenerator(sizes, ((1.0,),) * len(sizes))


def fcos() -> nn.Module:
    found: nn.Module = detection.FCOS(
        Backbone(),
        CLASSES,
        min_size=SIDE_PX,
        max_size=SIDE_PX,
        anchor_generator=anchors((8,), (16,)),
    )
    return found


def retinanet() -> nn.Module:
    found: nn.Module = detection.RetinaNet(
        Backbone(), CLASSES, min_size=SIDE_PX, max_size=SIDE_PX,
        anchor_generator=anchors((8, 12), (16, 24)),
    )  # fmt: skip
    return found


def ssd() -> nn.Module:
    found: nn.Module = detection.ssd.SSD(
        Backbone(), detection.anchor_utils.DefaultBoxGenerator([[2], [2]]), (SIDE_PX, SIDE_PX),
        CLASSES, head=detection.ssd.SSDHead([32, 32], [4, 4], CLASSES),
    )  # fmt: skip
    return found


def everything(module: Any, pictures: Tensor, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What torchvision finds when it suppresses nothing and leaves nothing out."""

    def keep(boxes: Tensor, scores: Tensor, labels: Tensor, max_iou: float) -> Tensor:
        return torch.arange(len(scores))

    monkeypatch.setattr(torchvision.ops.boxes, "batched_nms", keep)
    module.score_thresh, module.topk_candidates, module.detections_per_img = -1.0, 10**6, 10**6
    with torch.no_grad():
        found: list[Any] = module(list(pictures))
    return found


@pytest.mark.parametrize(("make", "head"), [
    (fcos, "decoded"), (retinanet, "decoded"), (ssd, "decoded_background"),
])  # fmt: skip
def test_boxes_and_scores_are_torchvision_s(
    make: Any, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    module = make().eval()
    for name, parameter in module.named_parameters():
        if name.startswith("head") and parameter.ndim > 1:  # else all boxes are near the anchors
            nn.init.normal_(parameter, std=0.1)
    spec = known_module("test", module)
    assert spec is not None
    assert spec.picture is not None
    assert spec.task is not None
    assert (spec.picture.height_px, spec.picture.width_px) == (SIDE_PX, SIDE_PX)
    assert spec.picture.resize == ("stretch" if make is ssd else "pad")
    assert spec.task.head == head
    assert spec.users_module is module
    (pixels,) = spec.args
    with torch.no_grad():
        found = spec.module(pixels)
    first = 1 if make is ssd else 0
    for number, wanted in enumerate(
        everything(module, pixels.permute(0, 3, 1, 2) / 255, monkeypatch)
    ):
        scores, boxes = found["scores"][number, :, first:], found["boxes"][number]
        order = scores.flatten().argsort()
        rows, labels = order // scores.shape[1], order % scores.shape[1] + first
        right = wanted["scores"].argsort()
        assert torch.equal(labels, wanted["labels"][right])
        torch.testing.assert_close(scores.flatten()[order], wanted["scores"][right])
        torch.testing.assert_close(boxes[rows], wanted["boxes"][right], rtol=1e-5, atol=1e-4)


def test_limits_of_a_detector_are_its_own() -> None:
    module = retinanet()
    module.nms_thresh, module.detections_per_img = 0.3, 7  # type: ignore[assignment]
    spec = known_module("test", module, labels=("nothing", "cat"))
    assert spec is not None
    assert spec.task is not None
    assert (spec.task.max_iou, spec.task.max_detections, spec.task.min_score) == (0.3, 7, 0.05)
    assert spec.labels == ("nothing", "cat")


@pytest.mark.slow
def test_a_detector_compiles(tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = known_module("test", ssd())
    assert spec is not None
    bundle = compile_model(spec, tmp_path / "ssd.split", boundaries=3)
    assert list(bundle.manifest.outputs) == ["boxes", "scores"]
    assert bundle.manifest.task == spec.task
    assert bundle.manifest.max_relative_error < 1e-4


def test_a_segmenter_of_torchvision_s() -> None:
    spec = load_model("torchvision:lraspp_mobilenet_v3_large", "none")
    assert spec.picture is not None
    assert spec.task is not None
    assert (spec.picture.resize, spec.picture.height_px) == ("letterbox", 520)
    assert (spec.task.head, spec.task.outputs) == ("segment", ("out",))
    assert spec.labels[:2] == ("__background__", "aeroplane")
    with torch.no_grad():
        found = spec.module(spec.args[0][:1])
    assert {name: list(value.shape) for name, value in found.items()} == {"out": [1, 21, 520, 520]}


def of_library(name: str, parent: type = nn.Module, **attributes: Any) -> Any:
    """A class that looks like one of a library that is not installed."""
    module, _, kind = name.rpartition(".")
    return type(kind, (parent,), {"__module__": module, **attributes})


class Detect(nn.Module):
    """The head of a YOLO, which keeps the anchors of the last input's shape."""

    end2end = False
    shape: Any = None
    anchors: Any = torch.empty(0)

    def forward(self, x: Tensor) -> Any:
        if self.shape != x.shape:
            self.anchors = torch.arange(x.shape[2] * x.shape[3], device=x.device) + 0.5
            self.shape = x.shape
        y = x.flatten(2)
        return torch.cat([y[:, :4] * self.anchors, y[:, 4:].sigmoid()], 1), {"feats": x}


def yolo(kind: str = "DetectionModel") -> nn.Module:
    def forward(self: Any, x: Tensor) -> Any:
        return self.model(x)

    found: Any = of_library(f"ultralytics.nn.tasks.{kind}", forward=forward)()
    found.model = nn.Sequential(nn.Conv2d(3, 7, 3, 32, 1), Detect())
    found.names = {0: "cat", 1: "dog", 2: "cow"}
    found.args = {"imgsz": 96}
    return found.eval()  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_yolo_after_it_saw_another_picture(tmp_path: Path) -> None:
    """Its head compares the batch with that of the last input, which would fix it."""
    torch.manual_seed(0)
    module = yolo()
    with torch.no_grad():
        before, _ = module(torch.rand(2, 3, 96, 96))
    spec = known_module("test", module)
    assert spec is not None
    assert spec.picture is not None
    assert spec.task is not None
    assert (spec.picture.resize, spec.picture.height_px) == ("letterbox", 96)
    assert (spec.task.head, spec.labels) == ("yolo", ("cat", "dog", "cow"))
    pixels = spec.args[0][:2]
    with torch.no_grad():
        found = spec.module(pixels)
        wanted, _ = module(pixels.permute(0, 3, 1, 2) / 255)
    assert found.shape == before.shape == (2, 7, 9)
    torch.testing.assert_close(found, wanted)
    bundle = compile_model(spec, tmp_path / "yolo.split", boundaries=2)
    assert list(bundle.manifest.outputs) == ["output"]


class Chooses(Detect):
    """The head of a YOLO that needs no suppression: the best boxes, a row each."""

    end2end = True

    def forward(self, x: Tensor) -> Any:
        y, beside = super().forward(x)
        return self.postprocess(y.permute(0, 2, 1)), beside

    def postprocess(self, rows: Tensor) -> Tensor:
        best = rows[..., 4:].amax(-1).topk(5).indices
        return rows.gather(1, best[..., None].expand(-1, -1, rows.shape[-1]))


def test_a_yolo_that_needs_no_suppression_gives_all_that_it_chooses_from() -> None:
    torch.manual_seed(0)
    module: Any = yolo()
    module.model[-1] = Chooses()
    spec = known_module("test", module)
    assert spec is not None
    assert spec.task is not None
    assert spec.task.head == "yolo_corners"
    pixels = spec.args[0][:2]
    with torch.no_grad():
        found = spec.module(pixels)
        chosen, _ = module(pixels.permute(0, 3, 1, 2) / 255)
    assert found.shape == (2, 7, 9)
    assert chosen.shape == (2, 5, 7)
    order = found[:, 4:].amax(1).argsort(descending=True)[:, :5]
    torch.testing.assert_close(found.gather(2, order[:, None].expand(-1, 7, -1)).mT, chosen)


def test_other_models_of_the_library_are_not_taken_for_detectors() -> None:
    parent = of_library("ultralytics.nn.tasks.DetectionModel")
    assert known_module("test", of_library("ultralytics.nn.tasks.PoseModel", parent)()) is None
    assert known_module("test", nn.Linear(3, 4)) is None


class Config:
    def __init__(self, model_type: str, **options: Any) -> None:
        self.model_type, self.num_labels = model_type, 3
        self.id2label = {0: "cat", 2: "cow", 1: "dog"}
        vars(self).update(options)


class Resizes:
    """An image processor's defaults."""

    def __init__(self, **options: Any) -> None:
        self.do_normalize, self.resample = True, 2
        self.image_mean, self.image_std = [0.5, 0.4, 0.3], [0.2, 0.2, 0.2]
        vars(self).update(options)


def of_transformers(
    monkeypatch: pytest.MonkeyPatch, kind: str, config: Config, outputs: Any, **processor: Any
) -> ModelSpec | None:
    def forward(self: Any, pixel_values: Tensor) -> Any:
        return {name: pixel_values.mean((2, 3))[:, :n] for name, n in outputs.items()}

    auto, known_types = "transformers.models.auto", ("x", "detr", "yolos", "rt_detr")
    packages = {
        "transformers": {}, "transformers.models": {}, auto: {},
        f"{auto}.configuration_auto": {"CONFIG_MAPPING": dict.fromkeys(known_types, Config)},
        f"{auto}.image_processing_auto": {"IMAGE_PROCESSOR_MAPPING": {
            Config: {"torchvision": None, "pil": lambda: Resizes(**processor)}
        }},
    }  # fmt: skip
    for name, content in packages.items():
        package = ModuleType(name)
        vars(package).update(content)
        monkeypatch.setitem(sys.modules, name, package)
    parent = of_library("transformers.modeling_utils.PreTrainedModel")
    module = of_library(f"transformers.models.x.{kind}", parent, forward=forward)()
    module.config = config
    return known_module("test", module)


def test_a_classifier_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = of_transformers(
        monkeypatch, "XForImageClassification", Config("x"), {"logits": 3, "hidden_states": 2},
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}, do_center_crop=True,
        resample=3,
    )  # fmt: skip
    assert spec is not None
    assert spec.picture is not None
    assert (spec.task, spec.labels) == (CLASSIFY, ("cat", "dog", "cow"))
    assert spec.picture.to_json() == {
        "height_px": 32, "width_px": 32, "resize_px": 40, "interpolation": "bicubic",
    }  # fmt: skip
    (pixels,) = spec.args
    with torch.no_grad():
        found = spec.module(pixels)
    assert list(found) == ["logits"]
    wanted = (pixels.double().mean((1, 2)) / 255 - torch.tensor([0.5, 0.4, 0.3])) / 0.2
    np.testing.assert_allclose(found["logits"], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("model_type", "head"), [
    ("detr", "detr"), ("yolos", "detr"), ("rt_detr", "rtdetr"), ("d_fine", "rtdetr"),
])  # fmt: skip
def test_a_detector_of_transformers(
    model_type: str, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = of_transformers(
        monkeypatch, "XForObjectDetection", Config(model_type), {"logits": 3, "pred_boxes": 3},
        size={"shortest_edge": 64, "longest_edge": 100}, do_normalize=False,
    )  # fmt: skip
    assert spec is not None
    assert spec.picture is not None
    assert spec.task is not None
    assert (spec.task.head, spec.task.outputs) == (head, ("logits", "pred_boxes"))
    assert (spec.picture.height_px, spec.picture.width_px, spec.picture.resize) == (64, 96, "pad")
    logits = TensorSpec(name="a", dtype="float32", shape=(1, 20, 4), batch_dim=0)
    boxes = TensorSpec(name="b", dtype="float32", shape=(1, 20, 4), batch_dim=0)
    assert spec.task.open({"logits": logits, "pred_boxes": boxes}, (64, 96)) is not None


def test_a_segmenter_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        of_transformers(
            monkeypatch, "XForSemanticSegmentation", Config("x", num_labels=classes),
            {"logits": 3}, size={"height": 48, "width": 64},
        )
        for classes in (1, 19)
    ]  # fmt: skip
    assert [spec and spec.task and spec.task.head for spec in found] == ["mask_logit", "segment"]
    assert found[0] is not None
    assert found[0].picture is not None
    assert found[0].picture.resize == "stretch"
    assert (found[0].picture.height_px, found[0].picture.width_px) == (48, 64)


def test_what_transformers_reads_is_left_to_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of_transformers(monkeypatch, "XModel", Config("x"), {}) is None
