"""Weights lie in a bundle once, however the two forms of a segment want them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.numpy import load_file
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.compile.write_weights import save_weights
from splitpoint.partition.errors import BundleError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.run.weights import load_weights
from torch import Tensor, nn

CPU = torch.device("cpu")


class Tied(nn.Module):
    """A language model's head is its embedding: one weight, read as it is and transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 32)
        self.body = nn.Linear(32, 32)
        self.head = nn.Linear(32, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.head(torch.tanh(self.body(self.embed(tokens))))
        return y


def images(*extents: int) -> tuple[Tensor, ...]:
    return (torch.randn(3, 4, *extents),)


def normalised(weighted: nn.Module, norm: nn.Module) -> nn.Module:
    nn.init.uniform_(norm.running_var, 0.5, 2)
    nn.init.normal_(norm.running_mean)
    nn.init.normal_(norm.weight)
    return nn.Sequential(weighted, norm, nn.ReLU())


MODELS: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {
    "linear on tokens": lambda: (
        nn.Sequential(nn.Linear(48, 96), nn.GELU(), nn.Linear(96, 48)),
        (torch.randn(3, 5, 48),),
    ),
    "attention": lambda: (
        nn.TransformerEncoderLayer(48, 4, 96, batch_first=True, norm_first=True),
        (torch.randn(3, 5, 48),),
    ),
    "conv1d": lambda: (normalised(nn.Conv1d(4, 64, 3), nn.BatchNorm1d(64)), images(9)),
    "conv2d": lambda: (
        normalised(nn.Conv2d(4, 64, 3, padding="same"), nn.BatchNorm2d(64)),
        images(9, 9),
    ),
    "conv3d": lambda: (normalised(nn.Conv3d(4, 64, 3), nn.BatchNorm3d(64)), images(4, 5, 6)),
    "transposed": lambda: (
        normalised(nn.ConvTranspose2d(4, 64, 3), nn.BatchNorm2d(64)),
        images(5, 5),
    ),
    "transposed in groups": lambda: (
        normalised(nn.ConvTranspose2d(4, 64, 3, groups=2), nn.BatchNorm2d(64)),
        images(5, 5),
    ),
    "linear and norm": lambda: (
        normalised(nn.Linear(48, 64), nn.BatchNorm1d(64)),
        (torch.randn(3, 48),),
    ),
    "tied": lambda: (Tied(), (torch.randint(0, 50, (3, 6)),)),
}


def compiled(name: str, folder: Path) -> tuple[nn.Module, Bundle]:
    torch.manual_seed(0)
    module, args = MODELS[name]()
    module.eval()
    spec = ModelSpec(source=name, module=module, args=args)
    return module, compile_model(spec, folder / "m.split", boundaries=2)


QUICK = ("conv2d", "linear and norm", "tied")  # after each edit


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MODELS],
)
def test_a_bundle_is_no_larger_than_its_weights(name: str, tmp_path: Path) -> None:
    module, bundle = compiled(name, tmp_path)
    assert bundle.manifest.max_relative_error < 1e-4
    own = sum(tensor.nbytes for tensor in module.parameters())
    (segment,) = bundle.manifest.segments
    stored = sum(array.nbytes for array in load_file(bundle.path(segment.weights)).values())
    assert stored < 1.1 * own
    model = onnx.load(bundle.path(segment.onnx), load_external_data=False)
    assert max(len(tensor.raw_data) for tensor in model.graph.initializer) < 1024
    assert any(tensor.external_data for tensor in model.graph.initializer)


def test_an_onnx_model_reads_transposed_weights_as_they_lie(tmp_path: Path) -> None:
    """onnxruntime would keep a copy of what it has to transpose."""
    module, bundle = compiled("linear on tokens", tmp_path)
    (segment,) = bundle.manifest.segments
    model = onnx.load(bundle.path(segment.onnx))
    assert "Transpose" not in {node.op_type for node in model.graph.node}
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert isinstance(module, nn.Sequential)
    np.testing.assert_array_equal(values["0.weight"], module[0].weight.detach().numpy().T)


def external(name: str, array: np.ndarray) -> onnx.TensorProto:
    tensor = numpy_helper.from_array(array, name)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    return tensor


def test_the_file_is_one_of_safetensors(tmp_path: Path) -> None:
    """Of every dtype, with tensors that only ONNX has, and nothing but what was asked for."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        f"w.{dtype}".replace("torch.", ""): torch.randint(0, 2, (3, 5), generator=generator).to(
            dtype
        )
        for dtype in (
            torch.float64, torch.float32, torch.float16, torch.bfloat16,
            torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
        )
    }  # fmt: skip
    weights |= {"scalar": torch.tensor(7.0), "large": torch.randn(700, 900, generator=generator)}
    own = np.arange(12, dtype=np.float32).reshape(3, 4)
    segment = onnx.ModelProto()
    copy = weights["large"].numpy().copy()  # equal, but elsewhere in memory
    segment.graph.initializer.extend([external("a", own), external("b", copy)])
    path = tmp_path / "00.safetensors"
    turned = save_weights(weights, segment, {"a": own, "b": copy}, frozenset("b"), path)
    assert turned == {"large"}
    found = load_weights(path, list(weights), CPU)
    assert found.keys() == weights.keys()
    for name, value in weights.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value.t() if name == "large" else value)
    onnx.external_data_helper.load_external_data_for_model(segment, str(tmp_path))
    a, b = (numpy_helper.to_array(tensor) for tensor in segment.graph.initializer)
    np.testing.assert_array_equal(a, own)
    np.testing.assert_array_equal(b.reshape(900, 700), copy.T)


@pytest.mark.parametrize("damage", ["cut", "absent", "renamed"])
def test_a_damaged_file_is_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "00.safetensors"
    save_weights({"w": torch.ones(100)}, onnx.ModelProto(), {}, frozenset(), path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "absent":
        path.unlink()
    with pytest.raises(BundleError, match="holds no weights"):
        load_weights(path, ["v" if damage == "renamed" else "w"], CPU)
