"""A user's own model: a function that returns it, or a program that torch.export saved."""

from __future__ import annotations

import importlib
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from splitpoint.codec import SplitpointError
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from ..errors import ModelError
from ..from_onnx.picture_options import PictureOptions
from ..model_spec import IMAGENET_MEAN, IMAGENET_STD, ModelSpec
from ..picture import PictureInput
from ..quiet import quiet_torch
from .known_modules import known_module
from .odd import in_training_mode
from .torchvision import SEED, declare_detection_operators
from .weights_file import load_weights_file

_NAME_ONE = "name a function without arguments that returns the model, as package.module:function"
_CORRECT = "correct that, so that Python imports the module and calls the function from this folder"


def says_its_picture(source: str) -> ModelError:
    """The error of a model to whom options of the picture were given."""
    return ModelError(
        f"{source} brings its pictures' size and normalisation",
        "give those options for ONNX files and functions that return a plain module",
    )


def factory_model(source: str, weights: str, options: PictureOptions | None = None) -> ModelSpec:
    """What the function `package.module:function` returns, with the weights of a file if named.

    A plain module takes pictures as `options` say, or as most classifiers do; one of a known
    library as its library does, of another size if they say so.
    """
    made = _made(source)
    spec: ModelSpec
    remarks: tuple[str, ...] = ()
    if isinstance(made, torch.nn.Module):
        said = options or PictureOptions()
        remarks = in_training_mode(source, made)  # before anybody changes that
        known = known_module(source, made, size_px=said.size_px)
        if known is not None and replace(said, size_px=None) != PictureOptions():
            raise says_its_picture(source)
        spec = known or _plain(source, made, said)
    elif isinstance(made, ModelSpec):
        if options is not None:
            raise says_its_picture(source)
        spec, remarks = made, in_training_mode(source, made.users_module)
    else:
        raise ModelError(
            f"{source} returned {type(made).__name__}",
            "return a torch module that takes 224x224 photos, or a ModelSpec",
        )
    if weights not in ("default", "none"):
        load_weights_file(spec.users_module, Path(weights))
    return replace(spec, remarks=(*spec.remarks, *remarks))


def _plain(source: str, module: torch.nn.Module, said: PictureOptions) -> ModelSpec:
    height, width = said.size_px or (224, 224)
    return ModelSpec.of_picture_model(
        source,
        module,
        PictureInput(resize_px=0 if said.size_px else 256, height_px=height, width_px=width),
        mean=said.mean or IMAGENET_MEAN,
        std=said.std or IMAGENET_STD,
        scale=said.scale,
        order=said.order,
    )


def _made(source: str) -> Any:
    """What the function returns."""
    module_name, _, function_name = source.partition(":")
    declare_detection_operators()  # timm and others import torchvision
    sys.path.insert(0, "")  # as `python -m` would: the user's own file beside the command
    try:
        module = importlib.import_module(module_name)
        factory = getattr(module, function_name, None)
        if factory is None:
            raise ModelError(f"{module_name!r} has no function {function_name!r}", _NAME_ONE)
        torch.manual_seed(SEED)
        return factory()
    except SplitpointError:
        raise
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        what, remedy = _place(error, source)
        raise ModelError(f"{what} ({reason})", remedy) from error
    finally:
        sys.path.remove("")


def _place(error: BaseException, source: str) -> tuple[str, str]:
    """What failed, and the line of the user's files where it did; and the remedy."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    last = next((f for f in reversed(frames) if "importlib" not in f.filename), None)
    if last is not None:
        return f"{source} fails at {last.filename}:{last.lineno}", _CORRECT
    if isinstance(error, ImportError):
        return f"cannot import {source.partition(':')[0]!r}", _NAME_ONE
    return f"{source} fails", _NAME_ONE


def exported_model(path: Path, weights: str) -> ModelSpec:
    """The program in a .pt2 file, which brings its weights and example inputs."""
    if weights not in ("default", "none"):
        raise ModelError("a .pt2 file carries its own weights", "leave --weights out")
    if not path.is_file():
        raise ModelError(f"there is no file {path}", "name a file of torch.export.save")
    try:
        with quiet_torch():
            program = torch.export.load(path)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{path} is no exported program ({reason})",
            "write it with torch.export.save; TorchScript and pickled modules are none",
        ) from error
    if program.example_inputs is None:
        raise ModelError(f"{path} holds no example inputs", "export it with them")
    _check_batch(program, path)
    args, kwargs = program.example_inputs
    return ModelSpec(source=path.name, module=program.module(), args=args, kwargs=kwargs)


def _check_batch(program: ExportedProgram, path: Path) -> None:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    for spec in program.graph_signature.input_specs:
        value = values.get(spec.arg.name)
        if spec.kind is not InputKind.USER_INPUT or not isinstance(value, torch.Tensor):
            continue
        if value.ndim == 0 or isinstance(value.shape[0], int):
            raise ModelError(
                f"{path} was exported for one batch size only: its input {spec.arg.name!r} is "
                f"{list(value.shape)}",
                "export it with dynamic_shapes={'" + spec.arg.name + "': "
                "{0: torch.export.Dim.DYNAMIC}} and an example batch of 2",
            )
