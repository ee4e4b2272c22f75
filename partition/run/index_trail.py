"""From an index back to what it comes from: which numbers that may have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .index_operands import base_name
from .index_ranges import LEAST, MOST, Pick

INTEGERS = {str(dtype): np.iinfo(dtype) for dtype in map(np.dtype, ("u1", "i1", "i2", "i4", "i8"))}
# What has the numbers of its first argument and no others.
_SAME_NUMBERS = frozenset({
    "_unsafe_view", "alias", "broadcast_to", "clone", "contiguous", "detach", "expand", "flatten",
    "flip", "lift_fresh_copy", "movedim", "permute", "repeat", "reshape", "roll", "squeeze", "t",
    "tile", "transpose", "unflatten", "unsqueeze",
})  # fmt: skip
_NARROW = frozenset(name for name, limits in INTEGERS.items() if limits.bits < 32)
_Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Trail:
    """A tensor that an index follows from: its numbers have to be from `low` to `high`.

    That is of those that `picks` leave, which were made of it on the way to the index. They
    `may_wrap` where something was added to them, unless their type is wide; and `is_cast` says
    whether they became another type.
    """

    name: str
    low: int
    high: int
    picks: tuple[Pick, ...] = ()
    may_wrap: bool = False
    is_cast: bool = False

    @property
    def is_free(self) -> bool:
        """Whether any number will do."""
        return (self.low, self.high) == (LEAST, MOST)

    def may_be_of(self, dtype: str) -> bool:
        """Whether the range says all of numbers of that type: integers that do not wrap."""
        return dtype in INTEGERS and not (self.may_wrap and dtype in _NARROW)

    def before(self, nodes: Mapping[str, _Node]) -> Trail | None:
        """One of a program's operations further back; None through what cannot be followed."""
        node = nodes[self.name]
        args, kwargs, name = node["args"], node["kwargs"], base_name(node["op"])
        if node["op"] == "aten.where.self":
            return self._counted_from_the_end(args, nodes)
        if node["op"] == "getitem":
            source = nodes.get(args[0]["t"])
            if source is None or base_name(source["op"]) != "unbind":
                return None
            return self._picked(source["args"][0], ([*source["args"], 0][1], args[1]))
        if not args or not isinstance(args[0], dict) or "t" not in args[0]:
            return None
        if name in _SAME_NUMBERS:
            return None if self.picks else self._from(args[0], self.low, self.high)
        if name == "_to_copy":
            return self._cast(args[0], kwargs)
        return None if kwargs else self._through(name, args)

    def _through(self, name: str, args: Sequence[Any]) -> Trail | None:
        """Operations that have all they need in the order of their arguments."""
        if name == "select":
            return self._picked(args[0], (args[1], args[2]))
        if name == "slice":
            given: list[Any] = [0, None, None, 1]
            dim, start, end, step = [*args[1:], *given[len(args) - 1 :]]
            if not start and step == 1 and end in (None, MOST):  # all of it
                return self._from(args[0], self.low, self.high)
            return self._picked(args[0], (dim, slice(start, end, step)))
        if name in ("add", "sub"):
            return self._shifted(args[0], args[1], 1 if name == "add" else -1)
        if name in ("clamp", "clamp_min"):
            return self._clamped(args[0], *[*args[1:], None][:2])
        if name == "clamp_max":
            return self._clamped(args[0], None, args[1])
        return None

    def _from(self, source: Mapping[str, Any], low: int, high: int) -> Trail:
        return replace(self, name=source["t"], low=low, high=high)

    def _cast(self, source: _Node, kwargs: Mapping[str, Any]) -> Trail | None:
        if "dtype" not in kwargs:
            return self._from(source, self.low, self.high)
        dtype = kwargs["dtype"]["dtype"]
        if not self.may_be_of(dtype):
            return None
        limits, low, high = INTEGERS[dtype], LEAST, MOST
        if self.low > limits.min or self.high < limits.max:
            if dtype in _NARROW:
                return None  # models may well mean it that numbers wrap there
            # Beyond 32 bits nobody does.
            low, high = max(self.low, limits.min), min(self.high, limits.max)
        found = self._from(source, low, high)
        return replace(found, may_wrap=False, is_cast=True)

    def _shifted(self, source: _Node, by: Any, sign: int) -> Trail | None:
        if type(by) is not int or self.low == LEAST or self.high == MOST:  # the sum might wrap
            return None
        found = self._from(source, self.low - sign * by, self.high - sign * by)
        return replace(found, may_wrap=True)

    def _clamped(self, source: _Node, least: Any, most: Any) -> Trail | None:
        low, high = self.low, self.high
        if least is not None:
            if type(least) is not int or least > high:
                return None
            low = LEAST if least >= low else low
        if most is not None:
            if type(most) is not int or most < self.low:
                return None
            high = MOST if most <= high else high
        return self._from(source, low, high)

    def _picked(self, source: _Node, pick: Pick) -> Trail | None:
        dim, taken = pick
        numbers = [taken.start, taken.stop, taken.step] if isinstance(taken, slice) else [taken]
        if "t" not in source or any(type(n) not in (int, type(None)) for n in (dim, *numbers)):
            return None
        return replace(self, name=source["t"], picks=(pick, *self.picks))

    def _counted_from_the_end(
        self, args: Sequence[Any], nodes: Mapping[str, _Node]
    ) -> Trail | None:
        """Through `where(x < 0, x + n, x)`, as models from ONNX have it."""
        negative, counted = (nodes.get(one.get("t", "")) for one in args[:2])
        size = self.high + 1
        if (
            negative is not None
            and counted is not None
            and self.low == 0
            and negative["op"] == "aten.lt.Scalar"
            and negative["args"] == [args[2], 0]
            and counted["op"] == "aten.add.Tensor"
            and counted["args"] == [args[2], size]
        ):
            return replace(self._from(args[2], -size, self.high), may_wrap=True)
        return None
