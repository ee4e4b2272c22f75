"""Modules that no export should be tried on, and what to give instead."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch

from ..errors import ModelError


def check_module(module: Any) -> None:
    """Raises `ModelError`, naming the part that is wrong, before anything of it runs."""
    if isinstance(module, functools.partial):
        bound = ", ".join(module.keywords) or "what it binds"
        raise ModelError(
            "the model is a functools.partial, which is no torch module",
            f"give the module, and {bound} in the ModelSpec's kwargs; numbers become constants",
        )
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"the model is {type(module).__name__}, which is no torch module",
            "give a torch.nn.Module; a function needs one around it",
        )
    for name, part in module.named_modules():
        where = f"the part {name!r} is" if name else "the model is"
        kind = type(part)
        if isinstance(part, torch.jit.ScriptModule):
            raise ModelError(
                f"{where} TorchScript ({kind.__name__})",
                "give the Python module that it was made of; TorchScript has no graph to export",
            )
        if ".nn.quantized" in kind.__module__ or "torch.ao.nn.intrinsic.q" in kind.__module__:
            raise ModelError(
                f"{where} quantised already ({kind.__module__}.{kind.__name__})",
                "give the float model; `--calibrate DIR --int8` makes segments in INT8",
            )
        _check_modes(where, part)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.device.type != "cpu":
            raise ModelError(
                f"the weight {name!r} is on the device {tensor.device}",
                "load real weights to the CPU: model.to('cpu')",
            )


def _check_modes(where: str, part: torch.nn.Module) -> None:
    """`YOLO(...).train` trains: such a method must not be called, which `eval()` does."""
    kind = type(part)
    train, evaluate = _parameters(kind.train), _parameters(kind.eval)
    first, others = train[:1], [*train[1:], *evaluate]
    has_mode = any(
        p.name == "mode" or isinstance(p.default, bool) or p.annotation in (bool, "bool")
        for p in first
    )
    if has_mode and not any(map(_must_be_given, others)):
        return
    wrong = "eval" if has_mode and not any(map(_must_be_given, train[1:])) else "train"
    shown = ", ".join(
        str(p.replace(annotation=p.empty)) for p in (evaluate if wrong == "eval" else train)
    )
    inner = [name for name, _ in part.named_children()]
    inner.sort(key=lambda name: name != "model")
    raise ModelError(
        f"{where} {kind.__name__}, whose {wrong}({shown}) is not torch's: "
        "calling it may start a training",
        f"return its `{inner[0]}`, a plain torch module"
        if inner
        else "return the module inside it",
    )


def _parameters(method: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(method).parameters.values())[1:]  # without self


def _must_be_given(parameter: inspect.Parameter) -> bool:
    variadic = (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and parameter.kind not in variadic
