"""From maps of scores to a map of classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from splitpoint.codec import Array, TensorSpec

MOST_CLASSES = 256  # of a map of bytes
MASK_CLASSES = 2  # what is not in the mask is the first
LONGEST_SIDE = 16384  # of a map, in cells: as of pictures


def class_map_spec(height: int, width: int) -> TensorSpec:
    """The tensor that answers a segmenter: the class of each pixel."""
    return TensorSpec(name="classes", dtype="uint8", shape=(1, height, width), batch_dim=0)


class SegmentHead:
    """Answers with "classes", uint8 `[batch, height, width]`, as large as the map that it reads.

    `class_map` turns `[batch, classes, height, width]` into it.
    """

    def __init__(
        self,
        output: str,
        height: int,
        width: int,
        class_map: Callable[[Array], Array],
        classes: int,
    ) -> None:
        self._output, self._class_map, self.classes = output, class_map, classes
        self.specs: tuple[TensorSpec, ...] = (class_map_spec(height, width),)

    def answer(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Head`."""
        return {self.specs[0].name: self._class_map(outputs[self._output])}

    def information(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Head`: every pixel counts alike."""
        return {}


def largest(scores: Array) -> Array:
    """The class that scores best in each pixel: the first of equal ones, 0 where none is a number.

    Class by class, which is several times as fast as numpy's `argmax` over that dimension.
    """
    best = np.full_like(scores[:, 0], -np.inf)
    found = np.zeros(best.shape, np.uint8)
    for number in range(scores.shape[1]):
        better = (scores[:, number] > best).view(np.uint8)
        np.fmax(best, scores[:, number], out=best)
        np.maximum(found, np.multiply(better, np.uint8(number), out=better), out=found)
    return found


def above_zero(logits: Array) -> Array:
    """Class 1 where the only logit is above 0, which is a probability of one half."""
    return (logits[:, 0] > 0).astype(np.uint8)


def above_half(probabilities: Array) -> Array:
    """Class 1 where the only probability is above one half."""
    return (probabilities[:, 0] > 0.5).astype(np.uint8)
