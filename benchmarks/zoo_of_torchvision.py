"""torchvision: detectors, segmenters, and classifiers beside plain convolutions."""

from __future__ import annotations

from typing import Any

import torch
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.models.find import load_model
from splitpoint.partition.models.torchvision import import_torchvision
from zoo_subject import Given, Subject, given, known, pixels, settle_batch_norms


def built(name: str, **options: Any) -> torch.nn.Module:
    """With random weights, also in the backbone."""
    torchvision = import_torchvision()
    module: torch.nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return module


def detector(kind: str, side_px: int) -> Given:
    """One that takes photos of any size, for small ones, on a small backbone."""
    detection: Any = import_torchvision().models.detection
    backbone = detection.backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=torch.nn.BatchNorm2d,
        returned_layers=[2, 3, 4],
        extra_blocks=detection.fcos.LastLevelP6P7(256, 256),
    )  # fmt: skip
    return known(getattr(detection, kind)(backbone, 91), side_px)


def named(source: str, *, runs: bool = True) -> Given:
    """As `splitpoint compile SOURCE --weights none` finds it."""
    spec: ModelSpec = load_model(source, "none")
    if runs:
        settle_batch_norms(spec)
    return Given(spec)


TORCHVISION = [
    Subject("FCOS on resnet18", lambda _: detector("FCOS", 224)),
    Subject("RetinaNet on resnet18", lambda _: detector("RetinaNet", 224)),
    Subject("ssdlite320_mobilenet_v3_large",
            lambda _: named("torchvision:ssdlite320_mobilenet_v3_large")),
    Subject("fasterrcnn_mobilenet_v3_large_320_fpn", lambda _: named(
        "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn", runs=False),
        refused="non-maximum suppression"),
    Subject("maskrcnn_resnet50_fpn", lambda _: named(
        "torchvision:maskrcnn_resnet50_fpn", runs=False), refused="non-maximum suppression"),
    Subject("deeplabv3_mobilenet_v3_large", lambda _: known(
        built("deeplabv3_mobilenet_v3_large", weights_backbone=None, aux_loss=True), 224)),
    Subject("lraspp_mobilenet_v3_large", lambda _: known(
        built("lraspp_mobilenet_v3_large", weights_backbone=None), 224)),
    Subject("r3d_18, of video", lambda _: given(
        built("r3d_18"), torch.randn(3, 3, 8, 64, 64))),
    Subject("raft_small, of two pictures", lambda _: given(
        built("raft_small"), pixels(128, 2), pixels(128, 2), num_flow_updates=2),
        refused="divides the batch into parts"),
]  # fmt: skip
