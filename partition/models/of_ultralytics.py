"""YOLO detectors of ultralytics, without importing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..model_spec import Around, ModelSpec
from ..picture import PictureInput
from ..tasks.task import Task

USUAL_PX = 640


class YoloOutput(Around):
    """The decoded output alone, as ultralytics exports it, and not what it trains with beside it.

    The head keeps the anchors of the last input, and looks at its batch size to see whether they
    still hold: made anew each time, they are a constant. One that chooses the best boxes itself
    gives all of them: rounding turns the order of nearly equal ones over, and with it all rows.
    """

    def forward(self, pictures: Tensor) -> Tensor:
        """`[batch, 4 + classes, boxes]` of float32 `[batch, 3, height, width]` from 0 to 1."""
        parts: list[Any] = list(self.model.modules())
        for part in parts:
            if hasattr(part, "anchors") and hasattr(part, "shape"):
                part.shape = None
        choosing = [part for part in parts if _chooses(part)]
        for part in choosing:
            part.postprocess = _all_boxes
        try:
            found: Any = self.model(pictures)
        finally:
            for part in choosing:
                del part.postprocess
        output: Tensor = found[0] if isinstance(found, (tuple, list)) else found
        return output


def _all_boxes(rows: Tensor, *_: Any) -> Tensor:
    """In place of `Detect.postprocess`, whose versions also take how many to choose."""
    return rows.permute(0, 2, 1)


def _chooses(part: Any) -> bool:
    """Whether it is a head that needs no suppression, and gives the best boxes."""
    return getattr(part, "end2end", False) is True and hasattr(part, "postprocess")


def yolo_spec(
    source: str,
    model: Any,
    size_px: tuple[int, int] | None,
    labels: Sequence[str],
    weights: str,
) -> ModelSpec | None:
    """A `DetectionModel` as it is, fused or not; None for those for other tasks, and for others'.

    Its classes have the names that it was trained with. Photos are letterboxed to the size that it
    was trained with, or to 640x640.
    """
    if type(model).__name__ != "DetectionModel":
        return None
    height, width = size_px or _size_px(getattr(model, "args", None))
    return ModelSpec.of_picture_model(
        source,
        YoloOutput(model).eval(),
        PictureInput(height_px=height, width_px=width, resize="letterbox"),
        mean=(0, 0, 0),
        std=(1, 1, 1),
        task=Task.of_head("yolo_corners" if any(map(_chooses, model.modules())) else "yolo"),
        labels=labels or _names(model),
        weights=weights,
    )


def _size_px(trained_with: Any) -> tuple[int, int]:
    options = trained_with if isinstance(trained_with, Mapping) else vars(trained_with or object)
    size = options.get("imgsz", USUAL_PX)
    sides = [size, size] if isinstance(size, int) else list(size)
    return int(sides[0]), int(sides[-1])


def _names(model: torch.nn.Module) -> tuple[str, ...]:
    names: Any = getattr(model, "names", ())
    return tuple(map(str, names.values() if isinstance(names, Mapping) else names))
