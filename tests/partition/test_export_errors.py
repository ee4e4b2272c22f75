"""What is said of models that cannot be compiled: what is wrong, where, and what to do."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from splitpoint.codec import SplitpointError
from splitpoint.partition.capture.capture import capture
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.errors import CaptureError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.models.torchvision import import_torchvision

HERE = Path(__file__).name


class Inner(torch.nn.Module):
    def __init__(self, body: Callable[..., Any]) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)
        self.body = body

    def forward(self, x: torch.Tensor) -> Any:
        return self.body(self, x)


class Net(torch.nn.Module):
    def __init__(self, body: Callable[..., Any]) -> None:
        super().__init__()
        self.stem = torch.nn.Linear(8, 8)
        self.inner = Inner(body)

    def forward(self, x: torch.Tensor) -> Any:
        return self.inner(self.stem(x))


def of(module: Any, *args: Any, **kwargs: Any) -> ModelSpec:
    return ModelSpec(source="m", module=module, args=args, kwargs=kwargs)


def doing(body: Callable[..., Any], width: int = 8, samples: int = 3) -> ModelSpec:
    """A net whose layer `inner` does that."""
    return of(Net(body), torch.randn(samples, width))


DOUBLES = torch.zeros(2, 8, 3, dtype=torch.float64)


class DynamicCache:
    """As transformers' models return it."""


class Found:
    """Some object that holds tensors."""


class Packed(torch.nn.Module):
    """Leaves the padding out, as it is usual in training."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = torch.nn.GRU(8, 8, batch_first=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return y


def suppressed(inner: Inner, x: torch.Tensor) -> torch.Tensor:
    import_torchvision()
    return x[torch.ops.torchvision.nms(x[:, :4], x[:, 4], 0.5)]


class Chooses(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))


def scripted() -> torch.nn.Module:
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        return torch.jit.script(torch.nn.Linear(8, 4))


def quantised() -> torch.nn.Module:
    module = torch.nn.Sequential(torch.nn.Linear(8, 4))
    with pytest.warns(Warning, match="deprecated"):
        return torch.ao.quantization.quantize_dynamic(module, {torch.nn.Linear})


REFUSED: dict[str, tuple[Callable[[], ModelSpec], str, str, str]] = {
    # name: the model, what is wrong, where, what to do
    "branch": (
        lambda: doing(lambda m, x: x + 1 if x.sum() > 0 else x),
        "decides by the values of a tensor",
        f"layer 'inner' ({HERE}:",
        "torch.where",
    ),
    "slice": (
        lambda: doing(lambda m, x: x[:, : int(x.sum())]),
        "decides by the values of a tensor",
        f"layer 'inner' ({HERE}:",
        "torch.where",
    ),
    "item": (
        lambda: doing(lambda m, x: x * x.max().item()),
        "a Python number of the values of a tensor (item)",
        "layer 'inner'",
        "item()",
    ),
    "selection": (
        lambda: doing(lambda m, x: x[x > 0]),
        "makes a size of the values of a tensor (index)",
        "layer 'inner'",
        "x[mask]",
    ),
    "batch in a number": (
        lambda: doing(lambda m, x: x.reshape(3, -1) * 2),
        "fixes the batch size",
        f"layer 'inner' ({HERE}:",
        "x.shape[0]",
    ),
    "batch in a tensor": (
        lambda: doing(lambda m, x: x + torch.zeros(3, 8)),
        "fixes the batch size",
        f"layer 'inner' ({HERE}:",
        "x.shape[0]",
    ),
    "batch in a loop": (
        lambda: doing(lambda m, x: torch.stack([m.linear(row) for row in x])),
        "your code specialized it to be a constant (3)",
        f"layer 'inner' ({HERE}:",
        "no Python loops",
    ),
    "control flow": (
        lambda: of(Chooses(), torch.randn(2, 8)),
        "branches or loops inside of the graph (torch.cond)",
        "the model's forward",
        "torch.where",
    ),
    "noise": (
        lambda: doing(lambda m, x: x + torch.randn_like(x)),
        "draws random numbers (randn_like)",
        "layer 'inner'",
        "leave that out at inference",
    ),
    "noise of no input": (
        lambda: doing(lambda m, x: x + torch.rand(8)),
        "draws random numbers (rand)",
        "layer 'inner'",
        "leave that out at inference",
    ),
    "dropout": (
        lambda: doing(lambda m, x: F.dropout(x, 0.5)),
        "draws random numbers (native_dropout), also in eval mode",
        "layer 'inner'",
        "training=self.training",
    ),
    "mixing": (
        lambda: doing(lambda m, x: m.linear(x) - x.mean(0, keepdim=True)),
        "mixes the samples of a batch",
        "from layer 'inner.sub' (sub) on",
        "independent samples",
    ),
    "a choice between equals": (
        lambda: doing(
            lambda m, x: x.gather(1, (1 + 1e-5 * (x - x.mean(0, keepdim=True))).topk(4).indices)
        ),
        "a batch is not answered as its samples are",
        "from layer 'inner.topk' (topk) on",
        "return what it chooses from",
    ),
    "mixing, seen with one sample": (
        lambda: of(Net(lambda m, x: x - x.mean(0, keepdim=True)), torch.zeros(1, 8)),
        "mixes the samples of a batch",
        "from layer 'inner.sub' (sub) on",
        "independent samples",
    ),
    "cache": (
        lambda: doing(lambda m, x: (x, DynamicCache())),
        "returns a cache",
        "DynamicCache",
        "model.config.use_cache = False",
    ),
    "object": (
        lambda: doing(lambda m, x: (x, Found())),
        "returns an object that is no tensor",
        "Found",
        "registered dataclasses",
    ),
    "number returned": (
        lambda: doing(lambda m, x: (x, 3)),
        "no tensor",
        "the output '1'",
        "return tensors only",
    ),
    "nothing returned": (lambda: doing(lambda m, x: None), "returns nothing", "", "return"),
    "bfloat16": (
        lambda: of(torch.nn.Linear(8, 4).bfloat16(), torch.randn(2, 8).bfloat16()),
        "bfloat16 cannot be sent",
        "the output 'output' is bfloat16 [batch, 4]",
        ".float()",
    ),
    "complex": (
        lambda: doing(lambda m, x: torch.fft.fft(x)),
        "complex64 cannot be sent",
        "the output 'output'",
        "torch.view_as_real",
    ),
    "loss": (
        lambda: doing(lambda m, x: x.mean()),
        "no batch dimension",
        "the output 'output' is float32 []",
        "no sums or means over samples",
    ),
    "chunk of the batch": (
        lambda: doing(lambda m, x: torch.add(*torch.cat([x, 2 * x]).chunk(2))),
        "divides the batch into parts (chunk, split)",
        "",
        "z[: a.shape[0]] and z[a.shape[0] :]",
    ),
    "product of samples": (
        lambda: doing(lambda m, x: x @ x.T),
        "not in one dimension",
        "float32 [batch, batch]",
        "a part for each sample",
    ),
    "float64": (
        lambda: of(
            torch.nn.Sequential(torch.nn.Conv1d(2, 2, 1)).double(), torch.randn(2, 2, 4).double()
        ),
        "has no Conv of float64",
        "layer '0'",
        ".float()",
    ),
    "bfloat16 within": (
        lambda: doing(lambda m, x: x.bfloat16().tanh().float()),
        "has no Tanh of bfloat16",
        "layer 'inner'",
        ".float()",
    ),
    "no ONNX": (
        lambda: doing(lambda m, x: torch.special.airy_ai(x)),
        "without an ONNX form (special_airy_ai)",
        "layer 'inner'",
        "write it in others",
    ),
    "suppression": (
        lambda: doing(suppressed),
        "non-maximum suppression",
        "layer 'inner'",
        "the backbone and the heads",
    ),
    "numpy": (
        lambda: doing(lambda m, x: torch.from_numpy(x.numpy()) + 1),
        "leaves torch for numpy",
        f"layer 'inner' ({HERE}:",
        "torch's operations",
    ),
    "lazy": (
        lambda: of(torch.nn.Sequential(torch.nn.LazyLinear(4)), torch.randn(2, 8)),
        "lazy layers",
        "",
        "call the model once",
    ),
    "packed": (
        lambda: of(Packed(), torch.randn(2, 6, 8), torch.tensor([6, 4])),
        "packs sequences by their lengths",
        f"layer 'rnn' ({HERE}:",
        "padded sequences",
    ),
    "own fault": (
        lambda: doing(lambda m, x: m.linear(x), width=7),
        "fails on its example inputs",
        "layer 'stem'",
        "inputs that the model takes",
    ),
    "one sample at a time": (
        lambda: doing(lambda m, x: m.linear(x.reshape(1, -1)), samples=1),
        "takes one sample at a time: with several it fails",
        f"layer 'inner.linear' ({HERE}:",
        "dimension 0 of every tensor for the batch",
    ),
    "identity": (
        lambda: of(torch.nn.Identity(), torch.randn(2, 8)),
        "computes nothing",
        "its outputs are its inputs",
        "nothing to split",
    ),
    "partial": (
        lambda: of(functools.partial(torch.nn.Linear(8, 4), scale=2), torch.randn(2, 8)),
        "functools.partial, which is no torch module",
        "functools.partial",
        "scale in the ModelSpec's kwargs",
    ),
    "function": (
        lambda: of(torch.relu, torch.randn(2, 8)),
        "no torch module",
        "the model is",
        "torch.nn.Module",
    ),
    "TorchScript": (
        lambda: of(torch.nn.Sequential(scripted()), torch.randn(2, 8)),
        "TorchScript",
        "the part '0'",
        "the Python module",
    ),
    "quantised": (
        lambda: of(quantised(), torch.randn(2, 8)),
        "quantised already",
        "the part '0'",
        "--int8",
    ),
    "no weights": (
        lambda: of(torch.nn.Linear(8, 4, device="meta"), torch.randn(2, 8)),
        "on the device meta",
        "the weight 'weight'",
        "to the CPU",
    ),
    "no inputs": (
        lambda: of(Net(lambda m, x: x)),
        "do not fit",
        "missing a required argument: 'x'",
        "as you would call the model",
    ),
    "too few inputs": (
        lambda: of(torch.nn.Bilinear(8, 8, 4), torch.randn(2, 8)),
        "do not fit",
        "'input2'",
        "args and kwargs",
    ),
    "two batches": (
        lambda: of(torch.nn.Bilinear(8, 8, 4), torch.randn(2, 8), torch.randn(3, 8)),
        "no common batch size",
        "'input1' [2, 8], 'input2' [3, 8]",
        "a buffer",
    ),
    "no batch": (
        lambda: of(torch.nn.Bilinear(8, 8, 4), torch.randn(2, 8), torch.tensor(1.0)),
        "a tensor without dimensions",
        "'input2'",
        "a Python number",
    ),
    "NaN in": (
        lambda: of(Net(lambda m, x: x.nan_to_num()), torch.full((2, 8), torch.nan)),
        "NaN",
        "the example input 'x'",
        "numbers",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, what, where, remedy = REFUSED[name]
    spec = make()
    with pytest.raises(SplitpointError) as caught:
        compile_model(spec, tmp_path / "m.split")
    error = caught.value
    assert what in error.what
    assert where in error.what
    assert remedy in error.remedy
    assert "\n" not in str(error)
    assert len(str(error)) < 600
    assert "internal error" not in str(error)
    assert "compile the bundle again" not in str(error)
    assert capfd.readouterr().err == ""
    assert not list(tmp_path.iterdir())


def fixed_early(inner: Inner, x: torch.Tensor) -> torch.Tensor:
    y = x.reshape(3, -1)
    y = torch.relu(y)
    return inner.linear(y)


def test_the_line_is_that_where_the_batch_was_fixed() -> None:
    """And not the one that the same function had come to when torch gave up."""
    line = fixed_early.__code__.co_firstlineno + 1
    with pytest.raises(CaptureError, match=rf"{HERE}:{line}\) fixes the batch size"):
        capture(Net(fixed_early), (torch.randn(3, 8),))


def test_the_search_for_the_place_writes_nothing() -> None:
    """torch's own handlers are there, and not called."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    seen: list[logging.LogRecord] = []

    class Seen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    handler = Seen()
    logger.addHandler(handler)
    try:
        with pytest.raises(CaptureError, match="fixes the batch size"):
            capture(Net(lambda m, x: x.reshape(3, 4, 2)), (torch.randn(3, 8),))
        assert handler in logger.handlers
    finally:
        logger.removeHandler(handler)
    assert not seen
