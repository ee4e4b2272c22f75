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
from .photo import open_photo, read_photo
from .view import View

MAX_SIDE_PX = 16384
RESIZES = ("crop", "letterbox", "pad", "stretch")
# Pillow's filters, and how far they reach, in pixels of the smaller of the two pictures.
_FILTERS = {
    "bilinear": (Image.Resampling.BILINEAR, 1),
    "bicubic": (Image.Resampling.BICUBIC, 2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureInput:
    """How a photo becomes `[height, width, 3]` uint8.

    | `resize` | what becomes of a photo |
    | --- | --- |
    | crop | its shorter side is resized to `resize_px`, then the middle is cut out |
    | letterbox | as large as fits, in the middle; around it is `fill`, from 0 to 255 |
    | pad | the same, but in the upper left corner |
    | stretch | resized to just that size, whatever its shape |

    A crop that is not square may be wider than `resize_px` makes the photo: then the photo is
    enlarged until it just covers the crop, so that a 4:3 photo loses nothing to a crop of 640x480
    with `resize_px` 480. 0 stands for the crop's own shorter side.

    The arithmetic of a crop is that of torchvision's `Resize` (antialiased, `interpolation`
    bilinear or bicubic) and `CenterCrop`, with which the published weights were evaluated. Only
    what the crop shows is resized, so that values may differ by one or two, or by a few where a
    bicubic one was cut off at 0 or 255 on the way. What becomes of photos that are not RGB, or not
    upright, is in photo.py.
    """

    height_px: int
    width_px: int
    resize: str = "crop"
    resize_px: int = 0
    interpolation: str = "bilinear"
    fill: int = 114

    def __post_init__(self) -> None:
        size = (self.height_px, self.width_px)
        if self.resize not in RESIZES:
            raise PictureError(
                f"unknown resizing {str(self.resize)[:40]!r}", f"use {', '.join(RESIZES)}"
            )
        if self.resize == "crop" and not self.resize_px:
            object.__setattr__(self, "resize_px", min(size))
        if not 1 <= min(size) <= max(size) <= MAX_SIDE_PX or not 0 <= self.fill <= 255:
            raise PictureError(
                f"an input of {self.height_px}x{self.width_px} pixels, filled with {self.fill}",
                f"give sides from 1 to {MAX_SIDE_PX}, and 0 to 255 to fill with",
            )
        if self.resize == "crop" and not min(size) <= self.resize_px <= MAX_SIDE_PX:
            raise PictureError(
                f"a crop of {self.height_px}x{self.width_px} of {self.resize_px} pixels",
                f"resize_px is the photo's shorter side: from {min(size)} to {MAX_SIDE_PX}",
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

    def view_of(self, width: int, height: int) -> View:
        """What the input shows of a photo of so many pixels."""
        return View.of((width, height), self._resized(width, height), self._place(width, height),
                       self._size)  # fmt: skip

    def pixels_of(self, photo: Image.Image) -> Array:
        """Pixels `[height, width, 3]` of an RGB photo."""
        if self.resize == "crop":
            return self._cropped(photo)
        kind, _ = _FILTERS[self.interpolation]
        resized = np.asarray(photo.resize(self._resized(*photo.size), kind))
        found = np.full((self.height_px, self.width_px, 3), self.fill, np.uint8)
        left, top = self._place(*photo.size)
        found[top : top + resized.shape[0], left : left + resized.shape[1]] = resized
        return found

    def _cropped(self, photo: Image.Image) -> Array:
        """Only the part of a photo that the crop shows is resized.

        A photo of 60000x3 would first become one of 5,000,000x256. Rows first and then columns, in
        two calls, because Pillow chooses the order by the cost, and bicubic values are cut off at 0
        and 255 in between.
        """
        kind, support = _FILTERS[self.interpolation]
        size = self._resized(*photo.size)
        left, top = (-place for place in self._place(*photo.size))
        x, y = (whole / s for whole, s in zip(photo.size, size, strict=True))
        right = min((left + self.width_px) * x, photo.width)
        upper, lower = top * y, min((top + self.height_px) * y, photo.height)
        margin = support * max(y, 1.0) + 1
        first, last = max(int(upper - margin), 0), min(int(lower + margin) + 1, photo.height)
        rows = photo.resize((self.width_px, last - first), kind, (left * x, first, right, last))
        shown = (0, upper - first, self.width_px, lower - first)
        return np.asarray(rows.resize(self._size, kind, shown))

    @property
    def _size(self) -> tuple[int, int]:
        return self.width_px, self.height_px

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the resized photo."""
        if self.resize == "stretch":
            return self._size
        if self.resize != "crop":
            scale = min(self.width_px / width, self.height_px / height)
            return max(round(width * scale), 1), max(round(height * scale), 1)
        short = min(width, height)
        found = int(self.resize_px * width / short), int(self.resize_px * height / short)
        if found[0] >= self.width_px and found[1] >= self.height_px:
            return found
        scale = max(self.width_px / width, self.height_px / height)
        return (
            max(round(width * scale), self.width_px),
            max(round(height * scale), self.height_px),
        )

    def _place(self, width: int, height: int) -> tuple[int, int]:
        """Where the resized photo's upper left corner lies in the input: x and y."""
        resized = zip(self._size, self._resized(width, height), strict=True)
        if self.resize == "crop":
            x, y = (-round((whole - own) / 2) for own, whole in resized)
        elif self.resize == "letterbox":
            x, y = ((own - whole) // 2 for own, whole in resized)
        else:
            x, y = 0, 0
        return x, y

    def read(self, path: Path) -> Array:
        """Pixels of an image file; `PictureError` for a file that is none."""
        return self.pixels_of(read_photo(path))

    def decode(self, file: bytes, name: str) -> Array:
        """Pixels of an encoded picture; `name` is for the message of the `PictureError`."""
        return self.pixels_of(open_photo(file, name))

    def to_json(self) -> dict[str, Any]:
        """The manifest's form: what is as in the oldest bundles is left out."""
        found = asdict(self)
        for key, usual in (("resize", "crop"), ("interpolation", "bilinear"), ("fill", 114)):
            if found[key] == usual:
                del found[key]
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PictureInput:
        """Reads the manifest's form (KeyError or TypeError for a damaged one)."""
        sides = {key: int(data[key]) for key in ("resize_px", "height_px", "width_px")}
        return cls(
            **sides,
            resize=data.get("resize", "crop"),
            interpolation=data.get("interpolation", "bilinear"),
            fill=int(data.get("fill", 114)),
        )
