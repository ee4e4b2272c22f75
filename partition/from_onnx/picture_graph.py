"""A graph that takes pictures: which of its dimensions is what, and the size that it gets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelError
from .graph_input import declared, dtype_of, shape_shown

_AS_ARRAYS = "leave the picture's options out, and run it on arrays"


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureGraph:
    """What the only input of a graph holds: pictures of this size, with the channels where."""

    height_px: int
    width_px: int
    channels_last: bool


def takes_pictures(model: Any, path: Path) -> bool:
    """Whether the graph has one input, of floats in three channels."""
    (value, *others) = declared(model) or [None]
    if value is None or others or dtype_of(value, path) != np.float32:
        return False
    shown = shape_shown(value)
    return len(shown) == 4 and 3 in (shown[1], shown[3])


def picture_graph(
    model: Any, path: Path, size_px: tuple[int, int] | None, usual_px: tuple[int, int] | None
) -> PictureGraph:
    """The graph's input as pictures of `size_px` (height, width); its record of it gets that size.

    None: of the size that it has, and else of the `usual_px`. Raises `ModelError` where the input
    is no picture, or has no size.
    """
    values = declared(model)
    if len(values) != 1:
        raise ModelError(f"{path} takes {len(values)} inputs, and not a picture alone", _AS_ARRAYS)
    shown, dtype = shape_shown(values[0]), dtype_of(values[0], path)
    if not takes_pictures(model, path):
        raise ModelError(
            f"the input {values[0].name!r} of {path} is {dtype} {shown}, and no picture: "
            "[batch, 3, height, width] or [batch, height, width, 3] of floats",
            _AS_ARRAYS,
        )
    channels_last = shown[1] != 3
    first = 1 if channels_last else 2
    own = [size for size in shown[first : first + 2] if isinstance(size, int)]
    own_px = (own[0], own[1]) if len(own) == 2 else None
    found = size_px or own_px or usual_px
    if found is None:
        raise ModelError(
            f"the input {values[0].name!r} of {path} is {shown}: it leaves the pictures' size free",
            "say which it is to be: --input-size HEIGHTxWIDTH",
        )
    kind = values[0].type.tensor_type
    for dim, size in zip(kind.shape.dim[first : first + 2], found, strict=True):
        dim.dim_value = size
    if found != own_px:
        for output in model.graph.output:  # their sizes follow from it
            output.type.tensor_type.ClearField("shape")
    return PictureGraph(height_px=found[0], width_px=found[1], channels_last=channels_last)
