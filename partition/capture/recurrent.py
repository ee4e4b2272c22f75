"""Shapes of recurrent layers without going through their steps.

To learn the shape of what an LSTM answers, torch runs its decomposition on tensors without data:
a dozen operations for every step, layer and direction, which takes minutes for a few hundred steps
although the graph keeps the layer as one operation. One step tells the shapes of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._decomp import decompositions as torch_own


@contextmanager
def one_step_shapes(*, for_onnx: bool = False) -> Iterator[None]:
    """Within it, torch looks at the first step of a recurrent layer only.

    It must keep such layers as they are meanwhile. Its ONNX exporter takes `torch.nn.RNN` apart, so
    that one keeps all its steps `for_onnx`.
    """
    every_step: Callable[..., Any] = torch_own._rnn_helper

    def one_step(given: torch.Tensor, *args: Any) -> Any:
        batch_first, layer = args[-2:]
        if given.dim() != 3 or (for_onnx and not _has_onnx_form(layer)):
            return every_step(given, *args)
        steps = 1 if batch_first else 0
        answer, states = every_step(given.narrow(steps, 0, 1), *args)
        shape = [given.shape[steps], given.shape[1 - steps], answer.shape[2]]
        found = answer.new_empty(shape)  # in memory the steps come first, whatever is asked for
        return found.transpose(0, 1) if batch_first else found, states

    torch_own._rnn_helper = one_step
    try:
        yield
    finally:
        torch_own._rnn_helper = every_step


def _has_onnx_form(layer: Any) -> bool:
    """Whether this is what computes one layer of an LSTM or a GRU."""
    lstm = (torch_own.one_layer_lstm, torch_own.mkldnn_one_layer_lstm)
    cell = getattr(layer, "keywords", {}).get("hidden_fn")
    return layer in lstm or cell is torch_own.gru_cell
