"""Which part of a photo a model's input shows, to find its answers again in the photo."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from splitpoint.codec import Array

UNSEEN = -1  # in place of a class


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Where the corners of the input lie, in pixels of the photo; beyond its edges is filling.

    Sizes are width and height. Where a photo was itself cut out of a larger one, its corner lies at
    `corner_px` in that, which is of `whole_size_px`, and answers are in pixels of the larger one.
    """

    left_px: float
    top_px: float
    right_px: float
    bottom_px: float
    photo_size_px: tuple[int, int]
    input_size_px: tuple[int, int]
    corner_px: tuple[int, int] = (0, 0)
    whole_size_px: tuple[int, int] | None = None

    @classmethod
    def of(
        cls,
        photo_size_px: tuple[int, int],
        resized_px: tuple[int, int],
        place_px: tuple[int, int],
        input_size_px: tuple[int, int],
    ) -> View:
        """That of a photo resized to `resized_px`, whose corner lies at `place_px` in the input."""
        x, y = (whole / own for whole, own in zip(photo_size_px, resized_px, strict=True))
        left, top = place_px
        width, height = input_size_px
        return cls(
            left_px=-left * x,
            top_px=-top * y,
            right_px=(width - left) * x,
            bottom_px=(height - top) * y,
            photo_size_px=photo_size_px,
            input_size_px=input_size_px,
        )

    def within(self, whole_size_px: tuple[int, int], corner_px: tuple[int, int]) -> View:
        """The same of a photo that was cut out of a larger one."""
        return replace(self, whole_size_px=whole_size_px, corner_px=corner_px)

    def boxes_in_photo(self, boxes: Array) -> Array:
        """Boxes `[n, 4]` (x0, y0, x1, y1) of the input, in pixels of the photo and inside of it."""
        (x_scale, y_scale), photo = self._scale, self.photo_size_px
        scale = np.array([x_scale, y_scale] * 2)
        found = boxes * scale + np.array([self.left_px, self.top_px] * 2)
        inside = np.clip(found, 0, np.array([*photo, *photo], float))
        placed: Array = inside + np.array(self.corner_px * 2)
        return placed

    def map_in_photo(self, values: Array) -> Array:
        """A map uint8 `[height, width]` over the input, as int16 over the photo.

        Each pixel of the photo has the value nearest to it, or `UNSEEN` where the input does not
        show it. The map may be coarser than the input.
        """
        places = []
        for pixels, start, end, cells in (
            (self.photo_size_px[1], self.top_px, self.bottom_px, values.shape[0]),
            (self.photo_size_px[0], self.left_px, self.right_px, values.shape[1]),
        ):
            at = np.floor((np.arange(pixels) + 0.5 - start) / (end - start) * cells).astype(int)
            places.append(np.where((at >= 0) & (at < cells), at, cells))
        padded = np.pad(values.astype(np.int16), (0, 1), constant_values=UNSEEN)
        found: Array = padded[np.ix_(*places)]
        if self.whole_size_px is None:
            return found
        (left, top), (width, height) = self.corner_px, self.photo_size_px
        whole = np.full(self.whole_size_px[::-1], UNSEEN, np.int16)
        whole[top : top + height, left : left + width] = found
        return whole

    def part_with_photo(self, values: Array) -> Array:
        """The part of a map `[height, width]` over the input that shows the photo, not filling."""
        (x_scale, y_scale), (width, height) = self._scale, self.input_size_px
        columns, rows = (
            _cells(first * cells / whole, last * cells / whole)
            for first, last, cells, whole in (
                (max(-self.left_px / x_scale, 0),
                 min((self.photo_size_px[0] - self.left_px) / x_scale, width),
                 values.shape[1], width),
                (max(-self.top_px / y_scale, 0),
                 min((self.photo_size_px[1] - self.top_px) / y_scale, height),
                 values.shape[0], height),
            )
        )  # fmt: skip
        return values[rows, columns]

    @property
    def _scale(self) -> tuple[float, float]:
        width, height = self.input_size_px
        return (self.right_px - self.left_px) / width, (self.bottom_px - self.top_px) / height


def _cells(first: float, last: float) -> slice:
    """From one place to another, at least one: a photo may be narrower than a cell."""
    start = int(first)
    return slice(start, max(round(last), start + 1))
