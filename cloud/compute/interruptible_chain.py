"""A chain whose work can be broken off between two segments, or two codecs that are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from splitpoint.codec import Array
from splitpoint.partition.run.chain import SegmentChain, State

Check = Callable[[], None]
"""Called now and then; what it raises ends what is done."""


class InterruptibleChain:
    """`chain`, where `check` is called before each segment and each tensor that is fetched.

    What it raises ends what is done. Loading and measuring a model take from seconds to minutes, on
    the thread that also computes every frame; this is how they are told that the worker stops, or
    that a frame waits.
    """

    def __init__(self, chain: SegmentChain, check: Check) -> None:
        self._chain, self._check = chain, check
        self.runtime, self.threads, self.device = chain.runtime, chain.threads, chain.device

    def __len__(self) -> int:
        """How many segments there are."""
        return len(self._chain)

    def load(self, index: int) -> None:
        """Gets a segment ready to run."""
        self._check()
        self._chain.load(index)

    def place(self, values: Mapping[str, Array]) -> State:
        """The runtime's own tensors."""
        return self._chain.place(values)

    def step(self, index: int, state: State) -> State:
        """What segment `index` adds to `state`."""
        self._check()
        return self._chain.step(index, state)

    def fetch(self, value: Any) -> Array:
        """One tensor as an array: who measures codecs asks for one before each of them."""
        self._check()
        return self._chain.fetch(value)

    def join(self, values: Sequence[Any], dim: int) -> Any:
        """The runtime's tensors, one after the other along `dim`."""
        return self._chain.join(values, dim)

    def part(self, value: Any, dim: int, first: int, count: int) -> Any:
        """`count` indices of a tensor along `dim`, from `first` on."""
        return self._chain.part(value, dim, first, count)

    def wait(self) -> None:
        """Returns when the device has nothing left to do."""
        self._chain.wait()

    def layer_ms(self, index: int, state: State, rounds: int) -> dict[str, float]:
        """Median milliseconds that segment `index` spends in each layer it has a record of."""
        self._check()
        return self._chain.layer_ms(index, state, rounds)
