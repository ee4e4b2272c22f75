"""How large the numbers of a frame may be that a model takes as indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from splitpoint.codec import Array, SpecError

# No integer goes beyond these, so that they stand for no limit at all.
LEAST, MOST = -(1 << 63), (1 << 63) - 1
Pick = tuple[int, "int | slice"]
"""A dimension, and what is taken of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRange:
    """Numbers from `low` to `high` are taken of the tensor `name`: of those that `picks` leave.

    Picks are made one after the other.
    """

    name: str
    low: int
    high: int
    picks: tuple[Pick, ...] = ()

    def check(self, array: Array) -> None:
        """Raises `SpecError` for a number that is out of range."""
        for dim, taken in self.picks:
            array = array[(slice(None),) * (dim % array.ndim) + (taken,)]
        if not array.size:
            return
        for found in (int(array.min()), int(array.max())):
            if not self.low <= found <= self.high:
                raise SpecError(
                    f"tensor {self.name!r} has the index {found}, and the model takes {self.words}"
                )

    @property
    def words(self) -> str:
        """What is taken, as a person says it."""
        if self.low == LEAST:
            return f"{self.high} at the most"
        return f"{self.low} at the least" if self.high == MOST else f"{self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Indexes:
    """What is known of a bundle's indices.

    `ranges` are what a frame has to keep to, by its boundary. `unknown` are indices that may be out
    of range all the same: the name of a program's node, and which of its indices, from 0 on.
    """

    ranges: Mapping[int, tuple[IndexRange, ...]] = field(default_factory=dict)
    unknown: frozenset[tuple[str, int]] = frozenset()

    def names(self, boundary: int) -> set[str]:
        """The boundary's tensors that hold indices."""
        return {one.name for one in self.ranges.get(boundary, ())}

    def check(self, boundary: int, values: Mapping[str, Any]) -> None:
        """Raises `SpecError` for a frame with an index that is out of range.

        Integers travel as they are, so these tensors are arrays, whatever the others are.
        """
        for one in self.ranges.get(boundary, ()):
            one.check(values[one.name])
