"""`splitpoint run` for a model of arrays: the files that `--calibrate` takes, the right answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from built import built
from command import Command
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.model_spec import ModelSpec


class Words(torch.nn.Module):
    """Scores for the next word: six of ten words in, `[batch, 10]` out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(10, 8)
        self.mix = torch.nn.Linear(48, 16)
        self.head = torch.nn.Linear(16, 10)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        found = self.embed(ids) * mask.unsqueeze(-1)
        return self.head(torch.relu(self.mix(found.flatten(1))))


@pytest.fixture(scope="module")
def words() -> Words:
    torch.manual_seed(0)
    return Words().eval()


@pytest.fixture(scope="module")
def bundle(words: Words) -> Bundle:
    spec = ModelSpec(
        source="words", module=words, args=(torch.zeros(3, 6, dtype=torch.int64), torch.ones(3, 6))
    )
    return built("words", lambda path: compile_model(spec, path, boundaries=3), __file__)


def test_run_takes_what_calibrate_takes(
    command: Command, words: Words, bundle: Bundle, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    folder, outputs = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    given = [(rng.integers(0, 10, 6), np.ones(6, np.float32)) for _ in range(3)]
    for number, (ids, mask) in enumerate(given):
        np.savez(folder / f"{number}.npz", ids=ids, mask=mask)
    np.savez(folder / "3.npz", ids=given[0][0].astype(np.int32), mask=given[0][1])
    arguments = ["run", "--bundle", bundle.folder, "--split", "local", "--source", folder]
    arguments += ["--json", "--save-outputs", outputs, "--energy", "none"]
    done = command(*arguments)
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["outcome"] == "failed" for line in lines[:-1]] == [False, False, False, True]
    assert lines[-1]["summary"]["frames"] == 4
    assert "3.npz: tensor 'ids' is int32, expected int64" in lines[3]["error"]
    saved = sorted(outputs.iterdir())
    assert len(saved) == 3
    for path, (ids, mask) in zip(saved, given, strict=True):
        with torch.inference_mode():
            expected = words(torch.tensor(ids[np.newaxis]), torch.tensor(mask[np.newaxis]))
        np.testing.assert_allclose(np.load(path), expected.numpy(), atol=1e-5)
