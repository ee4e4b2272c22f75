"""How a picture becomes the input of a model that does not say it itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ModelError
from ..model_spec import CHANNEL_ORDERS
from ..picture import MAX_SIDE_PX


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureOptions:
    """The model's input is `(pixel * scale - mean) / std`, pixels being 0 to 255.

    `mean` and `std` are those of the channels in the `order` in which the model takes them, rgb or
    bgr; None leaves them at what is usual for its source. `size_px` is (height, width); None takes
    what the file says. Raises `ModelError` for numbers that cannot be these.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float = 1 / 255
    order: str = "rgb"
    size_px: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.order not in CHANNEL_ORDERS:
            known = " or ".join(CHANNEL_ORDERS)
            raise ModelError(f"unknown order of channels {self.order[:40]!r}", f"use {known}")
        mean, std = self.mean or (0.0,) * 3, self.std or (1.0,) * 3
        if len(mean) != 3 or len(std) != 3:
            raise ModelError("a mean or deviation without 3 values", "give one for each channel")
        if not all(map(math.isfinite, (*mean, *std, self.scale))):
            raise ModelError("a mean, deviation or scale that is no number", "give finite ones")
        if not (min(std) > 0 and self.scale > 0):
            raise ModelError("a deviation or scale of 0 or less", "give positive ones")
        if self.size_px is not None and not all(1 <= n <= MAX_SIDE_PX for n in self.size_px):
            height, width = self.size_px
            raise ModelError(f"pictures of {height}x{width}", f"give sides of 1 to {MAX_SIDE_PX}")
