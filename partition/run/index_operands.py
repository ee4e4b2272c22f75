"""Which arguments of ATen's operations are indices, and how far each may go.

Hardly anything else that a segment computes fails for the values that it is given. An index out of
range is an exception on a CPU; on a GPU a kernel asserts, and nothing works there until another
process begins with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

# Those of (input, dimension, index, …).
_ALONG = frozenset({
    "gather", "index_add", "index_copy", "index_fill", "index_reduce", "index_select", "scatter",
    "scatter_add", "scatter_reduce",
})  # fmt: skip
# Those of (input, [index of each dimension], …).
_BY_DIMENSION = frozenset({"_unsafe_index", "_unsafe_index_put", "index", "index_put"})
_SIGNED = _BY_DIMENSION | {"index_fill", "put", "take"}
_UNPOOLING = frozenset({"max_unpool2d", "max_unpool3d"})
# What asserts for values that no range of single ones describes.
_UNCHECKABLE = frozenset({
    "_embedding_bag", "_embedding_bag_forward_only", "bernoulli", "binary_cross_entropy",
    "cross_entropy_loss", "embedding_bag", "masked_scatter", "multi_margin_loss",
    "multilabel_margin_loss", "multilabel_margin_loss_forward", "multinomial", "nll_loss",
    "nll_loss2d", "nll_loss_nd",
})  # fmt: skip


class IndexOperand(NamedTuple):
    """The argument at `place`, or of the list there the one at `inner`, is an index.

    It goes into dimension `dim` of the first argument, into all of its elements where that is None,
    or into `extent` places where that is known. Of n places it may be 0 to n - 1, and where it is
    `signed` from -n on.
    """

    place: int
    inner: int | None = None
    dim: int | None = None
    extent: int | None = None
    signed: bool = False

    @property
    def may_be_mask(self) -> bool:
        """Whether bool or uint8 here are no indices, but say of each place whether it is meant."""
        return self.inner is not None

    def of(self, args: Sequence[Any]) -> Any:
        """The index itself."""
        return args[self.place] if self.inner is None else args[self.place][self.inner]

    def replaced(self, args: Sequence[Any], index: Any) -> tuple[Any, ...]:
        """The arguments with another index in its place."""
        found = list(args)
        if self.inner is None:
            found[self.place] = index
        else:
            found[self.place] = list(args[self.place])
            found[self.place][self.inner] = index
        return tuple(found)


def index_operands(op: str, args: Sequence[Any]) -> list[IndexOperand]:
    """The indices among `args` of the operation `op`, as `aten.embedding.default`."""
    name = base_name(op)
    signed = name in _SIGNED
    if name in _ALONG:
        return [IndexOperand(2, dim=args[1], signed=signed)]
    if name in _BY_DIMENSION:
        places = [inner for inner, one in enumerate(args[1]) if one is not None]
        return [IndexOperand(1, inner, dim=inner, signed=signed) for inner in places]
    if name == "embedding":
        return [IndexOperand(1, dim=0)]
    if name in ("put", "take"):
        return [IndexOperand(1, signed=signed)]
    if name == "take_along_dim":
        return [IndexOperand(1, dim=args[2] if len(args) > 2 else None)]
    if name == "one_hot":
        return [IndexOperand(0, extent=args[1])]
    if name in _UNPOOLING:
        return [IndexOperand(1, extent=math.prod(args[2]))]
    return []


def is_uncheckable(op: str) -> bool:
    """Whether it may fail for values, and nobody can say beforehand for which."""
    return base_name(op) in _UNCHECKABLE


def base_name(op: str) -> str:
    """`embedding` of `aten.embedding.default`; "" for what is none of ATen's."""
    parts = op.split(".")
    return parts[1] if len(parts) == 3 and parts[0] == "aten" else ""
