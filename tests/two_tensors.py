"""A model with two inputs, and how what crosses a boundary of it is coded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from splitpoint.codec import Array, CodecSet, codec_of_tensor
from splitpoint.partition.bundle.bundle import Boundary, Bundle
from splitpoint.partition.bundle.ladder import CodecLevel
from splitpoint.partition.calibrate.inputs import Calibration, calibration_inputs
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.run.onnx_chain import OnnxChain

CPU = torch.device("cpu")
Values = Mapping[str, Array]


class TwoTensors(torch.nn.Module):
    """A regression with a float and an integer input; a skip makes two tensors cross with them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(6, 12)
        self.table = torch.nn.Embedding(9, 12)
        self.middle = torch.nn.Linear(12, 12)
        self.norm = torch.nn.LayerNorm(12)
        self.last = torch.nn.Linear(12, 3)

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        skip = self.embed(x)
        y = torch.relu(self.middle(skip))
        y = self.norm(self.middle(y)) + 0.1
        y = torch.tanh(self.middle(y)) + skip
        return self.last(y + self.table(ids).mean(1, keepdim=True))


def two_tensors_spec() -> ModelSpec:
    torch.manual_seed(0)
    args = (torch.randn(3, 16, 6), torch.randint(0, 9, (3, 4)))
    return ModelSpec(source="two", module=TwoTensors(), args=args)


def inputs_of(bundle: Bundle, source: Path) -> tuple[Values, ...]:
    return calibration_inputs(bundle.manifest, Calibration(source=str(source))).inputs


CHAINS: dict[str, OnnxChain] = {}


def loaded(bundle: Bundle) -> OnnxChain:
    """Loaded once."""
    if bundle.digest not in CHAINS:
        chain = CHAINS[bundle.digest] = OnnxChain(bundle, 1)
        for index in range(len(chain)):
            chain.load(index)
    return CHAINS[bundle.digest]


def crossing(bundle: Bundle, given: Values) -> list[Values]:
    """The tensors of every boundary, for one input."""
    chain = loaded(bundle)
    state = chain.place(given)
    found = []
    for boundary in bundle.manifest.boundaries:
        found.append({s.name: chain.fetch(state[s.name]) for s in boundary.tensors})
        if boundary.id < len(chain):
            state = dict(state) | dict(chain.step(boundary.id, state))
    return found


def rest_of_the_model(bundle: Bundle, boundary: int, values: Values) -> Array:
    """The first output from a boundary on, for one input."""
    chain = loaded(bundle)
    state = chain.place(values)
    for index in range(boundary, len(chain)):
        state = dict(state) | dict(chain.step(index, state))
    return chain.fetch(state[next(iter(bundle.manifest.outputs.values()))]).astype(np.float64)


def sent(codecs: CodecSet, name: str, boundary: Boundary, values: Values) -> tuple[int, Values]:
    """Payload bytes, and what arrives."""
    codec, nbytes, decoded = codecs.named(name, boundary.id), 0, {}
    for tensor in boundary.tensors:
        way = codec_of_tensor(codec, tensor)
        payload = way.encode(values[tensor.name], tensor)
        nbytes += len(payload)
        decoded[tensor.name] = way.decode(payload, tensor, 1)
    return nbytes, decoded


def fkt_rungs(boundary: Boundary) -> list[CodecLevel]:
    return [rung for rung in boundary.ladder if rung.codec.startswith("fkt@")]


def divergence(before: Array, after: Array) -> float:
    """Kullback-Leibler, in nats, of rows of logits."""
    p, q = (torch.tensor(x, dtype=torch.float64).log_softmax(-1) for x in (before, after))
    return float((p.exp() * (p - q)).sum(-1).mean())
