"""The model as a list of layers in execution order, with what crosses after each of them.

These records travel in the bundle's manifest; nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from splitpoint.codec import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One leaf operation as a user names it, for one sample.

    `flops` is None when no formula is known for `op`. `inputs` are the indices of the layers that
    it reads (-1 for the model's input). `crossing_bytes` is what a cut right after this layer
    would carry as raw tensors, None where no cut is possible.
    """

    name: str
    op: str
    output_shape: tuple[int, ...]
    dtype: str
    output_bytes: int
    flops: int | None
    params: int
    param_bytes: int
    inputs: tuple[int, ...]
    crossing_bytes: int | None
    segment: int = 0

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return asdict(self) | {"output_shape": list(self.output_shape), "inputs": list(self.inputs)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Layer:
        """Reads the manifest's form (raises KeyError or TypeError for a damaged one)."""
        fields = {key: data[key] for key in cls.__dataclass_fields__}
        fields["output_shape"] = tuple(fields["output_shape"])
        fields["inputs"] = tuple(fields["inputs"])
        return cls(**fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A place where the model can be cut: after layer `after` (-1: before the first)."""

    after: int
    tensors: tuple[TensorSpec, ...]

    @property
    def nbytes(self) -> int:
        """Raw bytes that cross for one sample."""
        return sum(spec.nbytes_at(1) for spec in self.tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelGraph:
    """All layers of a captured model and every place where it can be cut, in order.

    The first cut is the model's input, the last one its output. `unsupported_ops` are the
    operations whose FLOPs are unknown.
    """

    layers: tuple[Layer, ...]
    cuts: tuple[Cut, ...]
    unsupported_ops: tuple[str, ...]

    @property
    def flops(self) -> int:
        """Known operations of one sample."""
        return sum(layer.flops or 0 for layer in self.layers)
