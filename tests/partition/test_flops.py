"""FLOPs by hand, and ignorance that is never silent."""

from __future__ import annotations

import pytest
import torch
from splitpoint.partition.bundle.flops import FORMULAS, FREE, flops_of
from splitpoint.partition.capture.capture import capture


@pytest.mark.parametrize(
    ("op", "inputs", "output", "flops"),
    [
        # 2 x 4x4 outputs x 8 channels x (3 x 3x3) weights, and a bias each
        ("conv2d", [(1, 3, 4, 4), (8, 3, 3, 3), (8,)], (1, 8, 4, 4), 2 * 128 * 27 + 128),
        ("conv2d", [(1, 8, 4, 4), (8, 1, 3, 3)], (1, 8, 4, 4), 2 * 128 * 9),  # depthwise
        ("linear", [(1, 10), (5, 10), (5,)], (1, 5), 105),
        ("matmul", [(1, 4, 8), (1, 8, 3)], (1, 4, 3), 2 * 12 * 8),
        ("addmm", [(5,), (1, 10), (10, 5)], (1, 5), 105),
        # 6 steps, each with gates of 4 x 5 from 3 inputs and from 5 states
        ("lstm", [(6, 1, 3), (1, 1, 5), (20, 3), (20, 5), (20,)], (6, 1, 5), 2 * 6 * 20 * (3 + 5)),
        ("relu", [(1, 7)], (1, 7), 7),
        ("max_pool2d", [(1, 2, 4, 4)], (1, 2, 2, 2), 32),
        ("reshape", [(1, 7)], (7,), 0),
        # scores 2x4x4: 2*8 for q·k, 1 scale, 5 softmax, 2*8 for the values
        ("scaled_dot_product_attention", [(1, 2, 4, 8)] * 3, (1, 2, 4, 8), 32 * (16 + 1 + 5 + 16)),
    ],
)
def test_by_hand(op: str, inputs: list, output: tuple, flops: int) -> None:
    assert flops_of(op, inputs, output) == flops


def test_every_op_is_in_one_place() -> None:
    assert not FREE & FORMULAS.keys()
    assert flops_of("fft_rfft2", [(1, 8, 8)], (1, 8, 5)) is None


def test_unknown_op_is_reported() -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.i0e(x) + 1

    graph = capture(Odd(), (torch.randn(2, 4),)).graph
    assert graph.unsupported_ops == ("special_i0e",)
    assert [layer.flops for layer in graph.layers] == [None, 4]
