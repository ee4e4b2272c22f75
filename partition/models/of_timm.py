"""Models of timm, by the configuration of their weights, which each carries with it."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..bundle.model_kind import CLASSIFY, RAW_TASK
from ..model_spec import IMAGENET_MEAN, IMAGENET_STD, ModelSpec
from ..picture import PictureInput

_CROP_PCT = 0.875  # where the configuration has none
_FILTERS = ("bilinear", "bicubic")


def timm_spec(
    source: str,
    model: Any,
    size_px: tuple[int, int] | None,
    labels: Sequence[str],
    weights: str,
) -> ModelSpec | None:
    """A model of RGB photos; None for one of other pictures, or without a configuration.

    A photo becomes its input as timm evaluates the weights (`resolve_data_config` in
    timm/data/config.py and `transforms_imagenet_eval` in timm/data/transforms_factory.py). One
    with classes is a classifier, of other ones the outputs are the answer.
    """
    said = getattr(model, "pretrained_cfg", None)
    if not isinstance(said, Mapping) or said.get("input_size", (3, 224, 224))[0] != 3:
        return None
    mean, std = said.get("mean") or IMAGENET_MEAN, said.get("std") or IMAGENET_STD
    picture = _picture(said, size_px or _size_px(model, said), mean)
    classes = int(getattr(model, "num_classes", 0) or 0)
    spec = ModelSpec.of_picture_model(
        source,
        model.eval(),
        picture,
        mean=mean,
        std=std,
        task=CLASSIFY if classes > 1 else RAW_TASK,
        labels=labels or _labels(said, classes),
        weights=weights,
    )
    return replace(spec, remarks=_remarks(source, said))


def _size_px(model: Any, said: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width. A transformer may have been built for others than its weights were."""
    built_for = getattr(getattr(model, "patch_embed", None), "img_size", None)
    height, width = built_for or tuple(said.get("input_size", (3, 224, 224)))[1:]
    return int(height), int(width)


def _picture(
    said: Mapping[str, Any], size_px: tuple[int, int], mean: Sequence[float]
) -> PictureInput:
    height, width = size_px
    options: dict[str, Any] = {"height_px": height, "width_px": width}
    if said.get("interpolation", "bicubic") in _FILTERS:
        options["interpolation"] = said.get("interpolation", "bicubic")
    match said.get("crop_mode"):
        case "squash":
            options["resize"] = "stretch"
        case "border":
            options |= {"resize": "letterbox", "fill": round(255 * sum(mean) / len(mean))}
        case _:
            shorter = min(height, width)
            options["resize_px"] = max(math.floor(shorter / _crop_pct(said)), shorter)
    return PictureInput(**options)


def _crop_pct(said: Mapping[str, Any]) -> float:
    return float(said.get("crop_pct") or _CROP_PCT)


def _remarks(source: str, said: Mapping[str, Any]) -> tuple[str, ...]:
    """Where photos are larger in the input than timm makes them, which shows less of them."""
    mode, share = said.get("crop_mode"), _crop_pct(said)
    if mode not in ("squash", "border") or share >= 1:
        return ()
    return (
        f"{source} was evaluated on the middle {share:g} of resized photos ({mode}); here the "
        "whole photo is in the input",
    )


def _labels(said: Mapping[str, Any], classes: int) -> tuple[str, ...]:
    """Those of the weights, or of the set of ImageNet's classes that has as many.

    None where the model has another number of classes than its weights. Of synonyms the first.
    """
    if not classes or classes != said.get("num_classes"):
        return ()
    names = said.get("label_names")
    if names:
        described = said.get("label_descriptions") or {}
        return tuple(str(described.get(name, name)) for name in names)
    data = importlib.import_module("timm.data")
    subset = data.infer_imagenet_subset(dict(said))
    if subset is None:
        return ()
    synonyms = data.ImageNetInfo(subset).label_descriptions()
    return tuple(str(description).partition(",")[0] for description in synonyms)
