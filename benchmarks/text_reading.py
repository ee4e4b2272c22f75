"""From a map of where text is to what is written there, and how much of it is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from drawn_text import Line
from PIL import Image
from skimage.measure import label, regionprops
from splitpoint.codec import Array

LEAST_PX, UNCLIP = 40, 1.6  # of a region; DB's models mark text without its rim, by this ratio
HEIGHT_PX, LEAST_WIDTH_PX = 48, 320  # of a line, as the reader was trained
Box = tuple[int, int, int, int]  # x0, y0, x1, y1


def boxes_of(text_map: Array) -> list[Box]:
    """Around the regions of a map of 0 and 1, `[height, width]`, grown as DB says.

    M. Liao et al., "Real-time Scene Text Detection with Differentiable Binarization" (AAAI 2020).
    """
    found = []
    for region in regionprops(label(text_map)):
        if region.area < LEAST_PX:
            continue
        y0, x0, y1, x1 = region.bbox
        grow = round(UNCLIP * (x1 - x0) * (y1 - y0) / (2 * (x1 - x0 + y1 - y0)))
        height, width = text_map.shape
        found.append(
            (max(x0 - grow, 0), max(y0 - grow, 0), min(x1 + grow, width), min(y1 + grow, height))
        )
    return sorted(found)


class Reader:
    """A recognition model with CTC, as exported by PaddleOCR: its characters are in its metadata.

    It takes `[1, 3, 48, width]` from -1 to 1, blue first, and answers `[1, steps, 1 + characters]`,
    of which the first is "no character".
    """

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options)
        known = self._session.get_modelmeta().custom_metadata_map["character"]
        self._characters = ["", *known.splitlines(), " "]
        self._read: dict[tuple[int, Box], str] = {}

    def read(self, page: int, pixels: Array, box: Box) -> str:
        """What is written in a box of that page; a box is read once."""
        if (page, box) not in self._read:
            self._read[page, box] = self._text(pixels[box[1] : box[3], box[0] : box[2]])
        return self._read[page, box]

    def _text(self, pixels: Array) -> str:
        height, width = pixels.shape[:2]
        size = (max(round(HEIGHT_PX * width / height), 8), HEIGHT_PX)
        line = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
        given = np.zeros((1, 3, HEIGHT_PX, max(size[0], LEAST_WIDTH_PX)), np.float32)
        given[0, :, :, : size[0]] = line[..., ::-1].transpose(2, 0, 1) / 127.5 - 1
        (found,) = self._session.run(None, {self._session.get_inputs()[0].name: given})
        steps = found[0].argmax(-1)
        first = np.append(True, steps[1:] != steps[:-1])
        return "".join(self._characters[number] for number in steps[first])


def wrong_characters(lines: Sequence[Line], read: Sequence[tuple[Box, str]]) -> int:
    """Characters to insert, delete or change; spaces and capitals do not count.

    What is read counts for the line that its box shares most with, from left to right, and for no
    line where it shares nothing.
    """
    own: list[list[str]] = [[] for _ in lines]
    wrong = 0
    for box, text in sorted(read):
        shared = [_shared(line.box, box) for line in lines]
        if max(shared, default=0) > 0:
            own[int(np.argmax(shared))].append(text)
        else:
            wrong += len(plain(text))
    return wrong + sum(
        _edits(plain(line.text), plain("".join(texts)))
        for line, texts in zip(lines, own, strict=True)
    )


def plain(text: str) -> str:
    """Without what does not count."""
    return "".join(text.split()).lower()


def _shared(one: tuple[float, ...], other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def _edits(one: str, other: str) -> int:
    """The distance of V. Levenshtein (1966)."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        before, row = row, [i]
        for j, b in enumerate(other, start=1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
    return row[-1]
