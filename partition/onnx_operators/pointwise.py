"""Operators that compute every value by itself, with numpy's broadcasting."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor

from .node import Node, Operator, simple

_SELU = (1.67326319217681884765625, 1.05070102214813232421875)  # alpha and gamma, as ONNX has them


def _clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    if node.opset < 11:
        return x.clamp(node.get("min"), node.get("max"))
    bounds: list[Any] = [low, high]
    for place, bound in enumerate(bounds):
        if place + 1 in node.constants:
            bounds[place] = node.constants[place + 1].reshape(()).item()
        elif bound is not None:
            bounds[place] = bound.reshape(())
    if any(isinstance(bound, Tensor) for bound in bounds):
        x = x if bounds[0] is None else torch.maximum(x, torch.as_tensor(bounds[0]))
        return x if bounds[1] is None else torch.minimum(x, torch.as_tensor(bounds[1]))
    return x if bounds == [None, None] else x.clamp(*bounds)


def _cast(node: Node, x: Tensor) -> Tensor:
    return x.to(torch_dtype(node, node.get("to")))


def torch_dtype(node: Node, number: int) -> torch.dtype:
    """torch's dtype for ONNX's number of it."""
    try:
        array = np.empty(0, onnx.helper.tensor_dtype_to_np_dtype(number))
        return torch.from_numpy(array).dtype
    except (KeyError, TypeError) as error:
        name = onnx.TensorProto.DataType.Name(number)
        raise node.cannot(f"makes values of type {name}") from error


def _divide(node: Node, a: Tensor, b: Tensor) -> Tensor:
    whole = not (a.is_floating_point() or b.is_floating_point())
    return torch.div(a, b, rounding_mode="trunc") if whole else a / b


def _modulo(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b)


def _power(node: Node, a: Tensor, b: Tensor) -> Tensor:
    constant = node.constants.get(1)
    is_number = constant is not None and constant.size == 1 and constant.ndim <= a.ndim
    if is_number and a.is_floating_point():
        return torch.pow(a, node.number(1, 1.0))
    return torch.pow(a, b).to(a.dtype)


def _prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    """The slope broadcasts against x; one for each channel is torch's own form."""
    if slope.numel() == 1:
        return F.prelu(x, slope.reshape(1))
    if slope.ndim == x.ndim - 1 and x.ndim > 2 and slope.numel() == x.shape[1] == slope.shape[0]:
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x < 0, x * slope, x)


def _over_all(function: Any) -> Operator:
    return Operator(lambda node, *inputs: functools.reduce(function, inputs))


def _mean(node: Node, *inputs: Tensor) -> Any:
    return functools.reduce(torch.add, inputs) / len(inputs)


def _hard_sigmoid(node: Node, x: Tensor) -> Any:
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid(x)
    return (x * alpha + beta).clamp(0, 1)


def _gelu(node: Node, x: Tensor) -> Any:
    return F.gelu(x, approximate=node.get("approximate", "none"))


def _selu(node: Node, x: Tensor) -> Any:
    alpha, gamma = node.get("alpha"), node.get("gamma")
    return (
        F.selu(x) if alpha is gamma is None else (gamma or _SELU[1]) * F.elu(x, alpha or _SELU[0])
    )


def _shrink(node: Node, x: Tensor) -> Tensor:
    bias, edge = node.get("bias", 0.0), node.get("lambd", 0.5)
    zero = torch.zeros_like(x)
    return torch.where(x < -edge, x + bias, torch.where(x > edge, x - bias, zero))


POINTWISE: dict[str, Operator] = {
    "Abs": simple(torch.abs),
    "Acos": simple(torch.acos),
    "Acosh": simple(torch.acosh),
    "Add": simple(torch.add),
    "And": simple(torch.logical_and),
    "Asin": simple(torch.asin),
    "Asinh": simple(torch.asinh),
    "Atan": simple(torch.atan),
    "Atanh": simple(torch.atanh),
    "Cast": Operator(_cast),
    "CastLike": Operator(lambda node, x, like: x.to(like.dtype)),
    "Ceil": simple(torch.ceil),
    "Celu": Operator(lambda node, x: F.celu(x, node.get("alpha", 1.0))),
    "Clip": Operator(_clip),
    "Cos": simple(torch.cos),
    "Cosh": simple(torch.cosh),
    "Div": Operator(_divide),
    "Dropout": Operator(lambda node, x, *rest: x),
    "Elu": Operator(lambda node, x: F.elu(x, node.get("alpha", 1.0))),
    "Equal": simple(torch.eq),
    "Erf": simple(torch.erf),
    "Exp": simple(torch.exp),
    "Floor": simple(torch.floor),
    "Gelu": Operator(_gelu),
    "Greater": simple(torch.gt),
    "GreaterOrEqual": simple(torch.ge),
    "HardSigmoid": Operator(_hard_sigmoid),
    "HardSwish": simple(F.hardswish),
    "Identity": simple(lambda x: x),
    "IsInf": simple(torch.isinf),
    "IsNaN": simple(torch.isnan),
    "LeakyRelu": Operator(lambda node, x: F.leaky_relu(x, node.get("alpha", 0.01))),
    "Less": simple(torch.lt),
    "LessOrEqual": simple(torch.le),
    "Log": simple(torch.log),
    "Max": _over_all(torch.maximum),
    "Mean": Operator(_mean),
    "Min": _over_all(torch.minimum),
    "Mish": simple(F.mish),
    "Mod": Operator(_modulo),
    "Mul": simple(torch.mul),
    "Neg": simple(torch.neg),
    "Not": simple(torch.logical_not),
    "Or": simple(torch.logical_or),
    "PRelu": Operator(_prelu),
    "Pow": Operator(_power),
    "Reciprocal": simple(torch.reciprocal),
    "Relu": simple(F.relu),
    "Round": simple(torch.round),
    "Selu": Operator(_selu),
    "Shrink": Operator(_shrink),
    "Sigmoid": simple(torch.sigmoid),
    "Sign": simple(torch.sign),
    "Sin": simple(torch.sin),
    "Sinh": simple(torch.sinh),
    "Softplus": simple(F.softplus),
    "Softsign": simple(F.softsign),
    "Sqrt": simple(torch.sqrt),
    "Sub": simple(torch.sub),
    "Sum": _over_all(torch.add),
    "Swish": Operator(lambda node, x: x * torch.sigmoid(x * node.get("alpha", 1.0))),
    "Tan": simple(torch.tan),
    "Tanh": simple(torch.tanh),
    "ThresholdedRelu": Operator(lambda node, x: F.threshold(x, node.get("alpha", 1.0), 0.0)),
    "Where": simple(torch.where),
    "Xor": simple(torch.logical_xor),
}
