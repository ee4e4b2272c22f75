"""torchvision's detection and segmentation models as they are asked for: boxes, and a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..model_spec import IMAGENET_MEAN, IMAGENET_STD, ModelSpec
from ..picture import PictureInput
from ..tasks.task import MOST_DETECTIONS, Task
from .chosen_outputs import ChosenOutputs
from .dense_detector import DenseDetector, has_background
from .free_size import four_to_three

SEGMENTED_PX = 520  # the side with which torchvision evaluates its weights
_GREY = 116  # torchvision pads with the mean of its pixels, of which there is one for each channel
_MIN_SCORE = 0.05  # some of them give every box that is likelier than 0.001


def dense_detector_spec(
    source: str,
    model: Any,
    size_px: tuple[int, int] | None,
    labels: Sequence[str],
    weights: str,
) -> ModelSpec:
    """An FCOS, RetinaNet or SSD.

    An SSD takes photos stretched to its size. The others take any, with a shorter side of, say,
    800 pixels; the input is one of that height, in the shape of most cameras' photos, 4 to 3.
    """
    transform = model.transform
    if transform.fixed_size is not None:
        height, width = size_px or map(int, transform.fixed_size[::-1])
        picture = PictureInput(height_px=height, width_px=width, resize="stretch")
    else:
        height, width = size_px or four_to_three(
            transform.min_size[-1], transform.max_size, transform.size_divisible
        )
        picture = PictureInput(height_px=height, width_px=width, resize="pad", fill=_GREY)
    task = Task.of_head(
        "decoded_background" if has_background(model) else "decoded",
        ("boxes", "scores"),
        min_score=max(float(model.score_thresh), _MIN_SCORE),
        max_iou=float(model.nms_thresh),
        max_detections=min(int(model.detections_per_img), MOST_DETECTIONS),
    )
    return ModelSpec.of_picture_model(
        source,
        DenseDetector(model, height, width).eval(),
        picture,
        mean=transform.image_mean,
        std=transform.image_std,
        task=task,
        labels=labels,
        weights=weights,
    )


def segmenter_spec(
    source: str,
    model: torch.nn.Module,
    size_px: tuple[int, int] | None,
    labels: Sequence[str],
    weights: str,
) -> ModelSpec:
    """A DeepLabV3, FCN or LR-ASPP: its map of logits, without that of the auxiliary head.

    The whole photo is in the input, with bars beside it.
    """
    height, width = size_px or (SEGMENTED_PX, SEGMENTED_PX)
    picture = PictureInput(height_px=height, width_px=width, resize="letterbox", fill=_GREY)
    return ModelSpec.of_picture_model(
        source,
        ChosenOutputs(model, ("out",)).eval(),
        picture,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        task=Task.of_head("segment", ("out",)),
        labels=labels,
        weights=weights,
    )
