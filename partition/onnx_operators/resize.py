"""`Resize` and `Upsample`.

torch's own interpolation is taken where it means the same. Else each axis is resized alone, by
picking or mixing two neighbours, whose places and weights are known before a frame comes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .node import Node, Operator


def _resize(
    node: Node, x: Tensor, roi: Any = None, scales: Any = None, sizes: list[int] | None = None
) -> Tensor:
    given = scales or node.get("scales", [])
    sizes = sizes or None
    axes = [a % x.ndim for a in node.get("axes", range(x.ndim))]
    if node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise node.cannot("keeps the aspect ratio")
    if sizes is None and not given:
        raise node.cannot("takes its scale of the values of a tensor")
    wanted: dict[int, tuple[int, float]] = {}  # axis -> extent and scale
    for index, axis in enumerate(axes):
        old: Any = x.shape[axis]
        if axis < 2:
            # The batch and the channels; a fixed batch stands among the sizes as well.
            if (given and given[index] != 1) or (axis == 1 and sizes and sizes[index] != old):
                raise node.cannot("resizes the batch or the channels")
            continue
        new = sizes[index] if sizes is not None else math.floor(old * given[index])
        wanted[axis] = new, new / old if sizes is not None else given[index]
    return _resized(node, x, {a: (n, s) for a, (n, s) in wanted.items() if n != x.shape[a]})


def _resized(node: Node, x: Tensor, wanted: dict[int, tuple[int, float]]) -> Tensor:
    if not wanted:
        return x
    mode = node.get("mode", "nearest")
    upsample = node.opset < 11
    way = "asymmetric" if upsample else node.get("coordinate_transformation_mode", "half_pixel")
    exact = all(n == x.shape[a] * s for a, (n, s) in wanted.items())
    size = [wanted.get(a, (x.shape[a], 1.0))[0] for a in range(2, x.ndim)]
    whole = all(n % x.shape[a] == 0 for a, (n, _) in wanted.items())
    smooth = {1: "linear", 2: "bilinear", 3: "trilinear"}.get(x.ndim - 2)
    halves = way in ("half_pixel", "pytorch_half_pixel") and min(size) > 1
    aligned = way == "align_corners"
    if mode == "nearest":
        if whole and exact and not aligned and _picks_floor(node, way):
            return F.interpolate(x, size, mode="nearest")
    elif node.get("exclude_outside", 0):
        raise node.cannot("leaves out what is outside of the picture")
    elif mode == "linear" and smooth and ((halves and exact) or aligned):
        blur = bool(node.get("antialias", 0))
        return F.interpolate(x, size, mode=smooth, align_corners=aligned, antialias=blur)
    elif mode == "cubic":
        own = node.get("cubic_coeff_a", -0.75) == -0.75 and x.ndim == 4
        if own and ((halves and exact) or aligned):
            blur = bool(node.get("antialias", 0))
            return F.interpolate(x, size, mode="bicubic", align_corners=aligned, antialias=blur)
        raise node.cannot("interpolates in a cubic way that torch has not")
    if node.get("antialias", 0):
        raise node.cannot("is antialiased in a way that torch has not")
    for axis, (new, scale) in wanted.items():
        places = [_place(node, way, i, x.shape[axis], new, scale) for i in range(new)]
        x = _nearest(node, x, axis, places) if mode == "nearest" else _linear(x, axis, places)
    return x


def _picks_floor(node: Node, way: str) -> bool:
    """Whether, for a whole factor, every pixel is repeated so often, as torch does it."""
    rounding = "floor" if node.opset < 11 else node.get("nearest_mode", "round_prefer_floor")
    if way == "asymmetric":
        return bool(rounding == "floor")
    return way in ("half_pixel", "pytorch_half_pixel") and rounding.startswith("round")


def _place(node: Node, way: str, index: int, old: int, new: int, scale: float) -> float:
    """Where in the old axis the new pixel lies."""
    if way == "half_pixel" or (way == "pytorch_half_pixel" and new > 1):
        return (index + 0.5) / scale - 0.5
    if way == "pytorch_half_pixel":
        return 0.0
    if way == "align_corners":
        return index * (old - 1) / (new - 1) if new > 1 else 0.0
    if way == "asymmetric":
        return index / scale
    raise node.cannot(f"has the coordinates {way!r}")


def _nearest(node: Node, x: Tensor, axis: int, places: list[float]) -> Tensor:
    rounding = "floor" if node.opset < 11 else node.get("nearest_mode", "round_prefer_floor")
    rounded = {
        "floor": math.floor,
        "ceil": math.ceil,
        "round_prefer_floor": lambda v: math.ceil(v - 0.5),
        "round_prefer_ceil": lambda v: math.floor(v + 0.5),
    }[rounding]
    last = x.shape[axis] - 1
    return x.index_select(axis, torch.tensor([min(max(rounded(p), 0), last) for p in places]))


def _linear(x: Tensor, axis: int, places: list[float]) -> Tensor:
    last = x.shape[axis] - 1
    inside = [min(max(p, 0.0), float(last)) for p in places]
    lower = [min(int(p), last) for p in inside]
    upper = [min(i + 1, last) for i in lower]
    shape = [1] * x.ndim
    shape[axis] = len(places)
    share = torch.tensor([p - i for p, i in zip(inside, lower, strict=True)], dtype=x.dtype)
    a, b = (x.index_select(axis, torch.tensor(i)) for i in (lower, upper))
    return torch.lerp(a, b, share.reshape(shape))


def _upsample(node: Node, x: Tensor, scales: Any = None) -> Tensor:
    return _resize(node, x, None, scales)


def _resize_of_version(node: Node, x: Tensor, *rest: Any) -> Tensor:
    return _resize(node, x, None, *rest) if node.opset < 11 else _resize(node, x, *rest)


RESIZE: dict[str, Operator] = {
    "Resize": Operator(_resize_of_version, sizes=(1, 2, 3)),
    "Upsample": Operator(_upsample, sizes=(1,)),
}
