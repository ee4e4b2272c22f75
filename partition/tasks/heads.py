"""The table of heads: which outputs each reads, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from splitpoint.codec import Array, TensorSpec

from ..errors import TaskError
from .box_decoders import (
    boxes_of_six,
    decoded,
    decoded_background,
    detr,
    rtdetr,
    rtdetr_joined,
    yolo,
    yolo_corners,
    yolov5,
)
from .centerface import centerface
from .detect_head import Decode, DetectHead
from .head import Head, Limits
from .segment_head import (
    LONGEST_SIDE,
    MASK_CLASSES,
    MOST_CLASSES,
    SegmentHead,
    above_half,
    above_zero,
    largest,
)
from .shapes import misfit, sizes_of

_GRIDS_PX = (8, 16, 32)  # the steps of the three grids of a YOLO


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectForm:
    """A head that finds boxes in outputs of the shapes `expects`, written as in shapes.py.

    `max_iou` is what is usual for its models: 1 where they find a thing only once. `relative`:
    boxes are parts of the input's width and height, from 0 to 1. `per_cell` is how many each cell
    of a YOLO's grids has, 0 for another model. Classes below `first_class` are never found.
    `classes` is how many it tells apart where no extent says so.
    """

    expects: tuple[str, ...]
    decode: Decode
    max_iou: float = 1.0
    kind: ClassVar[str] = "detect"
    relative: bool = False
    per_cell: int = 0
    first_class: int = 0
    classes: int | None = None

    def open(
        self,
        name: str,
        outputs: Mapping[str, TensorSpec],
        input_size_px: tuple[int, int] | None,
        limits: Limits,
    ) -> Head:
        """The head for these outputs and an input of that height and width, or `TaskError`."""
        sizes = sizes_of(name, outputs, self.expects)
        if self.relative and input_size_px is None:
            raise TaskError(
                f"the head {name} needs the size of the model's input, which is no picture",
                "compile a model of pictures, or leave its outputs as they are (raw)",
            )
        height, width = input_size_px or (1, 1)
        boxes = self.per_cell * sum(-(-height // s) * -(-width // s) for s in _GRIDS_PX)
        extents = next(iter(outputs.values())).shape
        if input_size_px and self.per_cell and sizes["boxes"] != boxes and boxes in extents:
            raise misfit(name, outputs, self.expects)  # boxes and classes have changed places
        scale = (float(width), float(height)) if self.relative else (1.0, 1.0)
        classes = sizes["classes"] + self.first_class if "classes" in sizes else self.classes
        return DetectHead(tuple(outputs), self.decode, scale, limits, classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentForm:
    """A head that gives each pixel a class; `class_map` is `SegmentHead`'s."""

    expects: tuple[str, ...]
    class_map: Callable[[Array], Array]
    kind: ClassVar[str] = "segment"

    def open(
        self,
        name: str,
        outputs: Mapping[str, TensorSpec],
        input_size_px: tuple[int, int] | None,
        limits: Limits,
    ) -> Head:
        """The head for these outputs, or `TaskError`."""
        sizes = sizes_of(name, outputs, self.expects)
        classes = sizes.get("classes", MASK_CLASSES)
        if classes == 1:
            raise TaskError(
                f"the head {name} was given a map of one class",
                "use mask_logit for logits, or mask_probability",
            )
        if classes > MOST_CLASSES:
            raise TaskError(
                f"the head {name} was given {classes} classes",
                f"a map of bytes holds {MOST_CLASSES}; leave the outputs as they are (raw)",
            )
        height, width = sizes["height"], sizes["width"]
        if max(height, width) > LONGEST_SIDE:  # few bytes of a reply would become all memory
            raise TaskError(
                f"the head {name} was given a map of {height}x{width}",
                f"sides of 1 to {LONGEST_SIDE} can be read",
            )
        return SegmentHead(next(iter(outputs)), height, width, self.class_map, classes)


HEADS: Mapping[str, DetectForm | SegmentForm] = {
    "yolo": DetectForm(
        expects=("[batch, 4 + classes, boxes]",), decode=yolo, max_iou=0.7, per_cell=1
    ),
    "yolo_corners": DetectForm(
        expects=("[batch, 4 + classes, boxes]",), decode=yolo_corners, per_cell=1
    ),
    "yolov5": DetectForm(
        expects=("[batch, boxes, 5 + classes]",), decode=yolov5, max_iou=0.45, per_cell=3
    ),
    "boxes": DetectForm(expects=("[batch, boxes, 6]",), decode=boxes_of_six),
    "detr": DetectForm(
        expects=("[batch, boxes, classes + 1]", "[batch, boxes, 4]"), decode=detr, relative=True
    ),
    "rtdetr": DetectForm(
        expects=("[batch, boxes, classes]", "[batch, boxes, 4]"), decode=rtdetr, relative=True
    ),
    "rtdetr_joined": DetectForm(
        expects=("[batch, boxes, 4 + classes]",), decode=rtdetr_joined, relative=True
    ),
    "decoded": DetectForm(
        expects=("[batch, boxes, 4]", "[batch, boxes, classes]"), decode=decoded, max_iou=0.5
    ),
    "decoded_background": DetectForm(
        expects=("[batch, boxes, 4]", "[batch, boxes, 1 + classes]"),
        decode=decoded_background,
        first_class=1,
        max_iou=0.5,
    ),
    "centerface": DetectForm(
        expects=(
            "[batch, 1, height, width]",
            "[batch, 2, height, width]",
            "[batch, 2, height, width]",
            "[batch, 10, height, width]",
        ),
        decode=centerface,
        max_iou=0.3,
        classes=1,
    ),
    # Of several classes the largest is the same for logits and probabilities. Of one it is not, and
    # nothing about a tensor tells one from the other: its head's name does.
    "segment": SegmentForm(expects=("[batch, classes, height, width]",), class_map=largest),
    "mask_logit": SegmentForm(expects=("[batch, 1, height, width]",), class_map=above_zero),
    "mask_probability": SegmentForm(expects=("[batch, 1, height, width]",), class_map=above_half),
}
"""By the name that a manifest and the command line give it."""
