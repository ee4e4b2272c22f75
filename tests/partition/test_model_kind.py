"""A model's kind: a classifier by its one output, or because its user says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from built import built
from splitpoint.cli.run.result_lines import FrameDocument, JsonLines, OutputFiles, best_answer
from splitpoint.codec import TensorSpec
from splitpoint.edge import EdgeAgent
from splitpoint.partition.bundle.bundle import Bundle, Manifest
from splitpoint.partition.bundle.model_kind import CLASSIFY, RAW_TASK, check_labels, task_of
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.errors import CaptureError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.models.find import load_model
from splitpoint.partition.picture import PictureInput
from splitpoint.partition.tasks.task import Task


def of_photos(module: torch.nn.Module, task: Task | None = None) -> ModelSpec:
    picture = PictureInput(resize_px=16, height_px=16, width_px=16)
    return ModelSpec.of_picture_model(
        "made up", module, picture, mean=(0.5,) * 3, std=(0.5,) * 3, task=task
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
        JsonLines(FrameDocument(agent=agent)).add(result)
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
    assert load_model("plain_seg:model").task is None


def tensor(name: str, *shape: int, dtype: str = "float32", batch_dim: int = 0) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape, batch_dim=batch_dim)


LOGITS, MAP = tensor("y", 1, 4), tensor("y", 1, 4, 8, 8)


@pytest.mark.parametrize(
    ("tensors", "said", "found"),
    [
        ([LOGITS], None, CLASSIFY),
        ([LOGITS], RAW_TASK, RAW_TASK),  # an embedding, say
        ([tensor("y", 1, 1)], None, RAW_TASK),
        ([tensor("y", 2, 4)], None, RAW_TASK),  # two rows a sample
        ([tensor("y", 4, 1, batch_dim=1)], None, RAW_TASK),
        ([tensor("y", 1, 4, dtype="int64")], None, RAW_TASK),
        ([MAP], None, RAW_TASK),
        ([LOGITS, tensor("aux", 1, 4)], None, RAW_TASK),
        ([LOGITS, tensor("aux", 1, 4)], CLASSIFY, CLASSIFY),
    ],
)
def test_kind(tensors: list[TensorSpec], said: Task | None, found: Task) -> None:
    outputs = {f"o{i}": spec.name for i, spec in enumerate(tensors)}
    assert task_of(said, outputs, tensors, takes_photos=True) == found


def test_a_model_of_tensors_is_no_classifier_unless_it_is_said() -> None:
    assert task_of(None, {"o": "y"}, [LOGITS], takes_photos=False) == RAW_TASK
    assert task_of(CLASSIFY, {"o": "y"}, [LOGITS], takes_photos=False) == CLASSIFY


def test_a_map_is_no_logits_whatever_is_said(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"'output' \[batch, 6, 16, 16\]"):
        compile_model(of_photos(backbone(), CLASSIFY), tmp_path / "m.split")


def test_a_bundle_that_says_classifier_of_a_map_is_read_as_none(segmenting: Bundle) -> None:
    record = json.loads(segmenting.manifest.to_bytes())
    for said in ({"task": CLASSIFY.to_json()}, {"schema": 2, "classifies": True}):
        assert not Manifest.from_bytes(json.dumps(record | said).encode(), "here").classifies


def test_older_bundles_say_whether_they_are_classifiers(small_bundle: Bundle) -> None:
    record = json.loads(small_bundle.manifest.to_bytes())
    del record["task"]
    for says in (True, False):
        older = json.dumps(record | {"schema": 2, "classifies": says}).encode()
        assert Manifest.from_bytes(older, "here").classifies is says


def test_a_label_for_each_class() -> None:
    check_labels((), 4)
    check_labels("abcd", 4)
    check_labels("abcd", None)
    with pytest.raises(CaptureError, match="tells 4 classes, and 2 labels came"):
        check_labels(("cat", "dog"), 4)
