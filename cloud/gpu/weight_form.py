"""In which form a segment's weights lie on a GPU. They get it once, when they are loaded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from ..options import BF16, EAGER, FP16, FP32

# What autocast computes in the smaller format, and therefore would cast in every run.
_PRODUCTS = frozenset(
    f"aten::{name}"
    for name in (
        "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
        "convolution", "_convolution", "linear", "addmm", "mm", "matmul", "bmm", "baddbmm",
        "addbmm", "addmv", "mv",
    )
)  # fmt: skip
_CONVOLUTIONS = frozenset({
    "aten::conv2d", "aten::conv_transpose2d", "aten::convolution", "aten::_convolution",
})  # fmt: skip
_VIEWS = frozenset(
    f"aten::{name}"
    for name in (
        "t", "transpose", "permute", "view", "reshape", "expand", "unsqueeze", "squeeze", "alias",
        "detach", "slice", "select",
    )
)  # fmt: skip
SMALL_DTYPES = {BF16: torch.bfloat16, FP16: torch.float16}


@dataclass(frozen=True, slots=True)
class Form:
    """What is computed in, and whether weights of 2-d convolutions have their channels last.

    `compiler` makes one of a segment's operations; with "none" each is torch's own.
    """

    precision: str = FP32
    channels_last: bool = False
    compiler: str = EAGER


def put_weights(module: GraphModule, form: Form) -> None:
    """Gives the weights of a segment their form, where that changes no more than its speed.

    Only what nothing but products reads gets the smaller format: a table or a norm stays float32.
    """
    users = _users(module)
    for name, tensor in list(module.named_buffers()):
        reads = users.get(name, [])
        found = tensor
        dtype = SMALL_DTYPES.get(form.precision)
        if dtype is not None and found.dtype == torch.float32 and _only_products(reads):
            found = found.to(dtype)
        if (
            form.channels_last
            and found.dim() == 4
            and any(_convolves(node, n) for node, n in reads)
        ):
            found = found.to(memory_format=torch.channels_last)
        if found is not tensor:
            setattr(module, name, found)


def has_convolutions(module: GraphModule) -> bool:
    """Whether there is a weight that could have its channels last."""
    users, buffers = _users(module), dict(module.named_buffers())
    return any(
        buffers[name].dim() == 4 and any(_convolves(node, number) for node, number in reads)
        for name, reads in users.items()
    )


def _users(module: GraphModule) -> dict[str, list[tuple[Node, Node]]]:
    """By weight: the operations that read it, or a view of it, each with what it reads."""
    return {
        str(node.target): list(_reads(node)) for node in module.graph.nodes if node.op == "get_attr"
    }


def _reads(node: Node) -> list[tuple[Node, Node]]:
    found: list[tuple[Node, Node]] = []
    for user in node.users:
        found += _reads(user) if _operation(user) in _VIEWS else [(user, node)]
    return found


def _only_products(reads: list[tuple[Node, Node]]) -> bool:
    return bool(reads) and all(_operation(user) in _PRODUCTS for user, _ in reads)


def _convolves(user: Node, read: Node) -> bool:
    return _operation(user) in _CONVOLUTIONS and user.args[1] is read


def _operation(node: Node) -> str:
    is_call = node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)
    return str(node.target._schema.name) if is_call else ""  # type: ignore[union-attr]
