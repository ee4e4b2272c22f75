"""From an image file to the pixels of boundary 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from splitpoint.codec import Array, TensorSpec

from .errors import PictureError
from .photo import open_photo

MAX_SIDE_PX = 16384
# Pillow's filters, and how far they reach, in pixels of the smaller of the two pictures.
_FILTERS = {
    "bilinear": (Image.Resampling.BILINEAR, 1),
    "bicubic": (Image.Resampling.BICUBIC, 2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureInput:
    """How a photo becomes `[height, width, 3]` uint8: shorter side to `resize_px`, centre crop.

    A crop that is not square may be wider than that: then the photo is enlarged until it just
    covers the crop, so that a 4:3 photo loses nothing to a crop of 640x480 with `resize_px` 480.

    The arithmetic is that of torchvision's `Resize` (antialiased, `interpolation` bilinear or
    bicubic) and `CenterCrop`, with which the published weights were evaluated. Only what the crop
    shows is resized, so that values may differ by one or two, or by a few where a bicubic one was
    cut off at 0 or 255 on the way. What becomes of photos that are not RGB, or not upright, is in
    photo.py.
    """

    resize_px: int
    height_px: int
    width_px: int
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        crop = (self.height_px, self.width_px)
        if not 1 <= min(crop) <= self.resize_px <= MAX_SIDE_PX or max(crop) > MAX_SIDE_PX:
            raise PictureError(
                f"a crop of {self.height_px}x{self.width_px} of {self.resize_px} pixels",
                f"resize_px is the photo's shorter side: from {min(crop)} to {MAX_SIDE_PX}",
            )
        if self.interpolation not in _FILTERS:
            raise PictureError(
                f"unknown interpolation {str(self.interpolation)[:40]!r}",
                f"use {' or '.join(_FILTERS)}",
            )

    @property
    def spec(self) -> TensorSpec:
        """The tensor of boundary 0."""
        return TensorSpec(
            name="pixels",
            dtype="uint8",
            shape=(1, self.height_px, self.width_px, 3),
            batch_dim=0,
        )

    def pixels_of(self, photo: Image.Image) -> Array:
        """Pixels `[height, width, 3]` of an RGB photo.

        Only the part of it that the crop shows is resized: a photo of 60000x3 would first become
        one of 5,000,000x256. Rows first and then columns, in two calls, because Pillow chooses the
        order by the cost, and bicubic values are cut off at 0 and 255 in between.
        """
        kind, support = _FILTERS[self.interpolation]
        size = self._resized(*photo.size)
        left, top = (round((s - c) / 2) for s, c in zip(size, self._crop, strict=True))
        x, y = (whole / s for whole, s in zip(photo.size, size, strict=True))
        right = min((left + self.width_px) * x, photo.width)
        upper, lower = top * y, min((top + self.height_px) * y, photo.height)
        margin = support * max(y, 1.0) + 1
        first, last = max(int(upper - margin), 0), min(int(lower + margin) + 1, photo.height)
        rows = photo.resize((self.width_px, last - first), kind, (left * x, first, right, last))
        shown = (0, upper - first, self.width_px, lower - first)
        return np.asarray(rows.resize(self._crop, kind, shown))

    @property
    def _crop(self) -> tuple[int, int]:
        return self.width_px, self.height_px

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the resized photo, of which the crop is cut."""
        short = min(width, height)
        found = int(self.resize_px * width / short), int(self.resize_px * height / short)
        if found[0] >= self.width_px and found[1] >= self.height_px:
            return found
        scale = max(self.width_px / width, self.height_px / height)
        return (
            max(round(width * scale), self.width_px),
            max(round(height * scale), self.height_px),
        )

    def pixels_of_array(self, rgb: Array) -> Array:
        """Pixels of a decoded picture of any size, RGB uint8 `[height, width, 3]`."""
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
            raise PictureError(
                f"an array {rgb.dtype} {list(rgb.shape)} is no picture",
                "give RGB uint8 [height, width, 3]",
            )
        return self.pixels_of(Image.fromarray(np.ascontiguousarray(rgb)))

    def read(self, path: Path) -> Array:
        """Pixels of an image file; `PictureError` for a file that is none."""
        try:
            return self.decode(path.read_bytes(), str(path))
        except OSError as error:
            raise PictureError(f"cannot read {path}: {error.strerror or error}") from error

    def decode(self, file: bytes, name: str) -> Array:
        """Pixels of an encoded picture; `name` is for the message of the `PictureError`."""
        return self.pixels_of(open_photo(file, name))

    def to_json(self) -> dict[str, Any]:
        """The manifest's form; without the interpolation it is bilinear, as in older bundles."""
        found = asdict(self)
        if self.interpolation == "bilinear":
            del found["interpolation"]
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PictureInput:
        """Reads the manifest's form (KeyError or TypeError for a damaged one)."""
        sides = {key: int(data[key]) for key in ("resize_px", "height_px", "width_px")}
        return cls(**sides, interpolation=data.get("interpolation", "bilinear"))
