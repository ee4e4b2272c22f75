"""Which part of a source's pictures counts, and whether anything in it has changed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from splitpoint.codec import Array
from splitpoint.partition.errors import PictureError
from splitpoint.partition.photo import read_photo

from ..errors import SourceError

# Pictures are compared as this many grey cells: noise of single pixels averages out.
CELLS = (64, 48)
# Of 255: more than a camera's noise leaves of a cell, less than a person behind it changes.
CHANGED = 12


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of a picture, in pixels of it."""

    left_px: int
    top_px: int
    width_px: int
    height_px: int

    @classmethod
    def parse(cls, text: str) -> Region:
        """`x,y,w,h`; `SourceError` for anything else."""
        parts = text.split(",")
        if len(parts) == 4 and all(part.strip().isdecimal() for part in parts):
            found = cls(*(int(part) for part in parts))
            if found.width_px and found.height_px:
                return found
        raise SourceError(f"{text[:40]!r} is no region", "give x,y,width,height in pixels")

    def of(self, photo: Image.Image) -> Image.Image:
        """The part of a photo; `PictureError` where it reaches beyond."""
        right, bottom = self.left_px + self.width_px, self.top_px + self.height_px
        if right > photo.width or bottom > photo.height:
            raise PictureError(
                f"the region {self.left_px},{self.top_px},{self.width_px},{self.height_px} reaches "
                f"beyond the picture of {photo.width}x{photo.height}",
                "give one that lies inside",
            )
        return photo.crop((self.left_px, self.top_px, right, bottom))


class Mask:
    """What is black in a picture is hidden from the model: a neighbour's window, a street.

    Raises `PictureError` for a file that is no picture.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._shown = path, read_photo(path).convert("L").point(_black_or_white)

    def of(self, photo: Image.Image) -> Image.Image:
        """The photo with grey in place of what is hidden; `PictureError` for another size."""
        if photo.size != self._shown.size:
            own, other = ("x".join(map(str, size)) for size in (self._shown.size, photo.size))
            raise PictureError(
                f"the mask {self._path} is of {own}, the picture of {other}",
                "give a mask of the picture's size",
            )
        return Image.composite(photo, Image.new("RGB", photo.size, (128, 128, 128)), self._shown)


def _black_or_white(value: int) -> int:
    return 255 if value >= 128 else 0


class Motion:
    """Whether a picture differs from the last one that did.

    It does where more than `percent` of its area has changed, but not if all of it became a little
    lighter or darker. Comparing with the last one that went through, and not with the one before,
    keeps what moves slowly from being missed.
    """

    def __init__(self, percent: float) -> None:
        self._share = percent / 100
        self._last: Array | None = None

    def in_(self, photo: Image.Image) -> bool:
        """Whether there is any; the first picture always has."""
        small = photo.convert("L").resize(CELLS, Image.Resampling.BOX)
        cells = np.asarray(small, np.int16)
        if self._last is not None:
            change = cells - self._last
            change = np.abs(change - np.median(change))
            if np.mean(change > CHANGED) <= self._share:
                return False
        self._last = cells
        return True


def motion_of(text: str) -> Motion:
    """By the percent of the area that have to change; `SourceError` for what is none."""
    try:
        percent = float(text)
    except ValueError:
        percent = math.nan
    if not 0 <= percent < 100:
        raise SourceError(f"{text[:40]!r} is no share of a picture", "give percent, like 0.5")
    return Motion(percent)


@dataclass(slots=True, kw_only=True)
class Lens:
    """What of each picture of one source is looked at; by default all of it."""

    region: Region | None = None
    mask: Mask | None = None
    motion: Motion | None = None
    corner_px: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        region = self.region
        self.corner_px = (0, 0) if region is None else (region.left_px, region.top_px)

    def part_of(self, photo: Image.Image) -> Image.Image:
        """What the model sees; `PictureError` where mask or region do not fit the picture."""
        if self.mask is not None:
            photo = self.mask.of(photo)
        return photo if self.region is None else self.region.of(photo)

    def still(self, part: Image.Image) -> bool:
        """Whether nothing has changed in it."""
        return self.motion is not None and not self.motion.in_(part)
