"""Runs the edge's segments of a bundle, [0, boundary), with onnxruntime."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from splitpoint.codec import Array
from splitpoint.partition.onnx_segment import OnnxSegment

T = TypeVar("T")


class SegmentRunner:
    """Segments that are loaded once and kept. `slowdown` plays a slower device."""

    def __init__(self, *, threads: int = 0, slowdown: float = 1.0) -> None:
        self._segments: list[OnnxSegment] = []
        self._threads, self._slowdown = threads, slowdown

    def load(self, paths: Sequence[Path]) -> None:
        """Makes sessions of the first `len(paths)` segments, where there are none yet."""
        for path in paths[len(self._segments) :]:
            self._segments.append(OnnxSegment(path, self._threads))

    def run(self, values: Mapping[str, Array], boundary: int) -> dict[str, Array]:
        """All tensors known after segments [0, boundary), those of boundary 0 included."""
        state = dict(values)
        for segment in self._segments[:boundary]:
            state.update(self.stretched(segment, state))
        return state

    def stretched(self, work: Callable[..., T], *arguments: object) -> T:
        """What `work` returns, in as much time as the slower device would take for it."""
        start = time.perf_counter()
        result = work(*arguments)
        if self._slowdown > 1:
            time.sleep((self._slowdown - 1) * (time.perf_counter() - start))
        return result
