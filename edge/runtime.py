"""Runs the edge's segments of a bundle, [0, boundary), with onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from splitpoint.codec import Array
from splitpoint.partition.onnx_segment import OnnxSegment
from splitpoint.partition.slowdown import Slowdown


class SegmentRunner:
    """Segments that are loaded once and kept. `slowdown` plays a slower device."""

    def __init__(self, slowdown: Slowdown, *, threads: int = 0) -> None:
        self._segments: list[OnnxSegment] = []
        self._threads, self._slowdown = threads, slowdown

    def load(self, paths: Sequence[Path]) -> None:
        """Makes sessions of the first `len(paths)` segments, where there are none yet."""
        for path in paths[len(self._segments) :]:
            self._segments.append(OnnxSegment(path, self._threads))

    @property
    def loaded(self) -> int:
        """How many segments there are sessions of, from the first."""
        return len(self._segments)

    def run(self, values: Mapping[str, Array], boundary: int, start: int = 0) -> dict[str, Array]:
        """All tensors known after segments [start, boundary), `values` included."""
        state = dict(values)
        for index in range(start, boundary):
            state.update(self._slowdown.stretch(index, self._segments[index], state))
        return state
