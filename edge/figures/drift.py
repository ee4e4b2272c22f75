"""Whether frames are still like those of calibration: how pictures look, and what they take."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np
from splitpoint.codec import Array
from splitpoint.partition.bundle.boundary import Boundary
from splitpoint.partition.look import UsualLook, look_of, what_stands_out

log = logging.getLogger("splitpoint.edge")

WINDOW, FEWEST = 48, 12  # the latest looks, and how many of them say something
# Looking takes at most so much of a core.
MOST_SHARE = 0.01
# The mean squared distance of the window's mean, in deviations, that is no picture's like in
# calibration: photos of three other collections lie at 0.04 to 0.19, negatives at 0.41, what is
# out of focus at 0.9 and more, the dark at 4 and more. A window of pictures that are all the same
# is only one picture, and one photo in a hundred lies beyond 4. (`benchmarks/drift.py`)
FAR, FAR_OF_ONE = 0.2, 4.0
# Mean squared distance of two looks that are nearly one: two frames of a scene in which something
# moves lie some 0.03 apart, two photos of calibration 0.7 and more, nine times in ten.
ALIKE = 0.1
# The variance of looks at pictures that have nothing to do with each other: that of a camera that
# turns in one place is a tenth or two.
ENOUGH = 0.7
BACK = 0.5  # of the limit: from then on the next departure is told


class Drift:
    """Of one model. `usual` is None where nothing is known of calibration's pictures.

    `see` may be called by any thread, and leaves pictures out where it would take too long.
    """

    def __init__(
        self, name: str, usual: UsualLook | None, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._name, self._usual, self._clock = name, usual, clock
        self._looks: deque[Array] = deque(maxlen=WINDOW)
        self._looking = threading.Lock()
        self._not_before_s = 0.0
        self._ratios: deque[float] = deque(maxlen=WINDOW)
        self._told = False
        self.of_limit: float | None = None
        """How far the latest pictures are from calibration's, over what is told of; None if that is
        not known."""

    @property
    def bytes_over_calibrated(self) -> float | None:
        """Of the latest frames the mean payload, over what calibration measured for its codec."""
        ratios = list(self._ratios)
        return sum(ratios) / len(ratios) if ratios else None

    def see(self, pictures: Array) -> None:
        """Frames as the model gets them, uint8 `[samples, height, width, 3]`; the first counts."""
        if self._usual is None or not self._looking.acquire(blocking=False):
            return
        try:
            began_s = self._clock()
            if began_s < self._not_before_s:
                return
            self._looks.append(self._usual.in_deviations(look_of(pictures[0])))
            if len(self._looks) >= FEWEST:
                self._judge(np.stack(self._looks))
            ended_s = self._clock()
            self._not_before_s = ended_s + (ended_s - began_s) / MOST_SHARE
        finally:
            self._looking.release()

    def encoded(self, boundary: Boundary, codec: str, sample_bytes: float) -> None:
        """A sample's payload has so many bytes."""
        level = boundary.level(codec)
        if level is not None and level.nbytes:
            self._ratios.append(sample_bytes / level.nbytes)

    def _judge(self, looks: Array) -> None:
        mean = looks.mean(0)
        limit = FAR + FAR_OF_ONE / _different(looks)
        self.of_limit = float((mean**2).mean()) / limit
        if self.of_limit > 1 and not self._told:
            log.warning(
                "the camera has left the calibration: its pictures are %s than those that %s was "
                "calibrated with, and what codecs lose was measured on those; calibrate with "
                "pictures like these",
                what_stands_out(mean),
                self._name,
            )
        self._told = self.of_limit > (BACK if self._told else 1)


def _different(looks: Array) -> float:
    """How many different pictures there are: of looks that are alike 1, and no more than there are.

    Neither of two counts suffices. Two scenes in turns, as of two cameras, vary as much as many
    photos do. And the views of a camera that turns in one place differ from each other, but all of
    them are away from the mean of all places, and vary little.
    """
    count = len(looks)
    squares = (looks**2).mean(1)
    apart = squares[:, None] + squares - 2 / looks.shape[1] * (looks @ looks.T)
    kinds = count**2 / np.exp(-apart / ALIKE).sum()
    places = 1 / max(1 - float(looks.var(0).mean()) / ENOUGH, 1 / count)
    return float(min(kinds, places))
