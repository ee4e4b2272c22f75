"""YOLO as ultralytics builds it, and segmentation models of segmentation-models-pytorch."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from splitpoint.partition.models.torchvision import declare_detection_operators
from zoo_subject import Given, Subject, given, known, pixels

SIDE_PX = 320


def yolo(name: str, kind: str = "DetectionModel") -> torch.nn.Module:
    """With random weights and 80 classes."""
    declare_detection_operators()
    tasks: Any = importlib.import_module("ultralytics.nn.tasks")
    module: torch.nn.Module = getattr(tasks, kind)(f"{name}.yaml", verbose=False).eval()
    return module


def other(name: str, kind: str) -> Given:
    """One for another task, as its factory gives it: its head has not kept a batch's shape yet."""
    module: Any = yolo(name, kind)
    found = given(module, pixels(SIDE_PX))
    module.model[-1].shape = None
    return found


def fused() -> Given:
    """With the batch norms in the convolutions, which have settled before."""
    module: Any = yolo("yolo11n")
    known(module, SIDE_PX)
    return known(module.fuse(verbose=False), SIDE_PX)


def without_suppression() -> Given:
    """As the published weights have it: the head whose boxes lie apart."""
    module: Any = yolo("yolo26n")
    module.end2end = True
    return known(module, SIDE_PX)


ULTRALYTICS = [
    Subject("yolo11n", lambda _: known(yolo("yolo11n"), SIDE_PX), quick=True),
    Subject("yolo11n, fused", lambda _: fused()),
    Subject("yolov8n", lambda _: known(yolo("yolov8n"), SIDE_PX)),
    Subject("yolo26n", lambda _: known(yolo("yolo26n"), SIDE_PX)),
    Subject("yolo26n without suppression", lambda _: without_suppression()),
    Subject("yolo11n-seg", lambda _: other("yolo11n-seg", "SegmentationModel")),
    Subject("yolo11n-pose", lambda _: other("yolo11n-pose", "PoseModel")),
]


def smp(kind: str, **options: Any) -> Given:
    """A decoder on an encoder with random weights."""
    declare_detection_operators()
    package: Any = importlib.import_module("segmentation_models_pytorch")
    return given(getattr(package, kind)(encoder_weights=None, classes=5, **options), pixels(224))


SEGMENTATION = [
    Subject("U-Net on resnet18", lambda _: smp("Unet", encoder_name="resnet18")),
    Subject("DeepLabV3+ on efficientnet-b0", lambda _: smp(
        "DeepLabV3Plus", encoder_name="efficientnet-b0")),
    Subject("Segformer on mit_b0", lambda _: smp("Segformer", encoder_name="mit_b0")),
]  # fmt: skip
