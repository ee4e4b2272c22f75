"""Convolutions, products of matrices, and normalisations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .node import Node, Operator, axis_of, simple
from .padding import padded, pads_of


def _conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    spatial = x.ndim - 2
    if not 1 <= spatial <= 3:
        raise node.cannot(f"convolves {spatial} dimensions")
    stride = node.get("strides", [1] * spatial)
    dilation = node.get("dilations", [1] * spatial)
    before, after = pads_of(node, x, list(weight.shape[2:]), stride, dilation)
    if before != after:
        x, before = padded(x, before, after, 0.0), [0] * spatial
    function = (F.conv1d, F.conv2d, F.conv3d)[spatial - 1]
    return function(x, weight, bias, stride, before, dilation, node.get("group", 1))


def _conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    spatial = x.ndim - 2
    if not 1 <= spatial <= 3:
        raise node.cannot(f"convolves {spatial} dimensions")
    stride = node.get("strides", [1] * spatial)
    dilation = node.get("dilations", [1] * spatial)
    extra = node.get("output_padding", [0] * spatial)
    pads = node.get("pads", [0] * 2 * spatial)
    if node.get("output_shape") is not None or node.get("auto_pad", "NOTSET") != "NOTSET":
        raise node.cannot("takes its padding from the shape of its output")
    before, after = pads[:spatial], pads[spatial:]
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[spatial - 1]
    groups = node.get("group", 1)
    if before == after:
        return function(x, weight, bias, stride, before, extra, groups, dilation)
    y = function(x, weight, bias, stride, 0, extra, groups, dilation)
    return padded(y, [-p for p in before], [-p for p in after], 0.0)


def _gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Any:
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    a = a.t() if node.get("transA", 0) else a
    weight = b if node.get("transB", 0) else b.t()
    if c is not None and c.numel() == c.shape[-1] == weight.shape[0]:
        c = c.reshape(-1)
    if alpha == 1 and (c is None or (beta == 1 and c.ndim == 1 and len(c) == weight.shape[0])):
        return F.linear(a, weight, c)
    product = F.linear(a, weight) * alpha
    return product if c is None else product + c * beta


def _batch_norm(
    node: Node, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    if node.get("training_mode", 0):
        raise node.cannot("is in training mode", "export the model in eval mode")
    return F.batch_norm(x, mean, variance, scale, shift, False, 0.0, node.get("epsilon", 1e-5))


def _instance_norm(node: Node, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=shift, eps=node.get("epsilon", 1e-5))


def _layer_norm(node: Node, x: Tensor, scale: Tensor, shift: Tensor | None = None) -> Tensor:
    shape = list(x.shape[axis_of(node, x, -1) :])
    epsilon = node.get("epsilon", 1e-5)
    if list(scale.shape) == shape and (shift is None or list(shift.shape) == shape):
        return F.layer_norm(x, shape, scale, shift, epsilon)
    y = F.layer_norm(x, shape, eps=epsilon) * scale
    return y if shift is None else y + shift


def _rms_norm(node: Node, x: Tensor, scale: Tensor) -> Tensor:
    axes = list(range(axis_of(node, x, -1), x.ndim))
    mean = x.square().mean(axes, keepdim=True)
    return x * torch.rsqrt(mean + node.get("epsilon", 1e-5)) * scale


def _group_norm(node: Node, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    groups = node.get("num_groups")
    if node.opset < 21:  # a value a group, not a channel
        scale, shift = (v.repeat_interleave(x.shape[1] // groups) for v in (scale, shift))
    return F.group_norm(x, groups, scale, shift, node.get("epsilon", 1e-5))


def _local_response_norm(node: Node, x: Tensor) -> Tensor:
    alpha, beta = node.get("alpha", 1e-4), node.get("beta", 0.75)
    return F.local_response_norm(x, node.get("size"), alpha, beta, node.get("bias", 1.0))


def _lp_norm(node: Node, x: Tensor) -> Tensor:
    return F.normalize(x, p=node.get("p", 2), dim=axis_of(node, x, -1))


def _einsum(node: Node, *inputs: Tensor) -> Tensor:
    return torch.einsum(node.get("equation"), *inputs)


WEIGHTED: dict[str, Operator] = {
    "BatchNormalization": Operator(_batch_norm),
    "Conv": Operator(_conv),
    "ConvTranspose": Operator(_conv_transpose),
    "Einsum": Operator(_einsum),
    "Gemm": Operator(_gemm),
    "GroupNormalization": Operator(_group_norm),
    "InstanceNormalization": Operator(_instance_norm),
    "LRN": Operator(_local_response_norm),
    "LayerNormalization": Operator(_layer_norm),
    "LpNormalization": Operator(_lp_norm),
    "MatMul": simple(torch.matmul),
    "RMSNormalization": Operator(_rms_norm),
}
