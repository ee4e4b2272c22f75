"""A bundle's segments on a GPU: captured once per batch size, then replayed as a whole.

A small segment's kernels take less time than Python needs to launch them; a replayed graph is
launched at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from splitpoint.codec import Array
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.run.chain import State

from ..options import FP32
from .precision import computing_in
from .unpack import UnpackingChain, filled

_WARM_UP_ROUNDS = 3
_Key = tuple[int, tuple[tuple[int, ...], ...]]


@dataclass(frozen=True)
class _Captured:
    """A segment for one batch size, between buffers of its own."""

    graph: torch.cuda.CUDAGraph
    inputs: State
    outputs: State


class GpuChain(UnpackingChain):
    """See `SegmentChain`. Batches must come in few sizes: each is captured when it first comes.

    `precision` is what is computed in; at boundaries tensors have the types of the bundle.
    """

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        super().__init__(bundle, device)
        self.precision = FP32
        self._captured: dict[_Key, _Captured] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def load(self, index: int) -> None:
        """As any chain does, with the channels last."""
        super().load(index)
        put_channels_last(self._segments[index][2])

    def use(self, precision: str) -> None:
        """Computes in `precision` from now on."""
        self.precision = precision
        self._captured.clear()

    def carry(self, arrays: Sequence[Array]) -> list[torch.Tensor]:
        """Through page-locked memory and a stream of its own: copies run beside kernels.

        What is started after this on the stream that computes waits for the copies.
        """
        with torch.cuda.device(self._device), torch.cuda.stream(self._copying):
            carried = [
                filled(array, pin_memory=True).to(self._device, non_blocking=True)
                for array in arrays
            ]
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(self._copying)
        computing = torch.cuda.current_stream(self._device)
        computing.wait_event(copied)
        for tensor in carried:
            tensor.record_stream(computing)  # or its memory may be given to the next copy
        return carried

    def step(self, index: int, state: State) -> State:
        """What segment `index` adds to `state`; it is only started."""
        names = self._segments[index][0]
        given = {name: state[name] for name in names}
        key: _Key = (index, tuple(tuple(value.shape) for value in given.values()))
        with torch.cuda.device(self._device):  # streams are those of the current one
            captured = self._captured.get(key) or self._capture(index, given, key)
            for name, buffer in captured.inputs.items():
                buffer.copy_(given[name])
            captured.graph.replay()
            # The buffers belong to the next batch of this size.
            return {name: value.clone() for name, value in captured.outputs.items()}

    def _capture(self, index: int, given: State, key: _Key) -> _Captured:
        inputs = {name: value.clone() for name, value in given.items()}
        beside = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream(self._device))
        with torch.inference_mode(), computing_in(self.precision, self._device):
            with torch.cuda.stream(beside):
                for _ in range(_WARM_UP_ROUNDS):
                    self._typed(index, inputs)
            torch.cuda.current_stream(self._device).wait_stream(beside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                outputs = self._typed(index, inputs)
        self._captured[key] = _Captured(graph, inputs, outputs)
        return self._captured[key]

    def _typed(self, index: int, inputs: State) -> State:
        """The segment's outputs in the types of the bundle, whatever they were computed in."""
        specs = self._bundle.manifest.boundaries[index + 1].tensors
        types = {spec.name: getattr(torch, spec.dtype) for spec in specs}
        outputs = self.forward(index, inputs)
        return {name: value.to(types.get(name, value.dtype)) for name, value in outputs.items()}


def put_channels_last(module: torch.nn.Module) -> None:
    """Convolutions are faster so. Only tensors of four dimensions have channels to put last.

    `Module.to` refuses those of five: the weights of 3-d convolutions, Swin's attention masks.
    """
    with torch.no_grad():
        for tensor in itertools.chain(module.parameters(), module.buffers()):
            if tensor.dim() == 4:
                tensor.data = tensor.to(memory_format=torch.channels_last)
