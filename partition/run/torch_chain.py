"""A bundle's segments in torch, on a CPU or a GPU: what the worker runs, and what measures it."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from splitpoint.codec import Array, TensorSpec
from torch.fx import GraphModule, Interpreter, Node

from ..bundle.bundle import Bundle
from ..errors import BundleError, DeviceError
from .chain import State
from .program import load_program
from .weights import load_weights

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def pick_device(name: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda` (or `cuda:1`); `DeviceError` if there is none.

    GPUs are those that CUDA_VISIBLE_DEVICES leaves, in its order. A slice of a GPU (MIG) is named
    there, and is the one GPU that its process sees.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"unknown device {name!r}", "use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {name!r} is not supported", "use auto, cpu, cuda or cuda:N")
    visible = os.environ.get(_VISIBLE)
    if device.type == "cuda" and not torch.cuda.is_available():
        if visible is None:
            raise DeviceError(
                "CUDA is not available to this torch", "use --device cpu, or install a CUDA build"
            )
        shown = f"{_VISIBLE}={visible}" if visible else f"{_VISIBLE} shows it none"
        raise DeviceError(
            f"this process sees no GPU ({shown})", f"correct {_VISIBLE}, or use --device cpu"
        )
    if device.index is not None and device.index >= (count := torch.cuda.device_count()):
        remedy = f"this machine has {count}"
        if visible is not None:
            remedy = f"{_VISIBLE}={visible} leaves {count}, and numbers them from cuda:0 on"
        raise DeviceError(f"there is no {device}", remedy)
    return device


def pick_devices(name: str) -> list[torch.device]:
    """As `pick_device`; where that is `cuda` without a number, every GPU that is there."""
    device = pick_device(name)
    if device == torch.device("cuda"):  # none in particular
        return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    return [device]


def describe_device(device: torch.device) -> str:
    """`cpu`, or `cuda (NVIDIA L4)`."""
    if device.type != "cuda":
        return device.type
    return f"{device.type} ({torch.cuda.get_device_name(device)})"


def load_segment(
    program_file: Path, weights_file: Path, specs: Sequence[TensorSpec], device: torch.device
) -> tuple[list[str], list[str], GraphModule]:
    """A segment's inputs, its outputs, and the module that maps one to the other.

    `specs` describe the boundary that enters. Raises `BundleError` for damaged files.
    """
    try:
        program = json.loads(program_file.read_text(encoding="utf-8"))
        weights = load_weights(weights_file, program["weights"], device)
        return program["inputs"], program["outputs"], load_program(program, specs, weights, device)
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(
            f"the program {program_file} is malformed ({error})", "compile the bundle again"
        ) from error


def load_decoder(bundle: Bundle, device: torch.device, boundary: int) -> GraphModule:
    """The decoder of a boundary's learned codec: a latent and octaves to a tuple of one tensor.

    Raises `BundleError` for damaged files, or where there is none.
    """
    found = bundle.manifest.boundaries[boundary]
    if found.learned is None:
        raise BundleError(f"boundary {boundary} has no learned codec")
    files = found.learned.decoder
    _, _, module = load_segment(
        bundle.path(files.program), bundle.path(files.weights), found.tensors, device
    )
    return module


class TorchChain:
    """See `SegmentChain`. With `threads`, torch's thread count is set for the whole process.

    Raises `BundleError` for a program that cannot be read.
    """

    runtime = "torch"

    def __init__(self, bundle: Bundle, device: torch.device, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.threads = torch.get_num_threads()
        self.device = describe_device(device)
        self._bundle, self._device = bundle, device
        self._segments: dict[int, tuple[list[str], list[str], GraphModule]] = {}

    def __len__(self) -> int:
        """How many segments there are."""
        return len(self._bundle.manifest.segments)

    def load(self, index: int) -> None:
        """Reads a segment's program and puts its weights on the device."""
        if index in self._segments:
            return
        segment = self._bundle.manifest.segments[index]
        self._segments[index] = load_segment(
            self._bundle.path(segment.program),
            self._bundle.path(segment.weights),
            self._bundle.manifest.boundaries[index].tensors,
            self._device,
        )

    def place(self, values: Mapping[str, Array]) -> State:
        """Tensors on the device: private copies, as arrays may be views of a network buffer."""
        return {name: torch.tensor(array).to(self._device) for name, array in values.items()}

    def step(self, index: int, state: State) -> State:
        """What segment `index` adds to `state`; on a GPU it is only started."""
        with torch.inference_mode():
            return self.forward(index, state)

    def forward(self, index: int, state: State) -> State:
        """`step` in whatever mode of torch's the caller has chosen: with gradients, for one."""
        inputs, outputs, module = self._segments[index]
        return dict(zip(outputs, module.forward(*(state[name] for name in inputs)), strict=True))

    def fetch(self, value: Any) -> Array:
        """One tensor as an array on the CPU."""
        array: Array = value.cpu().numpy()
        return array

    def join(self, values: Sequence[torch.Tensor], dim: int) -> torch.Tensor:
        """A new tensor on the device."""
        return torch.cat(list(values), dim)

    def part(self, value: torch.Tensor, dim: int, first: int, count: int) -> torch.Tensor:
        """A view."""
        return value.narrow(dim, first, count)

    def wait(self) -> None:
        """Waits for the GPU, if it is one."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def layer_ms(self, index: int, state: State, rounds: int) -> dict[str, float]:
        """From running the segment operation by operation."""
        inputs, _, module = self._segments[index]
        watch = _Stopwatch(module, self.wait)
        with torch.inference_mode():
            for done in range(1 + rounds):
                watch.run(*(state[name] for name in inputs))
                if done == 0:
                    watch.times.clear()
        return {layer: statistics.median(times) for layer, times in watch.per_round().items()}


class _Stopwatch(Interpreter):
    """Runs a module node by node and keeps the milliseconds of each node."""

    def __init__(self, module: GraphModule, wait: Any) -> None:
        super().__init__(module)
        self._wait = wait
        self.times: dict[Node, list[float]] = defaultdict(list)

    def run_node(self, n: Node) -> Any:
        """One operation, timed to its end."""
        start = time.perf_counter()
        result = super().run_node(n)
        self._wait()
        self.times[n].append(1e3 * (time.perf_counter() - start))
        return result

    def per_round(self) -> dict[str, list[float]]:
        """Layer -> its milliseconds in each round."""
        found: dict[str, list[float]] = {}
        for node, times in self.times.items():
            layer = node.meta.get("layer")
            if layer is not None:
                sums = found.setdefault(layer, [0.0] * len(times))
                found[layer] = [a + b for a, b in zip(sums, times, strict=True)]
        return found
