"""Runs a bundle's segments with torch, from any boundary to the end."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping

import numpy as np
import torch
from splitpoint.codec import Array, SpecError
from splitpoint.partition.bundle import Bundle
from splitpoint.partition.errors import BundleError
from splitpoint.partition.program import load_program
from splitpoint.partition.weights import load_weights

from .errors import ServeError

_TIMING_REPEATS = 3


def pick_device(name: str) -> torch.device:
    """The torch device for `auto`, `cpu` or `cuda` (or `cuda:1`); `ServeError` if there is none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ServeError(f"unknown device {name!r}", "use auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise ServeError(f"device {name!r} is not supported", "use auto, cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ServeError(
            "CUDA is not available to this torch", "use --device cpu, or install a CUDA build"
        )
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise ServeError(f"there is no {device}", f"this machine has {torch.cuda.device_count()}")
    return device


def describe_device(device: torch.device) -> str:
    """`cpu`, or `cuda (NVIDIA L4)`."""
    if device.type != "cuda":
        return device.type
    return f"{device.type} ({torch.cuda.get_device_name(device)})"


class TorchRunner:
    """All segments of one bundle, loaded onto one device."""

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        manifest = bundle.manifest
        self._boundaries = [boundary.tensors for boundary in manifest.boundaries]
        self._device = device
        self._segments = []
        try:
            for segment, specs in zip(manifest.segments, self._boundaries, strict=False):
                program = json.loads(bundle.path(segment.program).read_text(encoding="utf-8"))
                weights = load_weights(bundle.path(segment.weights), device)
                module = load_program(program, specs, weights, device)
                self._segments.append((program["inputs"], program["outputs"], module.forward))
        except (ValueError, KeyError) as error:
            raise BundleError(
                f"a program of {bundle.folder} is malformed ({error})", "compile it again"
            ) from error

    def run(self, boundary: int, values: Mapping[str, Array]) -> dict[str, Array]:
        """The last boundary's tensors, from the (batched) tensors of `boundary`."""
        with torch.inference_mode():
            state = {
                # A private copy: decoded tensors may be read-only views of a network buffer.
                spec.name: torch.tensor(values[spec.name]).to(self._device)
                for spec in self._boundaries[boundary]
            }
            for inputs, outputs, module in self._segments[boundary:]:
                results = module(*(state[name] for name in inputs))
                state.update(zip(outputs, results, strict=True))
            return {spec.name: state[spec.name].cpu().numpy() for spec in self._boundaries[-1]}

    def run_together(
        self, boundary: int, requests: list[Mapping[str, Array]]
    ) -> list[dict[str, Array]]:
        """`run` on the concatenation of several requests, taken apart again."""
        specs = self._boundaries[boundary]
        joined = {
            spec.name: np.concatenate([request[spec.name] for request in requests], spec.batch_dim)
            for spec in specs
        }
        first = specs[0]
        batches = [first.batch_of(request[first.name].shape) for request in requests]
        ends = np.cumsum(batches)[:-1]
        results = self.run(boundary, joined)
        for spec in self._boundaries[-1]:
            if results[spec.name].shape != spec.shape_at(sum(batches)):
                raise SpecError(f"the output {spec.name!r} is not that of {sum(batches)} samples")
        parts = {
            spec.name: np.split(
                results[spec.name], ends * spec.shape[spec.batch_dim], spec.batch_dim
            )
            for spec in self._boundaries[-1]
        }
        return [{name: pieces[i] for name, pieces in parts.items()} for i in range(len(requests))]

    def measure(self) -> list[float]:
        """Median milliseconds of each segment for one sample, after a warm-up run."""
        times: list[list[float]] = [[] for _ in self._segments]
        with torch.inference_mode():
            for _ in range(1 + _TIMING_REPEATS):
                state = {
                    spec.name: torch.tensor(np.zeros(spec.shape, spec.numpy_dtype)).to(self._device)
                    for spec in self._boundaries[0]
                }
                for index, (inputs, outputs, module) in enumerate(self._segments):
                    start = time.perf_counter()
                    results = module(*(state[name] for name in inputs))
                    if self._device.type == "cuda":
                        torch.cuda.synchronize(self._device)
                    times[index].append(1e3 * (time.perf_counter() - start))
                    state.update(zip(outputs, results, strict=True))
        return [statistics.median(samples[1:]) for samples in times]
