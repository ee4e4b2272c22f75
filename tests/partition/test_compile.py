"""Compiled segments against the unsplit model, for the shapes of models that there are."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import onnx
import pytest
import torch
from splitpoint.partition.bundle.bundle import (
    LONGEST_LABEL,
    MANIFEST,
    Bundle,
    open_bundle,
    read_labels,
)
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.compile.verify import worst_relative_error
from splitpoint.partition.errors import BundleError, CaptureError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.models.find import load_model
from splitpoint.partition.models.torchvision import import_torchvision
from splitpoint.partition.picture import PictureInput

TOLERANCE = 1e-4


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    aux: torch.Tensor


torch.utils._pytree.register_dataclass(Answer)


class Toy(torch.nn.Module):
    """Shared weights, a skip across three blocks, two inputs, buffers, and a nested output."""

    def __init__(self, form: str = "dict") -> None:
        super().__init__()
        self.form = form
        self.embed = torch.nn.Linear(6, 12)
        self.shared = torch.nn.Linear(12, 12)
        self.norm = torch.nn.LayerNorm(12)
        self.register_buffer("shift", torch.linspace(-1, 1, 12))
        self.last = torch.nn.Linear(12, 12)
        self.last.weight = self.shared.weight

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> object:
        skip = self.embed(x)
        y = torch.relu(self.shared(skip))
        y = self.norm(self.shared(y)) + self.shift
        y = torch.tanh(self.shared(y)) + skip
        aux = y.mean(-1)
        logits = self.last(y * mask.unsqueeze(-1).float())
        if self.form == "tuple":
            return logits, aux
        if self.form == "dataclass":
            return Answer(logits, aux)
        return {"logits": logits, "heads": [aux, logits]}


def toy_spec(form: str) -> ModelSpec:
    torch.manual_seed(0)
    args = (torch.randn(3, 5, 6), torch.randint(0, 2, (3, 5)))
    return ModelSpec(source="toy", module=Toy(form), args=args)


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("dict", ["logits", "heads.0", "heads.1"]),
        ("tuple", ["0", "1"]),
        ("dataclass", ["logits", "aux"]),
    ],
)
def test_toy(form: str, names: list[str], tmp_path: Path) -> None:
    spec = toy_spec(form)
    bundle = compile_model(spec, tmp_path / "toy.split", boundaries=20)
    assert list(json.loads((bundle.folder / MANIFEST).read_text())["outputs"]) == names
    assert list(open_bundle(bundle.folder).manifest.outputs) == names
    assert [s.dtype for s in bundle.manifest.boundaries[0].tensors] == ["float32", "int64"]
    assert any(len(b.tensors) >= 3 for b in bundle.manifest.boundaries)  # y, skip and the mask
    assert worst_relative_error(bundle.manifest, bundle.folder, spec) < TOLERANCE


def small_transformer() -> ModelSpec:
    """vit_b_16 with a sixth of its layers, and narrow: the same operators."""
    transformer = import_torchvision().models.VisionTransformer(
        image_size=64, patch_size=16, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=128
    )
    torch.nn.init.normal_(transformer.heads.head.weight)  # torchvision begins with zeros
    picture = PictureInput(resize_px=64, height_px=64, width_px=64)
    return ModelSpec.of_picture_model(
        "vit", transformer.eval(), picture, mean=(0.5,) * 3, std=(0.5,) * 3
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "vit"])
def test_torchvision(name: str, tmp_path: Path) -> None:
    spec = small_transformer() if name == "vit" else load_model(f"torchvision:{name}", "none")
    bundle = compile_model(spec, tmp_path / f"{name}.split")
    assert worst_relative_error(bundle.manifest, bundle.folder, spec) < TOLERANCE
    assert len(bundle.manifest.boundaries) == 8


class Windows(torch.nn.Module):
    """The batch is folded into a longer dimension, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = torch.nn.Linear(4, 8)
        self.back = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch = x.shape[0]
        windows = x.reshape(batch * 6, 2, 4)
        y = torch.relu(self.proj(windows))
        y = self.back(y)
        return y.reshape(batch, 12, 4).mean(1)


def test_batch_inside_a_dimension(tmp_path: Path) -> None:
    spec = ModelSpec(source="windows", module=Windows(), args=(torch.randn(3, 12, 4),))
    bundle = compile_model(spec, tmp_path / "w.split", boundaries=20)
    folded = [s for b in bundle.manifest.boundaries for s in b.tensors if s.shape[0] == 6]
    assert folded
    assert folded[0].batch_dim == 0


class InnerBatch(torch.nn.Module):
    """6*batch with the batch inside: such a tensor cannot be concatenated over requests."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch = x.shape[0]
        y = self.first(x).transpose(0, 1).reshape(6 * batch, 4)
        y = torch.relu(self.second(torch.relu(y)))
        return self.first(y.reshape(6, batch, 4).transpose(0, 1))


def test_inseparable_cut_is_left_out(tmp_path: Path) -> None:
    spec = ModelSpec(source="inner", module=InnerBatch(), args=(torch.randn(3, 6, 4),))
    bundle = compile_model(spec, tmp_path / "inner.split", boundaries=20)
    shapes = [s.shape for b in bundle.manifest.boundaries for s in b.tensors]
    assert (6, 4) not in shapes
    assert bundle.manifest.max_relative_error < TOLERANCE


class Mixing(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0, keepdim=True)


def test_model_that_mixes_samples_is_refused(tmp_path: Path) -> None:
    spec = ModelSpec(source="mixing", module=Mixing(), args=(torch.randn(3, 4),))
    with pytest.raises(CaptureError, match="mixes the samples"):
        compile_model(spec, tmp_path / "m.split")
    assert not list(tmp_path.iterdir())


def test_weights_are_stored_once(small_bundle: Bundle) -> None:
    stored = 0
    for segment in small_bundle.manifest.segments:
        model = onnx.load(small_bundle.path(segment.onnx), load_external_data=False)
        for tensor in model.graph.initializer:
            if tensor.external_data:
                stored += 1
                entries = {entry.key: entry.value for entry in tensor.external_data}
                assert entries["location"] == Path(segment.weights).name
    assert stored >= 2


def test_onnx_says_nothing_of_the_machine(small_bundle: Bundle) -> None:
    for segment in small_bundle.manifest.segments:
        data = small_bundle.path(segment.onnx).read_bytes()
        assert b"site-packages" not in data
        assert b".py" not in data


@pytest.mark.slow
def test_compiling_twice_gives_the_same_digest(small: ModelSpec, tmp_path: Path) -> None:
    digests = {compile_model(small, tmp_path / f"{i}" / "s.split").digest for i in range(2)}
    assert len(digests) == 1


def test_layers_know_their_segment(small_bundle: Bundle) -> None:
    manifest = small_bundle.manifest
    segments = [layer.segment for layer in manifest.layers]
    assert segments == sorted(segments)
    assert set(segments) == set(range(len(manifest.segments)))
    for boundary in manifest.boundaries[1:]:
        before = [layer for layer in manifest.layers if layer.segment < boundary.id]
        assert before[-1].name == boundary.after


def test_existing_bundle_is_kept(small: ModelSpec, small_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="exists already"):
        compile_model(small, small_bundle.folder)


@pytest.fixture
def copy(small_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_bundle.folder, tmp_path / "copy.split"))


def test_every_damaged_file_is_noticed(copy: Path) -> None:
    for path in sorted(p for p in copy.rglob("*") if p.is_file()):
        original = path.read_bytes()
        flipped = bytearray(original)
        flipped[len(flipped) // 2] ^= 1
        for damage in (bytes(flipped), original[:-1], original + b"x"):
            path.write_bytes(damage)
            if damage.strip() != original.strip():
                with pytest.raises(BundleError) as caught:
                    open_bundle(copy)
                assert "\n" not in str(caught.value)
        path.unlink()
        with pytest.raises(BundleError):
            open_bundle(copy)
        path.write_bytes(original)
    assert open_bundle(copy).digest


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schema", 99, "schema 99"),
        ("boundaries", [], "one boundary more"),
        ("segments", None, "malformed"),
        ("files", {"../../etc/passwd": {"sha256": "0" * 64, "bytes": 1}}, "impossible file"),
        ("layers", [{"name": 1}], "malformed"),
        ("max_relative_error", 10**400, "malformed"),
        ("picture", {"height_px": math.inf, "width_px": 8, "resize_px": 8}, "malformed"),
        ("outputs", {"y": "nowhere"}, "no tensor of the last boundary"),
        ("usual_look", {}, "malformed"),
        ("usual_look", [], "malformed"),
        ("usual_look", {"means": [10**400] * 9, "deviations": [1.0] * 9}, "malformed"),
        ("usual_look", {"means": [1e300] * 9, "deviations": [1e-300] * 9}, "impossible figures"),
    ],
)
def test_hostile_manifest(copy: Path, key: str, value: object, message: str) -> None:
    import hashlib

    record = json.loads((copy / MANIFEST).read_text())
    record[key] = value
    data = json.dumps(record).encode()
    (copy / MANIFEST).write_bytes(data)
    (copy / "manifest.sha256").write_text(hashlib.sha256(data).hexdigest())
    with pytest.raises(BundleError, match=message):
        open_bundle(copy)


def test_labels_from_anywhere_are_read_and_short(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(b"caf\xe9\n" + b"a" * 1_000_000 + b"\nlast")
    assert read_labels(path) == ["caf\ufffd", "a" * LONGEST_LABEL, "last"]


def test_boundaries_after_named_layers(small: ModelSpec, tmp_path: Path) -> None:
    bundle = compile_model(small, tmp_path / "a.split", after=["conv2", "head", "bn1"])
    assert [b.after for b in bundle.manifest.boundaries] == [None, "bn1", "conv2", "head"]
    for layer, remedy in (("conv4", "near it: conv"), ("nowhere", "splitpoint inspect")):
        with pytest.raises(CaptureError, match=f"has no layer {layer}") as caught:
            compile_model(small, tmp_path / "b.split", after=[layer])
        assert remedy in caught.value.remedy
        assert not (tmp_path / "b.split").exists()


def test_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no bundle"):
        open_bundle(tmp_path / "nothing.split")
    with pytest.raises(BundleError, match="is no bundle"):
        open_bundle(tmp_path)


def test_onnx_values_bear_the_layers_names(small_bundle: Bundle) -> None:
    """A profiler of the runtime then speaks of the user's layers."""
    layers = [layer.name for layer in small_bundle.manifest.layers]
    found = set()
    for segment in small_bundle.manifest.segments:
        model = onnx.load(small_bundle.path(segment.onnx), load_external_data=False)
        ends = {value.name for value in model.graph.output}
        for node in model.graph.node:
            assert node.name == node.output[0]
            if node.output[0] not in ends:
                found.add(node.output[0].rpartition("/")[0])
    assert "normalise" in found
    assert {"relu", "conv2"} & found
    assert found <= {*layers, ""}


@pytest.mark.slow
def test_overwrite_replaces_bundles_and_nothing_else(small: ModelSpec, tmp_path: Path) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="is no bundle"):
        compile_model(small, precious, overwrite=True)
    assert (precious / "thesis.txt").read_text() == "years of work"
    first = compile_model(small, tmp_path / "s.split", boundaries=3)
    second = compile_model(small, tmp_path / "s.split", boundaries=4, overwrite=True)
    assert first.digest != second.digest == open_bundle(tmp_path / "s.split").digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.split", "thesis"]
