"""How pictures look, in nine figures; and how those looked that a bundle was calibrated with.

What a codec loses, and whether a network is right, was measured on the pictures of calibration.
A camera that turns into the dark, out of focus or to another scene shows something else, and bytes
do not tell: a negative of a photo takes as many as the photo (`docs/decisions.md`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from splitpoint.codec import Array

# Rows that are looked at: neighbours say nearly the same, and a frame has no time to lose.
MOST_ROWS = 64
STEPS_PX = (1, 4, 16)  # between which columns differ: what is sharp shows at the first
# The weights of red, green and blue in brightness: ITU-R BT.601.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
MOST_DEVIATIONS = 8.0  # no figure counts for more than that
# Those of few or like pictures are next to nothing, and every other picture would be far away.
LEAST_DEVIATIONS = (0.03, 0.01, 0.01, 0.15, 0.15, 0.15, 0.1, 0.1, 0.03)

# By figure, what a picture is called that has less of it than usual, and one that has more.
WORDS = {
    "brightness": ("darker", "brighter"),
    "red_over_green": ("greener", "redder"),
    "blue_over_yellow": ("yellower", "bluer"),
    "contrast": ("flatter", "of more contrast"),
    "red_green_contrast": ("paler", "more colourful"),
    "blue_yellow_contrast": ("paler", "more colourful"),
    "fine_detail": ("less sharp", "sharper or noisier"),
    "coarse_detail": ("less sharp", "sharper or noisier"),
    "light_from_above": ("lit from below", "lit from above"),
}


def look_of(pixels: Array) -> Array:
    """The figures of `WORDS`, float64 `[9]`, of one picture, uint8 `[height, width, 3]`."""
    rows = pixels[:: max(len(pixels) // MOST_ROWS, 1)].astype(np.float32) / 255
    red, green, blue = rows[..., 0], rows[..., 1], rows[..., 2]
    luma, reddish = rows @ LUMA, red - green
    bluish = blue - (red + green) / 2
    fine, middle, coarse = (_differences(luma, step) for step in STEPS_PX)
    third = max(len(luma) // 3, 1)
    return np.array(
        [
            luma.mean(),
            reddish.mean(),
            bluish.mean(),
            *(math.log(float(plane.std()) + 0.01) for plane in (luma, reddish, bluish)),
            fine - middle,
            middle - coarse,
            luma[:third].mean() - luma[-third:].mean(),
        ],
        np.float64,
    )


def _differences(luma: Array, step_px: int) -> float:
    """How much columns so far apart differ, as a logarithm."""
    step = min(step_px, luma.shape[1] - 1)
    found = float(np.abs(luma[:, step:] - luma[:, : luma.shape[1] - step]).mean()) if step else 0.0
    return math.log(found + 0.002 * step_px**0.5)


@dataclass(frozen=True, slots=True)
class UsualLook:
    """Means and standard deviations of `look_of` over the pictures of calibration.

    Raises `ValueError` for figures that cannot be those.
    """

    means: tuple[float, ...]
    deviations: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.means) == len(self.deviations) == len(WORDS):
            raise ValueError("it does not tell as many figures as a look has")
        if not all(map(math.isfinite, self.means)) or not all(
            0 < deviation < math.inf for deviation in self.deviations
        ):
            raise ValueError("it tells impossible figures")

    @classmethod
    def of(cls, pictures: Sequence[Array]) -> UsualLook:
        """That of pictures, uint8 `[height, width, 3]`."""
        looks = np.stack([look_of(pixels) for pixels in pictures])
        spread = np.maximum(looks.std(0), LEAST_DEVIATIONS)
        return cls(
            tuple(float(f"{mean:.5g}") for mean in looks.mean(0)),
            tuple(float(f"{deviation:.5g}") for deviation in spread),
        )

    def in_deviations(self, look: Array) -> Array:
        """How far each of its figures is from what is usual, float64 `[9]`."""
        with np.errstate(over="ignore"):  # a worker may say that deviations are next to nothing
            away = (look - np.array(self.means)) / np.array(self.deviations)
        found: Array = np.clip(away, -MOST_DEVIATIONS, MOST_DEVIATIONS)
        return found

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return {"means": list(self.means), "deviations": list(self.deviations)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> UsualLook:
        """Reads it (KeyError, TypeError or ValueError for a damaged one)."""
        return cls(tuple(map(float, data["means"])), tuple(map(float, data["deviations"])))


def what_stands_out(away: Array) -> str:
    """What stands out most of a look `in_deviations`: `darker and flatter`."""
    found: list[str] = []
    for place in np.argsort(-np.abs(away)):
        less, more = list(WORDS.values())[place]
        word = more if away[place] > 0 else less
        if word not in found:
            found.append(word)
        if len(found) == 2:
            break
    return " and ".join(found)
