"""torchvision's models, with the preprocessing and the class names that belong to their weights."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import warnings
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path
from typing import Any

import torch

from ..bundle.model_kind import CLASSIFY, RAW_TASK
from ..errors import ModelError
from ..model_spec import IMAGENET_MEAN, IMAGENET_STD, ModelSpec
from ..picture import PictureInput
from .known_modules import known_module
from .weights_file import load_weights_file

SEED = 0
_INIT_WEIGHTS = ("googlenet", "inception_v3")

_schemas: list[torch.library.Library] = []


def declare_detection_operators() -> None:
    """Lets torchvision be imported where its compiled operators do not fit the installed torch.

    Wheels for another torch build (Jetson, CPU builds) lack the schemas of two operators that the
    Python part refers to at import; classification models need neither. Where the operators do load
    they bring their schemas, and a second declaration would end the process. Does nothing where
    torchvision is missing, or imported already.
    """
    found = importlib.util.find_spec("torchvision")
    if _schemas or "torchvision" in sys.modules or found is None or _operators_load(found):
        return
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    _schemas.append(library)


def _operators_load(torchvision: ModuleSpec) -> bool:
    """Loads them as torchvision's import would."""
    for folder in map(Path, torchvision.submodule_search_locations or ()):
        for library in (folder / f"_C{suffix}" for suffix in EXTENSION_SUFFIXES):
            if library.is_file():
                try:
                    torch.ops.load_library(library)  # type: ignore[no-untyped-call]
                except OSError:
                    return False
                return True
    return False


def import_torchvision() -> Any:
    """torchvision, also where its compiled operators do not fit the installed torch."""
    declare_detection_operators()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise ModelError(
            f"torchvision cannot be imported ({error})", 'pip install "splitpoint[torch]"'
        ) from error


def imagenet_labels() -> tuple[str, ...]:
    """The 1,000 class names in the order of ImageNet-1k, from torchvision's own list."""
    import_torchvision()
    meta = importlib.import_module("torchvision.models._meta")
    return tuple(meta._IMAGENET_CATEGORIES)


def torchvision_model(source: str, weights: str) -> ModelSpec:
    """The model `torchvision:NAME`; see `load_model`."""
    torchvision = import_torchvision()
    name = source.partition(":")[2]
    try:
        entry = torchvision.models.get_model_weights(name).DEFAULT
    except ValueError as error:
        raise ModelError(
            f"torchvision has no model {name!r}",
            "python -c 'import torchvision; print(torchvision.models.list_models())' lists them",
        ) from error
    model = _built(torchvision, name, entry if weights == "default" else None)
    if weights == "none":
        _randomise_zero_heads(model)
    elif weights != "default":
        load_weights_file(model, Path(weights))
    labels = tuple(entry.meta.get("categories", ()))
    known = known_module(source, model, labels=labels, weights=weights)
    if known is not None:
        return known
    transforms = entry.transforms()
    crop = getattr(transforms, "crop_size", None) or getattr(transforms, "resize_size", [224])
    resize = getattr(transforms, "resize_size", crop)
    interpolation = getattr(transforms, "interpolation", None)
    picture = PictureInput(
        resize_px=max(resize[0], crop[0]),
        height_px=crop[0],
        width_px=crop[0],
        interpolation="bilinear" if interpolation is None else str(interpolation.value),
    )
    classifies = "categories" in entry.meta and hasattr(transforms, "crop_size")
    return ModelSpec.of_picture_model(
        source,
        model.eval(),
        picture,
        mean=tuple(getattr(transforms, "mean", IMAGENET_MEAN)),
        std=tuple(getattr(transforms, "std", IMAGENET_STD)),
        task=CLASSIFY if classifies else RAW_TASK,
        labels=labels,
        weights=weights,
    )


def _built(torchvision: Any, name: str, pretrained: Any) -> torch.nn.Module:
    """The model with `pretrained` weights, or, for None, with seeded random ones everywhere."""
    options: dict[str, Any] = {"weights": pretrained}
    if pretrained is None:
        taken = inspect.signature(torchvision.models.get_model_builder(name)).parameters
        if "weights_backbone" in taken:  # segmentation and detection: its default is downloaded
            options["weights_backbone"] = None
        if name in _INIT_WEIGHTS:
            # Two families start with a slow initialisation that makes their activations vanish.
            options["init_weights"] = False
    torch.manual_seed(SEED)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: torch.nn.Module = torchvision.models.get_model(name, **options)
            return model
    except OSError as error:
        raise ModelError(
            f"the pretrained weights of {name} cannot be downloaded ({error})",
            "download them elsewhere and give --weights FILE, or --weights none for random ones",
        ) from error


def _randomise_zero_heads(model: torch.nn.Module) -> None:
    """Models that start with a zero head (ViT) would answer 0 to everything."""
    for parameter in model.parameters():
        if parameter.ndim == 2 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
