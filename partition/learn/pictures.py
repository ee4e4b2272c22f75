"""Which pictures are trained on, which say when to stop, and which judge; and crops of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from splitpoint.codec import Array

from ..bundle.samples import evenly, find_pictures
from ..errors import LearnError, PictureError
from ..photo import read_photo
from ..picture import PictureInput

MIN_PICTURES, MIN_JUDGING = 200, 20
# A tenth of the pictures each, within these bounds.
STOPPING, JUDGING = (20, 100), (40, 200)
_SMALLEST_SHARE, _ASPECT = 0.3, 0.25  # of a crop: its part of the photo, and the aspect's logarithm


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureShares:
    """Files, of which none is in two of the lists."""

    training: tuple[Path, ...]
    stopping: tuple[Path, ...]
    judging: tuple[Path, ...]

    @classmethod
    def of(cls, source: str, judge: str = "") -> PictureShares:
        """Of a file, folder or glob. With `judge` the judging ones are those that it names.

        Raises `LearnError` for too few of them, `PictureError` for none.
        """
        found = find_pictures(source)
        judging: Sequence[Path] = find_pictures(judge) if judge else ()
        known = {path.resolve() for path in judging}
        found = [path for path in found if path.resolve() not in known]
        if len(found) < MIN_PICTURES:
            but = " beside those that judge" if judging else ""
            raise LearnError(
                f"{len(found)} pictures{but} are too few to learn from",
                f"give at least {MIN_PICTURES}, better thousands; they need no labels",
            )
        if judging and len(judging) < MIN_JUDGING:
            raise LearnError(
                f"{len(judging)} pictures are too few to judge on",
                f"give --judge at least {MIN_JUDGING}, better a hundred",
            )
        # Runs of neighbours, which are often frames of one film: but for a run's ends, no frame is
        # judged whose twin was trained on.
        quarter, tenth = len(found) // 4, len(found) // 10
        stopping = _run(found, quarter, _within(tenth, STOPPING))
        if not judging:
            count = _within(tenth, JUDGING)
            judging = [*_run(found, 2 * quarter, count // 2), *found[-(count - count // 2) :]]
        held = {*stopping, *judging}
        return cls(
            training=tuple(path for path in found if path not in held),
            stopping=tuple(stopping),
            judging=tuple(evenly(judging, JUDGING[1])),
        )


def _within(count: int, bounds: tuple[int, int]) -> int:
    return min(max(count, bounds[0]), bounds[1])


def _run(found: Sequence[Path], start: int, count: int) -> Sequence[Path]:
    return found[start : start + count]


def check_pictures(pictures: PictureShares, advance: Callable[[int, int], None]) -> None:
    """Decodes each of them once; `LearnError` names those that are no pictures.

    Hours later it would be the first of them alone.
    """
    files = (*pictures.training, *pictures.stopping, *pictures.judging)
    bad = []
    for number, path in enumerate(files):
        advance(number, len(files))
        try:
            read_photo(path)
        except PictureError:
            bad.append(path.name)
    if bad:
        shown = ", ".join(bad[:5]) + f" and {len(bad) - 5} more" * (len(bad) > 5)
        raise LearnError(
            f"{len(bad)} of {len(files)} files are no pictures that can be decoded ({shown})",
            "remove them, or give a folder of good ones",
        )


def pixels(picture: PictureInput, path: Path) -> Array:
    """What the camera would send, uint8 `[height, width, 3]`."""
    return picture.pixels_of(read_photo(path))


def crop(picture: PictureInput, path: Path, rng: np.random.Generator) -> Array:
    """A random part of a photo, resized to the model's input, and mirrored in half of the cases."""
    photo = read_photo(path)
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
