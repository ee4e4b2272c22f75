"""torchvision's detectors that propose nothing: boxes at all anchors, before any suppression."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..model_spec import Around


class DenseDetector(Around):
    """An FCOS, RetinaNet or SSD of torchvision as one graph, for inputs of one size.

    Of normalised float32 `[batch, 3, height, width]` it makes what torchvision computes before it
    chooses among it: `boxes` `[batch, anchors, 4]`, x0, y0, x1, y1 in pixels of the input, and
    `scores` `[batch, anchors, classes]` from 0 to 1. The anchors depend on the size alone, and are
    a constant.
    """

    anchors: Tensor
    limits: Tensor

    def __init__(self, model: Any, height_px: int, width_px: int) -> None:
        super().__init__(model)
        was_training = model.training
        with torch.no_grad():
            pictures = torch.zeros(1, 3, height_px, width_px)
            features = self._features(model.eval(), pictures)
            image_list = _ImageList(pictures, [(height_px, width_px)])
            (anchors,) = model.anchor_generator(image_list, features)
        model.train(was_training)
        self.register_buffer("anchors", anchors)
        self.register_buffer("limits", torch.tensor([width_px, height_px] * 2).float())

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Boxes and scores."""
        model: Any = self.model
        found = model.head(self._features(model, pictures))
        boxes = self._decoded(found["bbox_regression"])
        logits = found["cls_logits"]
        if "bbox_ctrness" in found:  # FCOS
            scores = torch.sqrt(logits.sigmoid() * found["bbox_ctrness"].sigmoid())
        else:
            scores = logits.softmax(-1) if has_background(model) else logits.sigmoid()
        return {"boxes": torch.minimum(boxes.clamp(min=0), self.limits), "scores": scores}

    def _decoded(self, codes: Tensor) -> Tensor:
        coder: Any = self.model.box_coder
        if not hasattr(coder, "bbox_xform_clip"):  # FCOS: distances to the four sides
            boxes: Tensor = coder.decode(codes, self.anchors)
            return boxes
        size = self.anchors[:, 2:] - self.anchors[:, :2]
        centre = self.anchors[:, :2] + size / 2
        codes = codes / codes.new_tensor(coder.weights)
        centre = codes[..., :2] * size + centre
        half = codes[..., 2:].clamp(max=coder.bbox_xform_clip).exp() * size / 2
        return torch.cat([centre - half, centre + half], -1)

    @staticmethod
    def _features(model: Any, pictures: Tensor) -> list[Tensor]:
        found = model.backbone(pictures)
        return [found] if isinstance(found, Tensor) else list(found.values())


def has_background(model: torch.nn.Module) -> bool:
    """Whether class 0 is that there is nothing, as it is for SSD."""
    return type(model).__name__ == "SSD"


class _ImageList:
    """What an anchor generator looks at: pictures, and how much of each is no padding."""

    def __init__(self, tensors: Tensor, image_sizes: list[tuple[int, int]]) -> None:
        self.tensors, self.image_sizes = tensors, image_sizes
