"""Runs the edge's segments of a bundle, [0, boundary), in onnxruntime or torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from splitpoint.codec import Array, TensorSpec
from splitpoint.partition.bundle.segment_files import INT8, ONNX, TORCH, SegmentFiles
from splitpoint.partition.run.onnx_providers import choose_providers
from splitpoint.partition.run.onnx_segment import OnnxSegment
from splitpoint.partition.run.slowdown import Slowdown

from ..errors import AgentError


class LoadedSegment(Protocol):
    """A segment that is ready to run."""

    def __call__(self, values: Mapping[str, Array]) -> Mapping[str, Array]:
        """The tensors that the segment adds to `values`; `SegmentError` when the runtime fails."""
        ...


SegmentRuntime = Callable[[SegmentFiles], LoadedSegment]
"""Loads a segment; `BundleError` for files that the runtime cannot read."""


def onnx_runtime(threads: int, providers: Sequence[str] = ()) -> SegmentRuntime:
    """onnxruntime, in float32 or INT8 as the files are; `DeviceError` for an unknown provider."""
    chosen = choose_providers(providers)
    return lambda files: OnnxSegment(files.model, threads, providers=chosen)


def torch_runtime(threads: int, providers: Sequence[str] = ()) -> SegmentRuntime:
    """torch eager on the CPU, as the worker runs it; `AgentError` where torch is not installed.

    With `threads`, torch's thread count is set for the whole process.
    """
    if any(name.lower() != "cpu" for name in providers):
        raise AgentError("torch has no execution providers", "leave --providers out")
    try:
        from .torch_segment import TorchSegment
    except ModuleNotFoundError as error:
        raise AgentError(
            f"the runtime torch needs {error.name}, which is not installed",
            'install it with `pip install "splitpoint[torch]"`, or use onnxruntime',
        ) from error
    return lambda files: TorchSegment(files, threads)


_MADE_BY = {ONNX: onnx_runtime, INT8: onnx_runtime, TORCH: torch_runtime}


class SegmentRunner:
    """Segments in one runtime that are loaded once and kept. `slowdown` plays a slower device.

    `threads` is the runtime's, 0 for its default. `providers` are what onnxruntime computes with,
    as `choose_providers` takes them. Raises `AgentError` for a runtime that is not there and
    `DeviceError` for a provider that is not.
    """

    def __init__(
        self,
        slowdown: Slowdown,
        *,
        threads: int = 0,
        runtime: str = ONNX,
        providers: Sequence[str] = (),
    ) -> None:
        if runtime not in _MADE_BY:
            raise AgentError(f"unknown runtime {runtime!r}", f"use {', '.join(_MADE_BY)}")
        self.runtime = runtime
        self._load = _MADE_BY[runtime](threads, providers)
        self._segments: list[LoadedSegment] = []
        self._slowdown = slowdown

    def load(self, segments: Sequence[SegmentFiles]) -> None:
        """Loads the segments given, the first ones of the model, where they are not here yet.

        Each runs once on zeros before anyone can see it: its first run allocates memory, and on a
        GPU builds kernels, which is nothing for a frame to wait for.
        """
        for files in segments[len(self._segments) :]:
            segment = self._load(files)
            segment(zeros_at(files.entering))
            self._segments.append(segment)

    @property
    def loaded(self) -> int:
        """How many segments are ready, from the first."""
        return len(self._segments)

    def run(self, values: Mapping[str, Array], boundary: int, start: int = 0) -> dict[str, Array]:
        """All tensors known after segments [start, boundary), `values` included."""
        state = dict(values)
        for index in range(start, boundary):
            key = (self.runtime, index)
            state.update(self._slowdown.stretch(key, self._segments[index], state))
        return state


def zeros_at(specs: Iterable[TensorSpec]) -> dict[str, Array]:
    """One sample of a boundary's tensors, to warm up and time with."""
    return {spec.name: np.zeros(spec.shape_at(1), spec.numpy_dtype) for spec in specs}


class Runners:
    """A `SegmentRunner` for each runtime that a plan has asked for so far."""

    def __init__(
        self, slowdown: Slowdown, *, threads: int = 0, providers: Sequence[str] = ()
    ) -> None:
        self._slowdown, self._threads, self._providers = slowdown, threads, providers
        self._runners: dict[str, SegmentRunner] = {}

    def __getitem__(self, runtime: str) -> SegmentRunner:
        """The runner for a runtime, made at the first call; raises what `SegmentRunner` raises."""
        if runtime not in self._runners:
            self._runners[runtime] = SegmentRunner(
                self._slowdown,
                threads=self._threads,
                runtime=runtime,
                providers=self._providers,
            )
        return self._runners[runtime]
