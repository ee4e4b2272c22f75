"""Which pictures are trained on, which say when to stop, and which judge; and crops of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from splitpoint.codec import Array

from ..bundle.samples import evenly, find_pictures
from ..errors import LearnError, PictureError
from ..photo import read_photo
from ..picture import PictureInput

MIN_PICTURES = 60
MOST_STOPPING, MOST_JUDGING = 100, 200
# Of twenty pieces of the sorted files. Neighbours are often frames of one film: pieces keep them on
# one side, but for their ends.
_PIECES, _STOPPING, _JUDGING = 20, (4, 14), (9, 19)
_SMALLEST_SHARE, _ASPECT = 0.3, 0.25  # of a crop: its part of the photo, and the aspect's logarithm


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Files, of which none is in two of the lists."""

    training: tuple[Path, ...]
    stopping: tuple[Path, ...]
    judging: tuple[Path, ...]

    @classmethod
    def of(cls, source: str, judge: str = "") -> Pictures:
        """Of a file, folder or glob. With `judge` the judging ones are those that it names.

        Raises `LearnError` for too few of them, `PictureError` for none.
        """
        found = find_pictures(source)
        judging: Sequence[Path] = find_pictures(judge) if judge else ()
        known = {path.resolve() for path in judging}
        found = [path for path in found if path.resolve() not in known]
        if len(found) < MIN_PICTURES:
            raise LearnError(
                f"{len(found)} pictures are too few to learn from",
                f"give at least {MIN_PICTURES}, better thousands; they need no labels",
            )
        pieces = np.array_split(np.arange(len(found)), _PIECES)
        stopping = [found[i] for piece in _STOPPING for i in pieces[piece]]
        if not judging:
            judging = [found[i] for piece in _JUDGING for i in pieces[piece]]
        held = {*stopping, *judging}
        return cls(
            training=tuple(path for path in found if path not in held),
            stopping=tuple(evenly(stopping, MOST_STOPPING)),
            judging=tuple(evenly(judging, MOST_JUDGING)),
        )


def pixels(picture: PictureInput, path: Path) -> Array:
    """What the camera would send, uint8 `[height, width, 3]`; `LearnError` for a bad file."""
    return picture.pixels_of(_photo(path))


def crop(picture: PictureInput, path: Path, rng: np.random.Generator) -> Array:
    """A random part of a photo, resized to the model's input, and mirrored in half of the cases."""
    photo = _photo(path)
    size = (picture.width_px, picture.height_px)
    box = _part(photo.size, size[0] / size[1], rng)
    kind = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    part = photo.resize(size, kind[picture.interpolation], box, reducing_gap=2.0)
    found = np.asarray(part)
    return np.ascontiguousarray(found[:, ::-1]) if rng.random() < 0.5 else found


def _part(
    photo: tuple[int, int], aspect: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Left, upper, right and lower edge of a random part of about the model's aspect."""
    width, height = photo
    area = width * height * rng.uniform(_SMALLEST_SHARE, 1)
    aspect *= float(np.exp(rng.uniform(-_ASPECT, _ASPECT)))
    across, down = min((area * aspect) ** 0.5, width), min((area / aspect) ** 0.5, height)
    left, upper = rng.uniform(0, width - across), rng.uniform(0, height - down)
    return left, upper, left + across, upper + down


def _photo(path: Path) -> Image.Image:
    try:
        return read_photo(path)
    except PictureError as error:
        raise LearnError(str(error), "remove it, or give a folder of good ones") from error
