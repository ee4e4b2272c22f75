"""What a bundle's programs say of its indices: which are taken from frames, and their ranges.

Each is followed back to the tensors that cross boundaries. Needs no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from safetensors import SafetensorError, safe_open
from splitpoint.codec import TensorSpec

from ..bundle.bundle import Bundle
from ..errors import BundleError
from .index_operands import IndexOperand, base_name, index_operands
from .index_ranges import Indexes, IndexRange
from .index_trail import INTEGERS, Trail


def read_indexes(bundle: Bundle) -> Indexes:
    """Those of a bundle; raises `BundleError` for one whose programs cannot be read."""
    try:
        return _Reader(bundle).read()
    except (
        OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, SafetensorError
    ) as error:  # fmt: skip
        raise BundleError(
            f"a program of {bundle.folder} is malformed ({type(error).__name__}: {error})",
            "compile the bundle again",
        ) from error


class _Reader:
    """Of one bundle, segment by segment."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle, self._boundaries = bundle, bundle.manifest.boundaries
        self._nodes: dict[str, Mapping[str, Any]] = {}
        self._segment_of: dict[str, int] = {}
        self._specs: dict[str, TensorSpec] = {
            spec.name: spec for one in self._boundaries for spec in one.tensors
        }
        self._shapes: dict[str, Sequence[int]] = {}  # of weights
        self._found: list[tuple[int, IndexRange]] = []  # with the segment that asks for it

    def read(self) -> Indexes:
        """All of it."""
        unknown = set()
        for number, segment in enumerate(self._bundle.manifest.segments):
            program = json.loads(self._bundle.path(segment.program).read_text(encoding="utf-8"))
            self._read_shapes(program, segment.weights)
            for node in program["nodes"]:
                self._nodes[node["name"]] = node
                self._segment_of[node["name"]] = number
                is_known = True
                for count, operand in enumerate(index_operands(node["op"], node["args"])):
                    # One that is a mask of several dimensions puts those behind it elsewhere.
                    is_known = is_known and self._is_known(number, node["args"], operand)
                    if not is_known:
                        unknown.add((node["name"], count))
        ranges = {at: self._ranges(at) for at in range(len(self._boundaries) - 1)}
        return Indexes({at: own for at, own in ranges.items() if own}, frozenset(unknown))

    def _read_shapes(self, program: Mapping[str, Any], weights: str) -> None:
        if any(index_operands(node["op"], node["args"]) for node in program["nodes"]):
            with safe_open(self._bundle.path(weights), framework="numpy") as file:
                for name in program["weights"]:
                    self._shapes[name] = file.get_slice(name).get_shape()

    def _ranges(self, boundary: int) -> tuple[IndexRange, ...]:
        """What the segments from there on ask of its tensors."""
        names = {spec.name for spec in self._boundaries[boundary].tensors}
        found: dict[tuple[str, str], IndexRange] = {}
        for segment, one in self._found:
            if segment < boundary or one.name not in names:
                continue
            key = one.name, repr(one.picks)
            before = found.get(key, one)
            found[key] = IndexRange(
                name=one.name,
                low=max(before.low, one.low),
                high=min(before.high, one.high),
                picks=one.picks,
            )
        return tuple(found.values())

    def _is_known(self, segment: int, args: Sequence[Any], operand: IndexOperand) -> bool:
        """Whether it is in range for every frame that keeps to the ranges."""
        index, extent = operand.of(args), self._extent(args, operand)
        if "t" not in index:
            return True  # a weight
        if extent is None:
            return self._is_constant(index["t"], segment)
        trail = Trail(index["t"], -extent if operand.signed else 0, extent - 1)
        seen = set[str]()
        while not trail.is_free:
            if trail.name in seen:
                raise ValueError(f"{trail.name[:40]!r} follows from itself")
            seen.add(trail.name)
            spec = self._specs.get(trail.name)
            if spec is not None and not self._note(segment, trail, spec, operand):
                return False
            if trail.name not in self._nodes:
                return spec is not None  # an input of the model
            before = trail.before(self._nodes)
            if before is None:
                return self._is_constant(trail.name, self._segment_of[trail.name])
            trail = before
        return True

    def _note(self, segment: int, trail: Trail, spec: TensorSpec, operand: IndexOperand) -> bool:
        """What crosses a boundary gets its range; False where that would not say all."""
        is_mask = operand.may_be_mask and spec.dtype == "uint8" and not trail.is_cast
        if is_mask or not trail.may_be_of(spec.dtype):
            return False
        limits = INTEGERS[spec.dtype]
        if trail.low > limits.min or trail.high < limits.max:
            own = IndexRange(name=spec.name, low=trail.low, high=trail.high, picks=trail.picks)
            self._found.append((segment, own))
        return True

    def _extent(self, args: Sequence[Any], operand: IndexOperand) -> int | None:
        """How many places there are to choose from; None where no file says it."""
        if operand.extent is not None:
            return operand.extent
        shape = self._shape(args[0])
        if shape is None:
            return None
        sizes = shape if operand.dim is None else [shape[operand.dim]]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)

    def _shape(self, tensor: Mapping[str, str]) -> Sequence[int | None] | None:
        """None for what grows with the batch."""
        if "w" in tensor:
            return self._shapes[tensor["w"]]
        spec, node = self._specs.get(tensor["t"]), self._nodes.get(tensor["t"])
        if spec is not None:
            grows = [at == spec.batch_dim and not spec.one_sample for at in range(len(spec.shape))]
            return [None if g else size for g, size in zip(grows, spec.shape, strict=True)]
        if node is not None and base_name(node["op"]) == "t":
            turned = self._shape(node["args"][0])
            return None if turned is None else turned[::-1]
        return None

    def _is_constant(self, name: str, segment: int) -> bool:
        """Whether it follows from nothing that enters the segment, or one before it."""
        waiting, seen = [name], set[str]()
        while waiting:
            one = waiting.pop()
            if self._segment_of.get(one) != segment:
                return False  # an input of the model, or it crosses a boundary
            if one not in seen:
                seen.add(one)
                waiting += _tensors(self._nodes[one]["args"])
                waiting += _tensors(list(self._nodes[one]["kwargs"].values()))
        return True


def _tensors(value: Any) -> list[str]:
    """The names of all tensors in an argument of a program."""
    if isinstance(value, list):
        return [name for one in value for name in _tensors(one)]
    return [value["t"]] if isinstance(value, dict) and "t" in value else []
