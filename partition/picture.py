"""From an image file to the pixels of boundary 0."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from splitpoint.codec import Array, TensorSpec

from .errors import PictureError


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureInput:
    """How a photo becomes `[height, width, 3]` uint8: shorter side to `resize_px`, centre crop.

    The arithmetic is that of torchvision's `Resize` (bilinear, antialiased) and `CenterCrop`, with
    which the published weights were evaluated.
    """

    resize_px: int
    height_px: int
    width_px: int

    def __post_init__(self) -> None:
        if not 1 <= max(self.height_px, self.width_px) <= self.resize_px <= 16384:
            raise PictureError(f"a crop of {self.height_px}x{self.width_px} of {self.resize_px}")

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
        """Pixels `[height, width, 3]` of any picture (grey and palette ones become RGB)."""
        photo = photo.convert("RGB")
        width, height = photo.size
        short = min(width, height)
        width, height = (int(self.resize_px * side / short) for side in (width, height))
        photo = photo.resize((width, height), Image.Resampling.BILINEAR)
        left = round((width - self.width_px) / 2)
        top = round((height - self.height_px) / 2)
        return np.asarray(photo.crop((left, top, left + self.width_px, top + self.height_px)))

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
        try:
            with Image.open(io.BytesIO(file)) as photo:
                return self.pixels_of(photo)
        except Exception as error:
            raise PictureError(
                f"{name} is no picture that can be decoded", "give a JPEG, PNG or WebP file"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PictureInput:
        """Reads the manifest's form (KeyError or TypeError for a damaged one)."""
        return cls(**{key: int(data[key]) for key in cls.__dataclass_fields__})
