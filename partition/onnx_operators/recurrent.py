"""Recurrent layers: one layer in one or both directions, with or without initial states.

torch has them as single operations, which segments keep. Its gates come in another order, and its
answers have the directions beside each other: `[steps, batch, directions * hidden]`, where ONNX has
`[steps, directions, batch, hidden]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .node import Node, Operator

# The place of torch's gates among ONNX's: i f g o of iofc, and r z n of zrh.
_LSTM_GATES, _GRU_GATES = (0, 2, 3, 1), (1, 0, 2)
_LENGTHS, _INITIAL = 4, (5, 6)  # places of inputs
_LSTM_ACTIVATIONS, _GRU_ACTIVATIONS = ["Sigmoid", "Tanh", "Tanh"], ["Sigmoid", "Tanh"]


def _lstm(
    node: Node,
    x: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None = None,
    lengths: Sequence[Any] | None = None,
    hidden: Tensor | None = None,
    cell: Tensor | None = None,
    peepholes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    if node.get("input_forget", 0) or peepholes is not None:
        raise node.cannot("has gates that look at its cells, or at each other")
    x = _checked(node, x, lengths, _LSTM_ACTIVATIONS)
    states = tuple(
        _initial(node, place, given, x, recurrent)
        for place, given in zip(_INITIAL, (hidden, cell), strict=True)
    )
    weights = _weights(weight, recurrent, bias, _LSTM_GATES)
    both = _is_both(node)
    y, last, cells = torch.lstm(x, states, weights, bias is not None, 1, 0.0, False, both, False)
    return _answer(node, y, recurrent), last, cells


def _gru(
    node: Node,
    x: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None = None,
    lengths: Sequence[Any] | None = None,
    hidden: Tensor | None = None,
) -> tuple[Tensor, ...]:
    if not node.get("linear_before_reset", 0):
        raise node.cannot(
            "resets before it multiplies (linear_before_reset=0), which torch's GRU does not",
            "export the model with linear_before_reset=1, which Keras calls reset_after",
        )
    x = _checked(node, x, lengths, _GRU_ACTIVATIONS)
    state = _initial(node, _INITIAL[0], hidden, x, recurrent)
    weights = _weights(weight, recurrent, bias, _GRU_GATES)
    y, last = torch.gru(x, state, weights, bias is not None, 1, 0.0, False, _is_both(node), False)
    return _answer(node, y, recurrent), last


def _is_both(node: Node) -> bool:
    return bool(node.get("direction", "forward") == "bidirectional")


def _checked(
    node: Node, x: Tensor, lengths: Sequence[Any] | None, activations: list[str]
) -> Tensor:
    """The steps in the order in which they are taken; for what torch has not, an error."""
    if node.get("layout", 0):
        raise node.cannot("has the batch before the steps (layout=1)", "export it with layout=0")
    if node.get("clip", 0.0):
        raise node.cannot("clips what its gates see")
    asked = node.get("activations", activations)
    if [name.lower() for name in asked] != [n.lower() for n in activations] * (
        len(asked) // len(activations)
    ):
        raise node.cannot(f"has the activations {asked}")
    if lengths is not None and any(length != x.shape[0] for length in lengths):
        raise node.cannot(
            "takes sequences of several lengths", "export it without lengths: all steps are taken"
        )
    return x.flip(0) if node.get("direction", "forward") == "reverse" else x


def _initial(node: Node, place: int, given: Tensor | None, x: Tensor, recurrent: Tensor) -> Tensor:
    """The state before the first step, `[directions, batch, hidden]`."""
    if given is None:
        return x.new_zeros(recurrent.shape[0], x.shape[1], recurrent.shape[2])
    if place in node.constants and given.shape[1] == 1:  # all samples begin alike
        return given.expand(-1, x.shape[1], -1)
    return given


def _weights(
    weight: Tensor, recurrent: Tensor, bias: Tensor | None, order: Sequence[int]
) -> list[Tensor]:
    """Of each direction: those of the inputs, of the state, and their biases."""
    found: list[Tensor] = []
    for direction in range(recurrent.shape[0]):
        parts = [weight[direction], recurrent[direction]]
        if bias is not None:
            parts += bias[direction].chunk(2)
        for part in parts:
            gates = part.chunk(len(order))
            found.append(torch.cat([gates[place] for place in order]))
    return found


def _answer(node: Node, y: Tensor, recurrent: Tensor) -> Tensor:
    directions, hidden = recurrent.shape[0], recurrent.shape[2]
    y = y.flip(0) if node.get("direction", "forward") == "reverse" else y
    if directions == 1:
        return y.unsqueeze(1)
    return y.reshape(*y.shape[:2], directions, hidden).transpose(1, 2)


RECURRENT: dict[str, Operator] = {
    "GRU": Operator(_gru, sizes=(_LENGTHS,)),
    "LSTM": Operator(_lstm, sizes=(_LENGTHS,)),
}
