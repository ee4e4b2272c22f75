"""A bundle's segments in onnxruntime, with the time of every kernel by layer."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from splitpoint.codec import Array

from ..bundle.bundle import Bundle
from ..bundle.segment_files import ONNX, check_runtime, runtime_files
from .chain import State
from .onnx_providers import CPU_ONLY, device_of
from .onnx_segment import OnnxSegment

_WARM_UP_ROUNDS = 3


class OnnxChain:
    """See `SegmentChain`. `threads` is onnxruntime's intra-op count, 0 for one a core.

    `runtime` says whether the float32 or the INT8 segments run, `providers` what they run on.
    Raises `PlanError` for a bundle without INT8 segments.
    """

    def __init__(
        self,
        bundle: Bundle,
        threads: int = 0,
        runtime: str = ONNX,
        providers: Sequence[str] = CPU_ONLY,
    ) -> None:
        check_runtime(bundle.manifest, runtime)
        self.runtime, self._providers = runtime, providers
        self.device = device_of(providers)
        self._paths = [
            bundle.path(runtime_files(bundle.manifest, index, runtime)[0])
            for index in range(len(bundle.manifest.segments))
        ]
        self._last = [""] * len(self._paths)
        for layer in bundle.manifest.layers:
            self._last[layer.segment] = layer.name
        self._names = [
            {layer.name for layer in bundle.manifest.layers if layer.segment == index}
            for index in range(len(self._paths))
        ]
        self._segments: dict[int, OnnxSegment] = {}
        self._threads = threads
        self.threads = threads or os.cpu_count() or 1

    def __len__(self) -> int:
        """How many segments there are."""
        return len(self._paths)

    def load(self, index: int) -> None:
        """Makes the session of a segment; `BundleError` when onnxruntime cannot load it."""
        if index not in self._segments:
            self._segments[index] = OnnxSegment(
                self._paths[index], self._threads, providers=self._providers
            )

    def place(self, values: Mapping[str, Array]) -> State:
        """The arrays themselves."""
        return dict(values)

    def step(self, index: int, state: State) -> State:
        """What segment `index` adds to `state`."""
        return dict(self._segments[index](state))

    def fetch(self, value: Array) -> Array:
        """The array itself."""
        return value

    def join(self, values: Sequence[Array], dim: int) -> Array:
        """A new array."""
        return np.concatenate(values, dim)

    def part(self, value: Array, dim: int, first: int, count: int) -> Array:
        """A view."""
        return value[(slice(None),) * dim + (slice(first, first + count),)]

    def wait(self) -> None:
        """Nothing to wait for: a step returns when it is done."""

    def layer_ms(self, index: int, state: State, rounds: int) -> dict[str, float]:
        """From onnxruntime's own profiler; a kernel is called after the last layer fused into it.

        The boundary's tensors bear no layer's name and end the last one. What else bears no name
        (a change of memory layout) is left out, and comes back when the caller scales.
        """
        runs: dict[str, list[float]] = defaultdict(list)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "profile"
            segment = OnnxSegment(self._paths[index], self._threads, path, self._providers)
            for _ in range(_WARM_UP_ROUNDS + rounds):
                segment(state)
            events = json.loads(segment.end_profiling().read_text(encoding="utf-8"))
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                value = event["name"].removesuffix("_kernel_time").removesuffix("_nchwc")
                runs[value].append(event["dur"] / 1e3)
        spent: dict[str, float] = defaultdict(float)
        for value, times in runs.items():
            layer, slash, _ = value.rpartition("/")
            if slash and layer in self._names[index]:
                spent[layer] += statistics.median(times)
            elif not slash and not value.startswith("Reorder"):
                spent[self._last[index]] += statistics.median(times)
        return dict(spent)
