"""A bundle's segments on a GPU: captured for each batch size while they are loaded, then replayed.

A small segment's kernels take less time than Python needs to launch them; a replayed graph is
launched at once. What cannot be captured, or was not, runs operation by operation. What a compiler
made of a segment is only ever captured: called for a frame, it might compile for minutes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from splitpoint.codec import Array
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.run.chain import State
from splitpoint.partition.run.read_indexes import read_indexes

from ..errors import NotCompiled
from ..gpu.bound_indices import bound_indices
from ..gpu.compiler import Compiled, Compiler, SegmentSource
from ..gpu.device_errors import is_device_lost, is_out_of_memory
from ..gpu.gpu import LAUNCHING, Gpu, Graph
from ..gpu.graph_check import differs, spoil
from ..gpu.streams import GpuStreams
from ..gpu.weight_form import Form, has_convolutions, put_weights
from ..options import EAGER, FP32
from .interruptible_chain import Check
from .precision import TOLERANCE, computing_in
from .unpack import UnpackingChain
from .values import Values

_WARM_UP_ROUNDS = 3
FP32_TOLERANCE = 1e-3  # of a replay, of the largest output
_Key = tuple[int, tuple[tuple[int, ...], ...]]


@dataclass(frozen=True)
class _Captured:
    """A segment for one batch size, between buffers of its own."""

    graph: Graph
    inputs: State
    outputs: State

    def replay(self, given: State) -> State:
        """The outputs for these inputs; they belong to the next batch of this size, too."""
        for name, buffer in self.inputs.items():
            buffer.copy_(given[name])
        self.graph.replay()
        return self.outputs


class GpuChain(UnpackingChain):
    """See `SegmentChain`. All that it does on the device it does on its own streams.

    `form` is what is computed in; at boundaries tensors have the types of the bundle. `compilers`
    are those that it may name. `sizes` are the batch sizes that were captured.
    """

    def __init__(
        self, bundle: Bundle, gpu: Gpu, compilers: Mapping[str, Compiler] | None = None
    ) -> None:
        super().__init__(bundle, gpu.device)
        self.compilers = compilers or {}
        self.form = Form()
        self.sizes: tuple[int, ...] = ()
        self._streams = GpuStreams(gpu)
        self._compiled: dict[int, Compiled] = {}
        self._captured: dict[_Key, _Captured] = {}
        self._pool = gpu.new_pool()
        self._unknown_indices = read_indexes(bundle).unknown

    def use(self, form: Form) -> None:
        """Computes in `form` from now on. Segments are to be loaded and captured again."""
        self.form, self.sizes = form, ()
        self._segments.clear()
        self._compiled.clear()
        self._captured.clear()
        # Not the one before: its memory is given back once nothing of it is left, whenever that is.
        self._pool = self._streams.gpu.new_pool()

    def load(self, index: int) -> None:
        """As any chain does; its weights get their form, and its compiler is asked.

        No index of it can cost the device.
        """
        if index not in self._segments:
            with self._streams.computing():  # torch's default stream is no part of this one
                super().load(index)
                module = self._segments[index][2]
                is_bounded = bound_indices(module, self._unknown_indices)
                put_weights(module, self.form)
                if self.form.compiler != EAGER:
                    compiler = self.compilers[self.form.compiler]
                    self._compiled[index] = compiler(self._source(index, is_bounded))

    def place(self, values: Values) -> State:
        """Tensors on the device, of all that `values` hold; they are only started."""
        with self._streams.computing():
            return super().place(values)

    def computing_whole(self) -> contextlib.AbstractContextManager[object]:
        """Without TF32, which torch allows convolutions otherwise."""
        return computing_in(FP32, self._device)

    def carry(self, arrays: Sequence[Array]) -> list[torch.Tensor]:
        """Through page-locked memory and a stream of its own."""
        return self._streams.carry(arrays)

    def step(self, index: int, state: State) -> State:
        """What segment `index` adds to `state`; it is only started."""
        given = {name: state[name] for name in self._segments[index][0]}
        captured = self._captured.get(_key(index, given))
        with self._streams.computing():
            if captured is None:
                return self._outputs(index, given)
            # Graphs share memory: a later one may put its own tensors where these are.
            return {name: value.clone() for name, value in captured.replay(given).items()}

    def join(self, values: Sequence[Any], dim: int) -> torch.Tensor:
        """A new tensor on the device."""
        with self._streams.computing():
            return super().join(values, dim)

    def part(self, value: Any, dim: int, first: int, count: int) -> torch.Tensor:
        """A view."""
        with self._streams.computing():
            return super().part(value, dim, first, count)

    def fetch(self, value: Any) -> Array:
        """One tensor as an array on the CPU, once it is computed."""
        self.wait()
        with self._streams.computing():
            return super().fetch(value)

    def wait(self) -> None:
        """Returns when all that this chain has started is done; raises what went wrong in it."""
        self._streams.wait()

    def layer_ms(self, index: int, state: State, rounds: int) -> dict[str, float]:
        """From running the segment operation by operation."""
        with self._streams.computing(), computing_in(self.form.precision, self._device):
            return super().layer_ms(index, state, rounds)

    @property
    def has_convolutions(self) -> bool:
        """Whether the layout of weights makes a difference, as far as segments are loaded."""
        return any(has_convolutions(module) for _, _, module in self._segments.values())

    def free_unused(self) -> None:
        """Gives back what torch keeps for nobody, and not while a graph is captured."""
        with LAUNCHING:
            self._streams.gpu.free_unused()

    def capture(
        self, size: int, given: State, fresh: State, check: Check, tell: Callable[[str], None]
    ) -> None:
        """Has segments replayed from now on for batches of `size` samples. Not while it serves.

        `given` and `fresh` are two such batches at the input. `tell` is told of each segment that
        goes on without a graph, and why. Raises, and changes nothing, where memory does not
        suffice, the device is lost, or `check` raises, which is called before each segment. With a
        compiler, raises `NotCompiled` where a segment gets no graph, and whatever compiling raises.
        """
        made: dict[_Key, _Captured] = {}
        for index in range(len(self)):
            check()
            self.load(index)
            names = self._segments[index][0]
            found = self._capture(index, *({n: s[n] for n in names} for s in (given, fresh)))
            if isinstance(found, str):
                if index in self._compiled:
                    raise NotCompiled(f"segment {index}, {size} samples: {found}")
                tell(f"segment {index}, {size} samples: {found}; it runs operation by operation")
            else:
                made[_key(index, found.inputs)] = found
            given, fresh = (self._next(index, state) for state in (given, fresh))
        self._captured |= made
        if made:
            self.sizes = tuple(sorted({*self.sizes, size}))

    def _next(self, index: int, state: State) -> State:
        """The state at the next boundary, and nothing that is not needed any more."""
        after = state | self.step(index, state)
        specs = self._bundle.manifest.boundaries[index + 1].tensors
        return {spec.name: after[spec.name] for spec in specs}

    def _capture(self, index: int, given: State, fresh: State) -> _Captured | str:
        """A graph whose replay gives for `fresh` what the segment gives without it; or why not.

        A compiler compiles in the warm-up; what it made is compared with torch's own operations.
        """
        with self._streams.computing():
            inputs = {name: value.clone() for name, value in given.items()}
            for _ in range(_WARM_UP_ROUNDS):  # libraries make their choices, and their workspaces
                self._outputs(index, inputs, self._compiled.get(index))
            expected = self._outputs(index, fresh)
        self.wait()
        # What torch keeps of the warm-up it gives to no graph, nor back while one is captured.
        self.free_unused()
        try:
            graph, outputs = self._streams.captured(lambda: self._own(index, inputs), self._pool)
        except Exception as error:
            self._pool = self._streams.gpu.new_pool()
            if is_out_of_memory(error) or is_device_lost(error):
                raise
            return f"it cannot be captured ({' '.join(str(error).split())[:100]})"
        captured = _Captured(graph, inputs, outputs)
        tolerance = FP32_TOLERANCE if self.form.precision == FP32 else TOLERANCE
        with self._streams.computing():
            for name, value in outputs.items():
                spoil(value, expected[name])
            found = captured.replay(fresh)
            wrong = [name for name in expected if differs(found[name], expected[name], tolerance)]
        return f"its replay is wrong in {', '.join(wrong)[:100]}" if wrong else captured

    def _outputs(self, index: int, state: State, compiled: Compiled | None = None) -> State:
        """A segment's in the types of the bundle, whatever they were computed in, and by whom."""
        specs = self._bundle.manifest.boundaries[index + 1].tensors
        types = {spec.name: getattr(torch, spec.dtype) for spec in specs}
        with computing_in(self.form.precision, self._device):
            if compiled is None:
                outputs = self.forward(index, state)
            else:
                given, names, _ = self._segments[index]
                found = compiled(*(state[name] for name in given))
                outputs = dict(zip(names, found, strict=True))
            return {name: value.to(types.get(name, value.dtype)) for name, value in outputs.items()}

    def _own(self, index: int, inputs: State) -> State:
        """The same in memory of its own: a replay writes each element of it, and once."""
        others = [*inputs.values(), *self._segments[index][2].buffers()]
        taken = {_storage(value) for value in others}
        outputs = self._outputs(index, inputs, self._compiled.get(index))
        return {
            name: value.clone() if _storage(value) in taken or _is_expanded(value) else value
            for name, value in outputs.items()
        }

    def _source(self, index: int, is_bounded: bool) -> SegmentSource:
        """What a compiler is given of a segment."""
        manifest = self._bundle.manifest
        inputs, outputs, module = self._segments[index]
        entering, leaving = (
            {spec.name: spec for spec in boundary.tensors}
            for boundary in manifest.boundaries[index : index + 2]
        )
        return SegmentSource(
            name=f"{self._bundle.digest[:16]}-{index}",
            module=module,
            onnx=self._bundle.path(manifest.segments[index].onnx),
            inputs=[entering[name] for name in inputs],
            outputs=[leaving[name] for name in outputs],
            form=self.form,
            device=self._device,
            is_bounded=is_bounded,
        )


def _key(index: int, given: State) -> _Key:
    return index, tuple(tuple(value.shape) for value in given.values())


def _is_expanded(value: torch.Tensor) -> bool:
    """Whether elements share memory, so that nothing can be written there."""
    return any(
        not step and size > 1 for step, size in zip(value.stride(), value.shape, strict=True)
    )


def _storage(value: torch.Tensor) -> int:
    return value.untyped_storage().data_ptr()
