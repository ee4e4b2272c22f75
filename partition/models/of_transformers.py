"""Vision models of transformers, by their class and configuration."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..bundle.model_kind import CLASSIFY
from ..errors import ModelError
from ..model_spec import ModelSpec
from ..picture import PictureInput
from ..tasks.task import Task
from .chosen_outputs import ChosenOutputs
from .free_size import four_to_three

# What `post_process_object_detection` does with the logits: a softmax whose last class is that
# there is nothing, or a sigmoid of each class.
_DETECTORS = dict.fromkeys(("detr", "table-transformer", "yolos"), "detr")
_DETECTORS |= dict.fromkeys(
    ("conditional_detr", "d_fine", "deformable_detr", "rt_detr", "rt_detr_v2"), "rtdetr"
)
# Families without an image processor of their own -> whose they use.
_PROCESSOR_OF = dict.fromkeys(("d_fine", "rt_detr_v2"), "rt_detr")
_STEP_PX = 32  # of sizes that are free
_FILTERS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def vision_model_spec(
    source: str,
    model: Any,
    size_px: tuple[int, int] | None,
    labels: Sequence[str],
    weights: str,
) -> ModelSpec | None:
    """A classifier, detector or segmenter of pictures; None for other models.

    How a photo becomes its input is what the image processor of its family does by default.
    """
    task = _task_of(type(model).__name__, model.config)
    if task is None:
        return None
    processor = _processor(model.config)
    mean, std = _normalisation(processor)
    picture = _picture(processor)
    return ModelSpec.of_picture_model(
        source,
        ChosenOutputs(model, task.outputs or ("logits",)).eval(),
        picture if size_px is None else _of_size(picture, *size_px),
        mean=mean,
        std=std,
        task=task,
        labels=labels or _labels(model.config),
        weights=weights,
    )


def _task_of(class_name: str, config: Any) -> Task | None:
    if class_name.endswith("ForImageClassification"):
        return CLASSIFY
    if class_name.endswith("ForObjectDetection") and config.model_type in _DETECTORS:
        return Task.of_head(_DETECTORS[config.model_type], ("logits", "pred_boxes"))
    if class_name.endswith("ForSemanticSegmentation"):
        return Task.of_head("segment" if config.num_labels > 1 else "mask_logit", ("logits",))
    return None


def _processor(config: Any) -> Any:
    """With its defaults; it resizes and normalises, and needs no files."""
    auto = importlib.import_module("transformers.models.auto.image_processing_auto")
    configs = importlib.import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING
    try:
        kind = configs[_PROCESSOR_OF.get(config.model_type, config.model_type)]
        found = auto.IMAGE_PROCESSOR_MAPPING[kind]
        kinds = found.values() if isinstance(found, Mapping) else found
        return next(kind for kind in kinds if kind is not None)()
    except (ImportError, KeyError, StopIteration) as error:
        raise ModelError(
            f"transformers has no image processor for {config.model_type} ({error})",
            "return a ModelSpec that says how photos become the model's input",
        ) from error


def _normalisation(processor: Any) -> tuple[Sequence[float], Sequence[float]]:
    """Of pixels from 0 to 1."""
    if not getattr(processor, "do_normalize", False):
        return (0.0,) * 3, (1.0,) * 3
    return processor.image_mean, processor.image_std


def _picture(processor: Any) -> PictureInput:
    size = _sides(processor.size)
    interpolation = _FILTERS.get(int(getattr(processor, "resample", 2) or 2), "bilinear")
    shortest = size.get("shortest_edge")
    if getattr(processor, "do_center_crop", False):
        crop = _sides(processor.crop_size)
        height, width = crop["height"], crop["width"]
        short = shortest or min(size["height"], size["width"])
        return PictureInput(
            height_px=height,
            width_px=width,
            resize_px=max(short, height, width),
            interpolation=interpolation,
        )
    if "height" in size:
        return PictureInput(
            height_px=size["height"],
            width_px=size["width"],
            resize="stretch",
            interpolation=interpolation,
        )
    if shortest and "longest_edge" in size:  # any shape; cameras' photos are 4 to 3
        height, width = four_to_three(shortest, size["longest_edge"], _STEP_PX)
        return PictureInput(height_px=height, width_px=width, resize="pad")
    side = shortest or 224
    return PictureInput(height_px=side, width_px=side, interpolation=interpolation)


def _of_size(picture: PictureInput, height: int, width: int) -> PictureInput:
    return replace(picture, height_px=height, width_px=width, resize_px=0)


def _sides(size: Any) -> dict[str, int]:
    if isinstance(size, int):
        return {"height": size, "width": size}
    items = size.items() if isinstance(size, Mapping) else vars(size).items()
    return {key: int(side) for key, side in items if side}


def _labels(config: Any) -> tuple[str, ...]:
    """None where they are only numbered."""
    names = [str(config.id2label[number]) for number in sorted(config.id2label)]
    return () if names[:1] == ["LABEL_0"] else tuple(names)
