"""From outputs that hold boxes to the best of them, one for each thing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from splitpoint.codec import Array, TensorSpec

from .detections import Detections, detections_spec
from .head import Limits
from .information import Information
from .nms import best_apart

Decode = Callable[[Sequence[Array], float], Detections]
"""From float32 outputs of one sample and the least score to detections, in any order."""


class DetectHead:
    """Answers with `detections_spec`.

    `decode` reads the outputs that are named; its boxes times `scale_xy` are pixels of the input.
    `information` is None where nothing is known of it.
    """

    def __init__(
        self,
        outputs: Sequence[str],
        decode: Decode,
        information: Information | None,
        scale_xy: tuple[float, float],
        limits: Limits,
        classes: int | None,
    ) -> None:
        self._outputs, self._decode, self._limits = tuple(outputs), decode, limits
        self._information = information
        self._scale = np.array(scale_xy * 2, np.float64)
        self.classes = classes
        self.specs: tuple[TensorSpec, ...] = (detections_spec(limits.max_detections),)

    def answer(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Head`."""
        (spec,) = self.specs
        with np.errstate(all="ignore"):  # of NaN, of infinity, and of what becomes infinite
            arrays = [np.asarray(outputs[name], np.float32) for name in self._outputs]
            found = np.zeros(spec.shape_at(len(arrays[0])), np.float32)
            for number, rows in enumerate(found):
                sample = [array[number] for array in arrays]
                self._fill(rows, self._decode(sample, self._limits.min_score))
        return {spec.name: found}

    def information(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Head`."""
        tells = self._information
        if tells is None:
            return {}
        arrays = [np.asarray(outputs[name], np.float32) for name in self._outputs]
        samples = [
            tells([array[number] for array in arrays], self._limits.min_score)
            for number in range(len(arrays[0]))
        ]
        together = (np.stack(parts) for parts in zip(*samples, strict=True))
        return dict(zip(self._outputs, together, strict=True))

    def _fill(self, rows: Array, found: Detections) -> None:
        boxes = (found.boxes * self._scale).astype(np.float32)
        real = np.isfinite(boxes).all(axis=1) & (boxes[:, :2] <= boxes[:, 2:]).all(axis=1)
        order = np.flatnonzero(real)
        order = order[np.argsort(-found.scores[order], kind="stable")]
        max_iou, most = self._limits.max_iou, self._limits.max_detections
        order = order[best_apart(boxes[order], found.classes[order], max_iou, most)]
        rows[: len(order), :4] = boxes[order]
        rows[: len(order), 4] = found.scores[order]
        rows[: len(order), 5] = found.classes[order]
