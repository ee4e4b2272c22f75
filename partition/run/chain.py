"""What a runtime must offer so that a bundle can be measured in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from splitpoint.codec import Array

State = dict[str, Any]
"""Tensors by name, in whatever form the runtime keeps them."""


class SegmentChain(Protocol):
    """All segments of one bundle, loaded one by one into one runtime.

    `place` turns arrays into the runtime's tensors and `fetch` turns one back. `step` runs a
    segment and returns the tensors that it adds; `wait` returns when everything that was started
    is done.
    """

    runtime: str
    threads: int
    device: str

    def __len__(self) -> int:
        """How many segments there are."""
        ...

    def load(self, index: int) -> None:
        """Gets a segment ready to run; again has no effect."""
        ...

    def place(self, values: Mapping[str, Array]) -> State:
        """The runtime's own tensors."""
        ...

    def step(self, index: int, state: State) -> State:
        """What segment `index` adds to `state`; `SegmentError` when the runtime fails."""
        ...

    def fetch(self, value: Any) -> Array:
        """One tensor as an array."""
        ...

    def join(self, values: Sequence[Any], dim: int) -> Any:
        """The runtime's tensors, one after the other along `dim`."""
        ...

    def part(self, value: Any, dim: int, first: int, count: int) -> Any:
        """`count` indices of a tensor along `dim`, from `first` on."""
        ...

    def wait(self) -> None:
        """Returns when the device has nothing left to do."""
        ...

    def layer_ms(self, index: int, state: State, rounds: int) -> dict[str, float]:
        """Median milliseconds that segment `index` spends in each layer it has a record of."""
        ...
