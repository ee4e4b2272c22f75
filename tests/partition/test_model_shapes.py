"""Every split of a compiled model against the unsplit module, for what models are made of."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from splitpoint.codec import Array
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.errors import CaptureError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.relative_error import relative_error
from splitpoint.partition.run.chain import SegmentChain
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.partition.run.torch_chain import TorchChain
from torch import Tensor, nn


class Parts(nn.Module):
    """Two linear layers with something that has several outputs between them."""

    def __init__(self, between: Callable[[Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.between = between
        self.first, self.second = nn.Linear(16, 24), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.between(self.first(x)))
        return y


def chunked(y: Tensor) -> Tensor:
    q, k, v = y.chunk(3, -1)
    return q * k + v


def split_unevenly(y: Tensor) -> Tensor:
    a, b, c = y.split([4, 12, 8], -1)
    return torch.cat([c, torch.relu(a)], -1) - b


def largest(y: Tensor) -> Tensor:
    values, places = y.topk(5, -1)
    return values * places


def in_order(y: Tensor) -> Tensor:
    values, places = y.sort(-1, descending=True)
    return torch.gather(y, -1, places.flip(-1)) + values


def extreme(y: Tensor) -> Tensor:
    values, places = y.reshape(y.shape[0], 4, 6).max(-1)
    return values + places


def unbound(y: Tensor) -> Tensor:
    first, second, _ = y.reshape(y.shape[0], 3, 8).unbind(1)
    return torch.tanh(first) * second


def spread(y: Tensor) -> Tensor:
    variance, mean = torch.var_mean(y.reshape(y.shape[0], 4, 6), -1)
    return variance + mean


class C2f(nn.Module):
    """A block of YOLO v8: the parts of a chunk cross boundaries, and a batch norm is before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.SiLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8)) for _ in range(2)
        )
        self.join, self.head = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 4, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.stem(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        y: Tensor = self.head(self.join(torch.cat(parts, 1)))
        return y


class Shuffled(nn.Module):
    """A unit of ShuffleNet v2: half of the channels pass by, then all are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8))
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        passing, worked = self.stem(x).chunk(2, 1)
        y = torch.cat([passing, self.branch(worked)], 1)
        batch, channels, height, width = y.shape
        y = y.view(batch, 2, channels // 2, height, width).transpose(1, 2).flatten(1, 2)
        y = self.head(y.mean((2, 3)))
        return y


class Recurrent(nn.Module):
    """Outputs of a recurrent layer and its states."""

    def __init__(self, kind: type[nn.RNNBase], *, states: bool, bidirectional: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 6)
        self.rnn = kind(6, 7, num_layers=2, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(14 if bidirectional else 7, 3)
        self.states = states

    def forward(self, x: Tensor) -> Tensor:
        steps, states = self.rnn(torch.relu(self.embed(x)))
        if self.states:
            last = states[0] if isinstance(states, tuple) else states
            steps = torch.cat(list(last[-2:]), -1) if self.rnn.bidirectional else last[-1]
        y: Tensor = self.head(steps)
        return y


class Heads(nn.Module):
    """Eleven outputs in an order that is not the alphabet's."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.body = nn.Linear(6, 8)
        self.heads = nn.ModuleList(nn.Linear(8, 2 + i) for i in range(11))

    def forward(self, x: Tensor) -> Any:
        y = torch.relu(self.body(x))
        found = [head(y) for head in self.heads]
        if self.form == "dict":
            return {f"{'zyxwvutsrqp'[i]}/{i}": value for i, value in enumerate(found)}
        return tuple(found)


class Banned(nn.Module):
    """Logits of classes that are never to be chosen are -inf."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 12), nn.Linear(12, 5)
        self.register_buffer("banned", torch.tensor([0, 1, 0, 0, 1]).bool())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(torch.relu(self.first(x)))
        return y.masked_fill(self.banned, -torch.inf)


class Padded(nn.Module):
    """A transformer that is told which of its tokens are padding."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.embed = nn.Embedding(10, 8)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        padding = tokens == 0
        y = self.encoder(self.embed(tokens), src_key_padding_mask=padding)
        y = y.masked_fill(padding.unsqueeze(-1), 0.0)
        y = self.head(y.sum(1))
        return y


class Transformer(nn.Module):
    """Linear layers on tokens, as most of a transformer is, one of whose weights is used twice."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            32, 4, 64, batch_first=True, activation="gelu", norm_first=True
        )
        self.embed = nn.Linear(32, 32)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(self.encoder(self.embed(x)))[:, 0]


MODELS: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {
    "chunk": lambda: (Parts(chunked, 8), (torch.randn(3, 5, 16),)),
    "split": lambda: (Parts(split_unevenly, 12), (torch.randn(3, 16),)),
    "topk": lambda: (Parts(largest, 5), (torch.randn(3, 16),)),
    "sort": lambda: (Parts(in_order, 24), (torch.randn(3, 16),)),
    "extreme": lambda: (Parts(extreme, 4), (torch.randn(3, 16),)),
    "unbind": lambda: (Parts(unbound, 8), (torch.randn(3, 16),)),
    "var_mean": lambda: (Parts(spread, 4), (torch.randn(3, 16),)),
    "c2f": lambda: (C2f(), (torch.randn(3, 3, 16, 16),)),
    "shuffle": lambda: (Shuffled(), (torch.randn(3, 3, 16, 16),)),
    "lstm": lambda: (
        Recurrent(nn.LSTM, states=False, bidirectional=True),
        (torch.randn(3, 4, 5),),
    ),
    "lstm states": lambda: (
        Recurrent(nn.LSTM, states=True, bidirectional=True),
        (torch.randn(3, 4, 5),),
    ),
    "gru": lambda: (Recurrent(nn.GRU, states=True, bidirectional=False), (torch.randn(3, 4, 5),)),
    "dict": lambda: (Heads("dict"), (torch.randn(3, 6),)),
    "tuple": lambda: (Heads("tuple"), (torch.randn(3, 6),)),
    "banned": lambda: (Banned(), (torch.randn(3, 6),)),
    "padded": lambda: (Padded(), (torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0], [9, 1, 2, 0]]),)),
    "transformer": lambda: (Transformer(), (torch.randn(3, 6, 32),)),
}


# One of each kind after each edit: parts, a convolution net, a recurrent one, outputs by name.
QUICK = ("chunk", "c2f", "lstm", "dict", "padded")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MODELS],
)
def test_every_split_gives_the_module_s_answers(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, args = MODELS[name]()
    module.eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.bias)
            nn.init.uniform_(part.running_var, 0.5, 2)  # type: ignore[arg-type]
    with torch.no_grad():
        truth = module(*args)
    compile_model(
        ModelSpec(source=name, module=module, args=args), tmp_path / "m.split", boundaries=6
    )
    bundle = open_bundle(tmp_path / "m.split")  # as it is read back
    expected = _named(truth)
    assert list(bundle.manifest.outputs) == list(expected)
    for batch in (1, 3):
        given = [arg[:batch] for arg in args]
        for split, found in _answers_of_every_split(bundle, given).items():
            for output, value in expected.items():
                np.testing.assert_allclose(
                    found[output],
                    value[:batch].numpy(),
                    rtol=1e-4,
                    atol=1e-5,
                    equal_nan=False,
                    err_msg=f"{output} with split {split}",
                )


def _named(truth: Any) -> Mapping[str, Tensor]:
    if isinstance(truth, Tensor):
        return {"output": truth}
    if isinstance(truth, tuple):
        return {str(i): value for i, value in enumerate(truth)}
    return dict(truth)


def _answers_of_every_split(
    bundle: Bundle, given: list[Tensor]
) -> dict[tuple[str, int], dict[str, Array]]:
    """The outputs by the runtime of the edge and the number of segments that it runs there."""
    chains: list[SegmentChain] = [OnnxChain(bundle), TorchChain(bundle, torch.device("cpu"))]
    for chain in chains:
        for index in range(len(chain)):
            chain.load(index)
    first = bundle.manifest.boundaries[0].tensors
    inputs = {spec.name: tensor.numpy() for spec, tensor in zip(first, given, strict=True)}
    answers = {}
    for edge, cloud in (chains, chains[::-1]):
        for boundary in bundle.manifest.boundaries:
            at = _run(edge, inputs, range(boundary.id))
            sent = {spec.name: at[spec.name] for spec in boundary.tensors}
            for spec in boundary.tensors:
                assert sent[spec.name].dtype == spec.numpy_dtype
                assert sent[spec.name].shape == spec.shape_at(len(given[0]))
            end = _run(cloud, sent, range(boundary.id, len(cloud)))
            answers[edge.runtime, boundary.id] = {
                name: end[tensor] for name, tensor in bundle.manifest.outputs.items()
            }
    return answers


def _run(chain: SegmentChain, values: Mapping[str, Array], segments: range) -> dict[str, Array]:
    state = chain.place(values)
    for index in segments:
        state |= chain.step(index, state)
    return {name: chain.fetch(value) for name, value in state.items()}


@pytest.mark.slow
def test_a_boundary_lies_before_a_split_and_not_behind_it(tmp_path: Path) -> None:
    """As many bytes in one tensor; and the operation is one layer, whatever picks its outputs."""
    torch.manual_seed(0)
    spec = ModelSpec(source="c2f", module=C2f().eval(), args=(torch.randn(2, 3, 16, 16),))
    bundle = compile_model(spec, tmp_path / "c2f.split", boundaries=20)
    boundaries = {b.after: len(b.tensors) for b in bundle.manifest.boundaries}
    assert boundaries["stem.2"] == 1
    layers = {layer.name: layer for layer in bundle.manifest.layers}
    assert "split" in layers
    assert not [name for name in (*layers, *boundaries) if name and "getitem" in name]
    assert layers["split"].output_shape == (8, 8, 8)
    assert layers["split"].output_bytes == layers["stem.2"].output_bytes


class Filled(nn.Module):
    """What some samples answer is NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(torch.relu(self.first(x)))
        return torch.log(y.softmax(-1) + x[:, :2])


def test_answers_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    spec = ModelSpec(source="nan", module=Filled(), args=(-3 - torch.rand(2, 4),))
    with pytest.raises(CaptureError, match="answers NaN to its example inputs"):
        compile_model(spec, tmp_path / "nan.split")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_padding_that_torch_s_fast_path_zeroes_is_named(tmp_path: Path) -> None:
    """What is written computes something for padding; what runs answers zeros there."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.encoder = nn.Embedding(10, 8), nn.TransformerEncoder(layer, 1)

        def forward(self, tokens: Tensor) -> Tensor:
            y: Tensor = self.encoder(self.embed(tokens), src_key_padding_mask=tokens == 0)
            return y

    tokens = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0], [9, 1, 2, 0]])
    spec = ModelSpec(source="tagger", module=Tagger().eval(), args=(tokens,))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")
        with pytest.raises(CaptureError, match="fast path") as caught:
            compile_model(spec, tmp_path / "tagger.split")
    assert "enable_nested_tensor=False" in caught.value.remedy
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 4.0], 0.5),
        ([1.0, np.nan], [1.0, 4.0], np.inf),
        ([1.0, 4.0], [1.0, np.nan], np.inf),
        ([1.0, np.nan], [1.0, np.nan], np.inf),
        ([-np.inf, 2.0], [-np.inf, 4.0], 0.5),
        ([np.inf, 4.0], [-np.inf, 4.0], np.inf),
        ([4.0, -np.inf], [-np.inf, 4.0], np.inf),
        ([1e30, 4.0], [-np.inf, 4.0], np.inf),
        ([np.inf, 4.0], [1e30, 4.0], np.inf),
        ([-np.inf, np.inf], [-np.inf, np.inf], 0.0),
        ([1.0], [1.0, 4.0], np.inf),
        ([], [], 0.0),
    ],
)
def test_no_infinity_and_no_nan_hides_an_error(
    found: list[float], expected: list[float], error: float
) -> None:
    assert relative_error(np.array(found), np.array(expected)) == error
