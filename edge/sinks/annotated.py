"""Pictures with what was found drawn on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from splitpoint.codec import Array
from splitpoint.partition.view import UNSEEN

from ..errors import AgentError
from ..meaning import MIN_SCORE, class_label, class_map, classes_in, things_in
from ..result import Result
from ..sources.source import Origin

# Told apart by most people who confuse red and green: Okabe and Ito, "Color universal design"
# (2008), without black and yellow, which vanish on photos.
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (0, 114, 178), (213, 94, 0),
           (204, 121, 167))  # fmt: skip
TASKS = ("classify", "detect", "segment")
_OPACITY = 0.45  # of the areas of a segmenter
_QUALITY = 92
_NAME_BYTES = 100


class AnnotatedPictures:
    """A sink that writes DIR/ID-NAME.jpg: the whole photo, with boxes, areas or the first class.

    Frames without an answer, or whose input was no photo, are left out. Raises `AgentError` for a
    `task` that gives nothing to draw.
    """

    def __init__(self, folder: Path, task: str, min_score: float = MIN_SCORE) -> None:
        if task not in TASKS:
            raise AgentError(
                "nothing says what the outputs of this model mean",
                "compile it with --task, or leave --save-annotated out",
            )
        self._folder, self._drawing = folder, Drawing(task, min_score)
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, result: Result) -> None:
        """Writes a picture."""
        origin = result.metadata
        if not isinstance(origin, Origin) or origin.picture is None or not result.outputs:
            return
        name = Path(origin.name).stem.encode()[:_NAME_BYTES].decode(errors="ignore")
        drawn = self._drawing.drawn(result, origin, origin.picture)
        drawn.save(self._folder / f"{result.id:06}-{name or 'frame'}.jpg", quality=_QUALITY)

    def close(self) -> None:
        """Each picture is written already."""


class Drawing:
    """Draws what a `task` has found on its photos; for a task that is not known, nothing."""

    def __init__(self, task: str, min_score: float = MIN_SCORE) -> None:
        self._task, self._min_score = task, min_score

    def drawn(self, result: Result, origin: Origin, picture: Array) -> Image.Image:
        """The photo, RGB uint8 `[height, width, 3]`, with what was found in it."""
        if self._task == "segment":
            return self._with_areas(result, class_map(result, origin.view), picture)
        photo = Image.fromarray(picture)
        pen = _Pen(photo)
        if self._task == "classify":
            for best in classes_in(result, 1):
                pen.text((0, 0), f"{best.label} {best.score:.2f}", COLOURS[3])
            return photo
        if self._task != "detect":
            return photo
        found = things_in(result, origin.view, self._min_score)
        for thing in reversed(found):  # the best lies on top
            pen.box(thing.box, f"{thing.label} {thing.score:.2f}", _colour(thing.index))
        return photo

    def _with_areas(self, result: Result, classes: Array, picture: Array) -> Image.Image:
        counts = np.bincount(classes[classes != UNSEEN], minlength=1)
        # Nothing of the photo's size is wider than a byte a channel: a device has little memory.
        table = np.array([_colour(index) for index in range(256)], np.uint8)
        # The first class is the background of nearly all segmenters: it stays as it is.
        opacity = np.where(classes > 0, np.uint8(round(255 * _OPACITY)), np.uint8(0))
        photo = Image.fromarray(picture)
        colours = Image.fromarray(table[np.maximum(classes, 0).astype(np.uint8)])
        photo.paste(colours, mask=Image.fromarray(opacity))
        pen = _Pen(photo)
        for line, index in enumerate(np.flatnonzero(counts[1:]) + 1):
            share = counts[index] / classes.size
            text = f"{class_label(int(index), result.labels)} {100 * share:.0f} %"
            pen.text((0, line * pen.line_px), text, _colour(int(index)))
        return photo


class _Pen:
    """Draws with lines and letters that fit the photo's size."""

    def __init__(self, photo: Image.Image) -> None:
        self._draw = ImageDraw.Draw(photo)
        self._width_px = max(round(min(photo.size) / 200), 2)
        size_px = max(round(min(photo.size) / 28), 11)
        self._font, self.line_px = ImageFont.load_default(size_px), round(1.4 * size_px)

    def box(self, box: tuple[float, ...], text: str, colour: tuple[int, ...]) -> None:
        x0, y0, x1, y1 = box
        self._draw.rectangle((x0, y0, max(x1, x0), max(y1, y0)), outline=colour,
                             width=self._width_px)  # fmt: skip
        self.text((x0, y0 - self.line_px if y0 >= self.line_px else y0), text, colour)

    def text(self, place: tuple[float, float], text: str, colour: tuple[int, ...]) -> None:
        """White letters on a field of the colour."""
        field = self._draw.textbbox(place, text, self._font)
        self._draw.rectangle((*place, field[2] + 4, place[1] + self.line_px), fill=colour)
        self._draw.text((place[0] + 2, place[1] + 1), text, (255, 255, 255), self._font)


def _colour(index: int) -> tuple[int, int, int]:
    return COLOURS[index % len(COLOURS)]
