"""Models of timm say by their configuration which pictures they take and what their classes are."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from splitpoint.partition.bundle.model_kind import CLASSIFY, RAW_TASK
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.models.known_modules import known_module
from torch import Tensor, nn

SAID = {
    "input_size": (3, 240, 320), "crop_pct": 0.95, "interpolation": "bicubic",
    "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2), "num_classes": 3,
    "label_names": ("n1", "n2", "n3"), "label_descriptions": {"n1": "cat", "n3": "cow"},
}  # fmt: skip


def model_of_timm(classes: int = 3, **said: Any) -> Any:
    def forward(self: Any, x: Tensor) -> Tensor:
        found: Tensor = x.mean((2, 3))
        return found

    kind = type("ResNet", (nn.Module,), {"__module__": "timm.models.resnet", "forward": forward})
    found: Any = kind()
    found.num_classes, found.pretrained_cfg = classes, SAID | said
    return found


def known(module: Any, **more: Any) -> ModelSpec:
    spec = known_module("test", module, **more)
    assert spec is not None
    return spec


def test_a_model_says_its_pictures_and_its_classes() -> None:
    module = model_of_timm()
    assert module.training
    spec = known(module)
    assert spec.picture is not None
    assert spec.picture.to_json() == {
        "height_px": 240, "width_px": 320, "resize_px": 252, "interpolation": "bicubic",
    }  # fmt: skip
    assert (spec.task, spec.labels) == (CLASSIFY, ("cat", "n2", "cow"))
    (pixels,) = spec.args
    wanted = (pixels.double().mean((1, 2)) / 255 - torch.tensor([0.5, 0.4, 0.3])) / 0.2
    torch.testing.assert_close(spec.module(pixels).double(), wanted, rtol=1e-4, atol=1e-5)
    assert not spec.users_module.training
    assert not spec.remarks


@pytest.mark.parametrize(("mode", "resize", "fill"), [
    ("squash", "stretch", 114), ("border", "letterbox", 102), ("center", "crop", 114),
])  # fmt: skip
def test_what_becomes_of_a_photo(mode: str, resize: str, fill: int) -> None:
    picture = known(model_of_timm(crop_mode=mode, crop_pct=1.0)).picture
    assert picture is not None
    assert (picture.resize, picture.fill) == (resize, fill)


def test_a_crop_that_cannot_be_had_is_said() -> None:
    (line,) = known(model_of_timm(crop_mode="squash")).remarks
    assert "middle 0.95 of resized photos (squash)" in line


def test_what_is_not_said_is_as_timm_has_it() -> None:
    module = model_of_timm()
    module.pretrained_cfg = {"num_classes": 7}
    picture = known(module).picture
    assert picture is not None
    assert (picture.height_px, picture.resize_px, picture.interpolation) == (224, 256, "bicubic")


def test_the_size_that_is_asked_for_and_that_it_was_built_for() -> None:
    module = model_of_timm()
    module.patch_embed = SimpleNamespace(img_size=(96, 128))
    sizes = [known(module).picture, known(module, size_px=(64, 64)).picture]
    assert [p and (p.height_px, p.width_px, p.resize_px) for p in sizes] == [
        (96, 128, 101), (64, 64, 67),
    ]  # fmt: skip


def test_labels_of_imagenet(monkeypatch: pytest.MonkeyPatch) -> None:
    data: Any = ModuleType("timm.data")
    data.infer_imagenet_subset = lambda said: "some" if said["num_classes"] == 3 else None
    data.ImageNetInfo = lambda subset: SimpleNamespace(
        label_descriptions=lambda: ["tench, Tinca tinca", "goldfish", "crane"]
    )
    monkeypatch.setitem(sys.modules, "timm", ModuleType("timm"))
    monkeypatch.setitem(sys.modules, "timm.data", data)
    assert known(model_of_timm(label_names=None)).labels == ("tench", "goldfish", "crane")
    assert known(model_of_timm(5, label_names=None)).labels == ()  # a head of one's own
    assert known(model_of_timm(5, label_names=None, num_classes=5)).labels == ()


def test_features_are_no_classes() -> None:
    spec = known(model_of_timm(0))
    assert (spec.task, spec.labels) == (RAW_TASK, ())


def test_models_of_other_pictures_are_left_to_the_user() -> None:
    assert known_module("test", model_of_timm(input_size=(1, 28, 28))) is None
    module = model_of_timm()
    module.pretrained_cfg = None
    assert known_module("test", module) is None
