"""Runs the edge's segments of a bundle, [0, boundary), with onnxruntime."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from splitpoint.codec import Array
from splitpoint.partition.onnx_segment import OnnxSegment


class SegmentRunner:
    """Loaded segments in order. `slowdown` stretches their time, to play a slower device."""

    def __init__(self, paths: Sequence[Path], *, threads: int = 0, slowdown: float = 1.0) -> None:
        self._segments = [OnnxSegment(path, threads) for path in paths]
        self._slowdown = slowdown

    def run(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """All tensors known after the last segment, those of boundary 0 included."""
        state = dict(values)
        for segment in self._segments:
            start = time.perf_counter()
            state.update(segment(state))
            if self._slowdown > 1:
                time.sleep((self._slowdown - 1) * (time.perf_counter() - start))
        return state
