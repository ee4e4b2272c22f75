"""timm: what is trained today for small devices, and what is unusual inside."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from splitpoint.partition.models.torchvision import declare_detection_operators
from zoo_subject import Given, Subject, known


def built(name: str, side_px: int = 224, **options: Any) -> Given:
    """A model of timm's, as its configuration says, on photos of another size."""
    declare_detection_operators()
    timm: Any = importlib.import_module("timm")
    module: torch.nn.Module = timm.create_model(name, pretrained=False, **options)
    return known(module, side_px)


TIMM = [
    Subject("levit_128s", lambda _: built("levit_128s")),
    Subject("efficientformer_l1", lambda _: built("efficientformer_l1")),
    Subject("convnextv2_atto", lambda _: built("convnextv2_atto"), quick=True),
    Subject("mobilenetv4_conv_small", lambda _: built("mobilenetv4_conv_small")),
    Subject("swin_tiny_patch4_window7_224", lambda _: built("swin_tiny_patch4_window7_224")),
    Subject("fastvit_t8", lambda _: built("fastvit_t8", 256)),
    Subject("mobilevit_xxs", lambda _: built("mobilevit_xxs", 256)),
    Subject("eva02_tiny_patch14_224", lambda _: built("eva02_tiny_patch14_224")),
    Subject("vit_small_patch14_reg4_dinov2", lambda _: built(
        "vit_small_patch14_reg4_dinov2", 224, img_size=224)),
    Subject("resnet18, features only", lambda _: built("resnet18", features_only=True)),
]  # fmt: skip
