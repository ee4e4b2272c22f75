"""Modules of known libraries say by themselves which pictures they take and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..model_spec import ModelSpec
from .of_timm import timm_spec
from .of_torchvision import dense_detector_spec, segmenter_spec
from .of_transformers import vision_model_spec
from .of_ultralytics import yolo_spec

Recognise = Callable[
    [str, torch.nn.Module, tuple[int, int] | None, Sequence[str], str], ModelSpec | None
]
"""From the source, the module, height and width of its input (None: what is usual for it), names of
its classes (none: its own) and its weights."""

# A class by its full name, the nearest one first -> what is made of its instances.
_KNOWN: dict[str, Recognise] = {
    "torchvision.models.detection.fcos.FCOS": dense_detector_spec,
    "torchvision.models.detection.retinanet.RetinaNet": dense_detector_spec,
    "torchvision.models.detection.ssd.SSD": dense_detector_spec,
    "torchvision.models.segmentation._utils._SimpleSegmentationModel": segmenter_spec,
    "torchvision.models.segmentation.lraspp.LRASPP": segmenter_spec,
    "transformers.modeling_utils.PreTrainedModel": vision_model_spec,
    "ultralytics.nn.tasks.DetectionModel": yolo_spec,
}
# All classes of these modules, and of those below them.
_FAMILIES: dict[str, Recognise] = {"timm.models.": timm_spec}


def known_module(
    source: str,
    module: torch.nn.Module,
    *,
    size_px: tuple[int, int] | None = None,
    labels: Sequence[str] = (),
    weights: str = "as built",
) -> ModelSpec | None:
    """The spec of a module that is known; None for any other.

    Its class is known by name: none of the libraries is imported here.
    """
    for kind in type(module).__mro__:
        name = f"{kind.__module__}.{kind.__qualname__}"
        recognise = _KNOWN.get(name)
        for family, of_family in _FAMILIES.items():
            recognise = of_family if name.startswith(family) else recognise
        if recognise is not None:
            return recognise(source, module, size_px, labels, weights)
    return None
