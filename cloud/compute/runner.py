"""A bundle's segments on batches of several requests: joined, run, taken apart."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from splitpoint.codec import Array, SpecError, TensorSpec
from splitpoint.partition.run.chain import SegmentChain, State
from splitpoint.proto.frames import Boundaries

from .unpack import UnpackingChain, together
from .values import Values


class Runner:
    """The segments of one bundle in one runtime. A state holds one boundary's tensors.

    With `sizes`, a segment only ever sees batches of these sizes: others are filled up with copies
    of their first sample, whose results are thrown away.
    """

    def __init__(
        self, chain: SegmentChain, boundaries: Boundaries, sizes: Sequence[int] = ()
    ) -> None:
        self.chain, self._boundaries, self.sizes = chain, boundaries, tuple(sorted(sizes))
        self._place: Callable[[Mapping[str, Any]], State] = chain.place
        self.unpacks = isinstance(chain, UnpackingChain)

    def enter(self, boundary: int, requests: Sequence[Values]) -> State:
        """The tensors of several requests at `boundary`, one after the other.

        `Packed` ones are taken where the runner `unpacks`.
        """
        names = [spec.name for spec in self._boundaries[boundary]]
        own: list[Values] = [{name: values[name] for name in names} for values in requests]
        if self.unpacks:
            own = together(own)
        return self.join(boundary, [self._place(values) for values in own])

    def join(self, boundary: int, states: Sequence[State]) -> State:
        """Several states at `boundary` as one, in their order."""
        if len(states) == 1:
            return states[0]
        return {
            spec.name: self.chain.join([state[spec.name] for state in states], spec.batch_dim)
            for spec in self._boundaries[boundary]
        }

    def part(self, boundary: int, state: State, first: int, samples: int) -> State:
        """`samples` of a state at `boundary`, from number `first` on."""
        return {
            spec.name: self._part(state[spec.name], spec, first, samples)
            for spec in self._boundaries[boundary]
        }

    def run(self, segment: int, state: State, samples: int, room: int) -> State:
        """As `step`, but never for more than `room` samples at a time."""
        if samples <= room:
            return self.step(segment, state, samples)
        pieces = [(first, min(room, samples - first)) for first in range(0, samples, room)]
        return self.join(
            segment + 1,
            [
                self.step(segment, self.part(segment, state, first, count), count)
                for first, count in pieces
            ],
        )

    def step(self, segment: int, state: State, samples: int) -> State:
        """The state at the next boundary, from one of so many `samples`."""
        size = samples
        if self.sizes:
            size = next((size for size in self.sizes if size >= samples), samples)
        if size > samples:
            first = self.part(segment, state, 0, 1)
            state = self.join(segment, [state, *[first] * (size - samples)])
        after = state | self.chain.step(segment, state)
        after = {spec.name: after[spec.name] for spec in self._boundaries[segment + 1]}
        return self.part(segment + 1, after, 0, samples) if size > samples else after

    def wait(self) -> None:
        """Returns when what was started is done; on a GPU it raises what went wrong meanwhile."""
        self.chain.wait()

    def answers(self, state: State, samples: Sequence[int]) -> list[dict[str, Array]]:
        """The outputs of each request, from the state at the end; `SpecError` if they do not fit.

        `samples` are those of each request, in order.
        """
        outputs = {spec.name: self.chain.fetch(state[spec.name]) for spec in self._boundaries[-1]}
        for spec in self._boundaries[-1]:
            if outputs[spec.name].shape != spec.shape_at(sum(samples)):
                raise SpecError(f"the output {spec.name!r} is not that of {sum(samples)} samples")
        firsts = [0, *itertools.accumulate(samples)]
        return [
            {s.name: _rows(outputs[s.name], s, first, count) for s in self._boundaries[-1]}
            for first, count in zip(firsts, samples, strict=False)
        ]

    def _part(self, value: Any, spec: TensorSpec, first: int, samples: int) -> Any:
        each = spec.shape[spec.batch_dim]
        return self.chain.part(value, spec.batch_dim, first * each, samples * each)


def _rows(array: Array, spec: TensorSpec, first: int, samples: int) -> Array:
    each = spec.shape[spec.batch_dim]
    rows = slice(first * each, (first + samples) * each)
    return array[(slice(None),) * spec.batch_dim + (rows,)]
