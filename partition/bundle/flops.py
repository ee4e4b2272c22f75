"""Floating-point operations of one layer, as formulas on shapes.

One multiply-add counts as two operations. Every ATen operation is in exactly one of three places:
`FORMULAS` (counted), `FREE` (moves or renames data: zero on purpose), or neither, and then it is
reported as unsupported and its count is unknown, never silently zero.

Formulas get the shapes of the tensor arguments in order, and the shape of the output, both at
batch size 1. Convolutions and matrix products follow from their definition; normalisations,
pooling and softmax count what their textbook form does for each element.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Shape = tuple[int, ...]
Formula = Callable[[Sequence[Shape], Shape], int]


def _convolution(inputs: Sequence[Shape], output: Shape) -> int:
    # The weight is [out, in / groups, *kernel]: its numel over `out` is the work for one output.
    work = 2 * math.prod(output) * math.prod(inputs[1][1:])
    return work + (math.prod(output) if len(inputs) > 2 else 0)


def _transposed_convolution(inputs: Sequence[Shape], output: Shape) -> int:
    # The weight is [in, out / groups, *kernel]: each input value is spread over the rest.
    work = 2 * math.prod(inputs[0]) * math.prod(inputs[1][1:])
    return work + (math.prod(output) if len(inputs) > 2 else 0)


def _linear(inputs: Sequence[Shape], output: Shape) -> int:
    work = 2 * math.prod(output) * inputs[0][-1]
    return work + (math.prod(output) if len(inputs) > 2 else 0)


def _matmul(inputs: Sequence[Shape], output: Shape) -> int:
    return 2 * math.prod(output) * inputs[0][-1]


def _addmm(inputs: Sequence[Shape], output: Shape) -> int:
    return math.prod(output) * (2 * inputs[1][-1] + 1)


def _attention(inputs: Sequence[Shape], output: Shape) -> int:
    queries, keys = inputs[0], inputs[1]
    scores = math.prod(queries[:-1]) * keys[-2]
    # q·k, scale, softmax, and the weighted sum of values.
    return scores * (2 * queries[-1] + 1 + _SOFTMAX_PER_ELEMENT + 2 * output[-1])


def _recurrent(inputs: Sequence[Shape], output: Shape) -> int:
    # Every step multiplies by all matrices; beside them come states (3-D) and biases (1-D).
    steps = inputs[0][0] * inputs[0][1]  # of which one is the batch, 1
    return 2 * steps * sum(math.prod(shape) for shape in inputs if len(shape) == 2)


_SOFTMAX_PER_ELEMENT = 5  # maximum, subtraction, exponential, sum, division


def _per_output(operations: int) -> Formula:
    return lambda inputs, output: operations * math.prod(output)


def _per_input(operations: int) -> Formula:
    return lambda inputs, output: operations * math.prod(inputs[0])


FORMULAS: dict[str, Formula] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d"), _transposed_convolution),
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm"), _matmul),
    **dict.fromkeys(("addmm", "baddbmm"), _addmm),
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(("lstm", "gru"), _recurrent),
    "batch_norm": _per_output(2),  # at inference: one scale, one shift
    **dict.fromkeys(
        ("layer_norm", "native_layer_norm", "group_norm", "instance_norm"), _per_output(7)
    ),  # mean, variance, normalise, scale, shift
    "rms_norm": _per_output(4),
    "local_response_norm": _per_output(13),
    **dict.fromkeys(
        ("softmax", "_softmax", "log_softmax", "_log_softmax"), _per_output(_SOFTMAX_PER_ELEMENT)
    ),
    # Pooling reads each input once when windows do not overlap; the usual small overlap is ignored.
    **dict.fromkeys(
        (
            "max_pool2d",
            "max_pool2d_with_indices",
            "avg_pool2d",
            "adaptive_avg_pool2d",
            "adaptive_max_pool2d",
            "max_pool1d",
            "avg_pool1d",
            "adaptive_avg_pool1d",
            "mean",
            "sum",
            "amax",
            "amin",
            "max",
            "min",
            "argmax",
            "argmin",
            "topk",
            "cumsum",
            "prod",
        ),
        _per_input(1),
    ),
    "var": _per_input(3),
    **dict.fromkeys(
        ("upsample_bilinear2d", "_upsample_bilinear2d_aa", "grid_sampler"), _per_output(7)
    ),
    "upsample_bicubic2d": _per_output(31),
    **dict.fromkeys(("linalg_vector_norm",), _per_input(2)),
    # Pointwise: one operation an element, also for the transcendental ones, whose real cost
    # depends on the library.
    **dict.fromkeys(
        (
            "relu",
            "relu6",
            "hardtanh",
            "clamp",
            "clamp_min",
            "clamp_max",
            "hardswish",
            "hardsigmoid",
            "silu",
            "gelu",
            "elu",
            "celu",
            "selu",
            "leaky_relu",
            "prelu",
            "mish",
            "softplus",
            "sigmoid",
            "tanh",
            "exp",
            "log",
            "sqrt",
            "rsqrt",
            "reciprocal",
            "abs",
            "neg",
            "sin",
            "cos",
            "tan",
            "asin",
            "acos",
            "atan",
            "sinh",
            "cosh",
            "asinh",
            "acosh",
            "atanh",
            "erf",
            "floor",
            "ceil",
            "round",
            "sign",
            "pow",
            "add",
            "sub",
            "rsub",
            "mul",
            "div",
            "maximum",
            "minimum",
            "remainder",
            "floor_divide",
            "where",
            "masked_fill",
            "eq",
            "ne",
            "lt",
            "le",
            "gt",
            "ge",
            "logical_and",
            "logical_or",
            "logical_not",
            "bitwise_and",
            "bitwise_or",
            "bitwise_not",
            "__and__",
            "__or__",
            "isnan",
            "addcmul",
            "lerp",
        ),
        _per_output(1),
    ),
}

FREE: frozenset[str] = frozenset(
    """
    reshape view _unsafe_view permute transpose t squeeze unsqueeze flatten unflatten select
    slice slice_scatter select_scatter split split_with_sizes chunk unbind narrow cat concat
    stack expand expand_as repeat tile roll flip pad constant_pad_nd reflection_pad2d
    replication_pad2d pixel_shuffle pixel_unshuffle channel_shuffle unfold im2col embedding
    index index_select gather scatter take_along_dim upsample_nearest2d to _to_copy type_as
    clone alias detach contiguous dropout getitem zeros ones full empty arange zeros_like
    ones_like full_like new_zeros new_ones new_full scalar_tensor movedim swapaxes tril triu
    as_strided
    """.split()  # noqa: SIM905 - a name a line would fill two screens
)


def flops_of(op: str, inputs: Sequence[Shape], output: Shape) -> int | None:
    """Operations of one ATen operation (`conv2d`) for one sample; None if there is no formula."""
    if op in FREE:
        return 0
    formula = FORMULAS.get(op)
    return None if formula is None else formula(inputs, output)


def is_heavy(op: str) -> bool:
    """Whether this is a convolution or matrix product, into which runtimes fuse what follows."""
    return FORMULAS.get(op) in _HEAVY


_HEAVY = (_convolution, _transposed_convolution, _linear, _matmul, _addmm, _attention)
