"""The ways to name a model and its weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import save_file
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.errors import ModelError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.models import torchvision as torchvision_models
from splitpoint.partition.models.find import load_model


class Pair(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x)) * scale


def test_exported_program(tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = {"x": {0: batch}, "scale": {0: batch}}
    args, kwargs = (torch.randn(3, 4),), {"scale": torch.randn(3, 1)}
    program = torch.export.export(Pair(), args, kwargs, dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "pair.pt2")
    spec = load_model(str(tmp_path / "pair.pt2"))
    bundle = compile_model(spec, tmp_path / "pair.split")
    assert [s.name for s in bundle.manifest.boundaries[0].tensors] == ["x", "scale"]
    assert bundle.manifest.max_relative_error < 1e-4


def test_keyword_inputs(tmp_path: Path) -> None:
    spec = ModelSpec(
        source="pair", module=Pair(), args=(torch.randn(3, 4),), kwargs={"scale": torch.randn(3, 1)}
    )
    bundle = compile_model(spec, tmp_path / "pair.split")
    assert [s.name for s in bundle.manifest.boundaries[0].tensors] == ["x", "scale"]


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_from_a_file(tmp_path: Path, suffix: str) -> None:
    reference = load_model("torchvision:alexnet", "none").module.model
    state = {name: torch.full_like(value, 0.5) for name, value in reference.state_dict().items()}
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    loaded = load_model("torchvision:alexnet", str(path)).module.model
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "pwned",)

    torch.save({"x": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ModelError, match="cannot load weights"):
        load_model("torchvision:alexnet", str(tmp_path / "evil.pth"))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.slow
def test_random_weights_are_seeded() -> None:
    first, second = (load_model("torchvision:alexnet", "none").module for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("absent.onnx", "cannot read absent.onnx.*No such file"),
        ("net.pt", "weights or a TorchScript program.*--weights FILE"),
        ("dir/net.pth", "a file of weights.*--weights FILE"),
        ("net.safetensors", "a file of weights.*--weights FILE"),
        ("net.py", "a file of Python.*module:function"),
        ("net.tflite", "no torch model"),
        ("resnet50", "unknown model.*torchvision:NAME"),
        ("absent.pt2", "there is no file absent.pt2"),
        ("no.such:thing", "cannot import 'no.such'.*No module named 'no'"),
        ("odd_factories:nothing", "has no function 'nothing'"),
        (
            "odd_factories:demanding",
            r"demanding fails \(TypeError.*without arguments",
        ),
        (
            "odd_factories:failing",
            r"fails at .*odd_factories.py:9 \(ZeroDivisionError.*correct that",
        ),
        ("odd_factories:number", "odd_factories:number returned int.*return a torch module"),
        (
            "odd_import:model",
            r"odd_import:model fails at .*odd_import.py:2 \(RuntimeError: broken.*correct that",
        ),
        ("leaving:model", r"leaving:model fails at .*leaving.py:2 \(SystemExit: 0.*correct that"),
    ],
)
def test_what_is_no_model_is_said(
    model: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_factories.py").write_text(
        "def demanding(size):\n    return size\n\n\n"
        "def number():\n    return 3\n\n"
        "def failing():\n    return 1 / 0\n"
    )
    (tmp_path / "odd_import.py").write_text("\nraise RuntimeError('broken\\nhere')\n")
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=words) as caught:
        load_model(model)
    assert "\n" not in str(caught.value)


def test_a_program_exported_for_one_batch_size(tmp_path: Path) -> None:
    program = torch.export.export(torch.nn.Linear(4, 2), (torch.randn(2, 4),))
    torch.export.save(program, tmp_path / "static.pt2")
    with pytest.raises(ModelError, match=r"one batch size only.*'input' is \[2, 4\].*Dim.DYNAMIC"):
        load_model(str(tmp_path / "static.pt2"))


def test_torchscript_under_another_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.script(torch.nn.Linear(4, 2)).save(tmp_path / "script.pt2")
    with pytest.raises(ModelError, match=r"no exported program.*TorchScript") as caught:
        load_model(str(tmp_path / "script.pt2"))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


class Recorded:
    made: ClassVar[list[str]] = []

    def __init__(self, name: str, kind: str) -> None:
        self.made.append(f"{name} {kind}")

    def define(self, schema: str) -> None:
        self.made.append(schema.partition("(")[0])


@pytest.mark.parametrize("fits", [False, True])
def test_operators_of_torchvision_are_declared_where_they_do_not_load(
    fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second declaration would end the process: torch throws while it loads a library."""

    def load(path: Path) -> None:
        assert path.name.startswith("_C")
        if not fits:
            raise OSError("undefined symbol")

    monkeypatch.setattr(torchvision_models, "_schemas", [])
    monkeypatch.setattr(Recorded, "made", [])
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(torch.ops, "load_library", load)
    monkeypatch.setattr(torch.library, "Library", Recorded)
    torchvision_models.declare_detection_operators()
    assert Recorded.made == ([] if fits else ["torchvision DEF", "nms", "qnms"])


@pytest.mark.slow
def test_a_factory_may_import_what_imports_torchvision(tmp_path: Path) -> None:
    (tmp_path / "uses_vision.py").write_text(
        "import torchvision\n\ndef model():\n    return torchvision.ops.Permute([0, 2, 1, 3])\n"
    )
    script = "from splitpoint.partition.models.find import load_model; "
    script += "print(load_model('uses_vision:model').module.model)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert "Permute" in done.stdout, done.stderr
