"""A model's kind: a classifier by its one output, or because its user says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from built import built
from splitpoint.cli.run.result_lines import JsonLines, OutputFiles, best_answer
from splitpoint.codec import TensorSpec
from splitpoint.edge import EdgeAgent
from splitpoint.partition.bundle.bundle import Bundle, Manifest
from splitpoint.partition.bundle.model_kind import check_labels, is_classifier
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.errors import CaptureError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.models.find import load_model
from splitpoint.partition.picture import PictureInput


def of_photos(module: torch.nn.Module, **said: bool) -> ModelSpec:
    picture = PictureInput(resize_px=16, height_px=16, width_px=16)
    return ModelSpec.of_picture_model(
        "made up", module, picture, mean=(0.5,) * 3, std=(0.5,) * 3, **said
    )


def backbone(*more: torch.nn.Module) -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.ReLU(), *more)


@pytest.fixture(scope="module")
def segmenting() -> Bundle:
    """Answers a map `[batch, 2, 16, 16]`."""
    spec = of_photos(backbone(torch.nn.Conv2d(6, 2, 1)))
    return built("seg", lambda path: compile_model(spec, path), __file__)


async def test_a_plain_module_that_segments_prints_its_outputs(
    segmenting: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not segmenting.manifest.classifies
    pixels = np.zeros((16, 16, 3), np.uint8)
    async with EdgeAgent(None, bundle=segmenting.folder, split="local") as agent:
        result = await agent.infer({"pixels": pixels[np.newaxis]})
        JsonLines(agent, emulated=False).add(result)
        OutputFiles(tmp_path / "out").add(result)
        assert best_answer(agent, result).endswith("output float32 [1, 2, 16, 16]")
    line = json.loads(capsys.readouterr().out)
    assert line["top"] == []
    assert line["outputs"] == [{"name": "output", "shape": [1, 2, 16, 16], "dtype": "float32"}]
    (saved,) = (tmp_path / "out").iterdir()
    assert np.load(saved).shape == (1, 2, 16, 16)


def test_a_factory_of_a_plain_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain_seg.py").write_text(
        "import torch\ndef model():\n    return torch.nn.Conv2d(3, 2, 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load_model("plain_seg:model").classifies is None


def tensor(name: str, *shape: int, dtype: str = "float32", batch_dim: int = 0) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape, batch_dim=batch_dim)


LOGITS, MAP = tensor("y", 1, 4), tensor("y", 1, 4, 8, 8)


@pytest.mark.parametrize(
    ("tensors", "said", "is_one"),
    [
        ([LOGITS], None, True),
        ([LOGITS], False, False),  # an embedding, say
        ([tensor("y", 1, 1)], None, False),
        ([tensor("y", 2, 4)], None, False),  # two rows a sample
        ([tensor("y", 4, 1, batch_dim=1)], None, False),
        ([tensor("y", 1, 4, dtype="int64")], None, False),
        ([MAP], None, False),
        ([LOGITS, tensor("aux", 1, 4)], None, False),
        ([LOGITS, tensor("aux", 1, 4)], True, True),
    ],
)
def test_kind(tensors: list[TensorSpec], said: bool | None, is_one: bool) -> None:
    outputs = {f"o{i}": spec.name for i, spec in enumerate(tensors)}
    assert is_classifier(said, outputs, tensors, takes_photos=True) is is_one


def test_a_model_of_tensors_is_no_classifier_unless_it_is_said() -> None:
    assert not is_classifier(None, {"o": "y"}, [LOGITS], takes_photos=False)
    assert is_classifier(True, {"o": "y"}, [LOGITS], takes_photos=False)


def test_a_map_is_no_logits_whatever_is_said(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"'output' \[batch, 6, 16, 16\].*classifies"):
        compile_model(of_photos(backbone(), classifies=True), tmp_path / "m.split")


def test_a_bundle_that_says_classifier_of_a_map_is_read_as_none(segmenting: Bundle) -> None:
    record = json.loads(segmenting.manifest.to_bytes()) | {"classifies": True}
    assert not Manifest.from_bytes(json.dumps(record).encode(), "here").classifies


def test_a_label_for_each_class() -> None:
    check_labels((), {"o": "y"}, [LOGITS])
    check_labels("abcd", {"o": "y"}, [LOGITS])
    with pytest.raises(CaptureError, match="tells 4 classes, and 2 labels came"):
        check_labels(("cat", "dog"), {"o": "y"}, [LOGITS])
