"""A calibrated model without pictures: what it loses by default is bounded, and said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from built import built
from command import Command
from splitpoint.codec import Array, codec_of_tensor
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.bundle.ladder import DEFAULT_ERROR
from splitpoint.partition.calibrate.inputs import Calibration
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.plan.plan import named_plan
from splitpoint.partition.run.codecs import codecs_of
from splitpoint.partition.run.onnx_chain import OnnxChain

WORDS, LENGTH = 40, 12


class Sentence(torch.nn.Module):
    """Scores of the next word at every place, `[batch, 12, 40]`: no classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(WORDS, 16)
        self.mix = torch.nn.Conv1d(16, 32, 3, padding=1)
        self.deep = torch.nn.Conv1d(32, 32, 3, padding=1)
        self.head = torch.nn.Linear(32, WORDS)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.mix(self.embed(ids).transpose(1, 2)))
        x = x + torch.relu(self.deep(x))
        return self.head(x.transpose(1, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    made = tmp_path_factory.mktemp("sentences")
    for number in range(24):
        np.save(made / f"{number:02}.npy", rng.integers(0, WORDS, LENGTH))
    return made


@pytest.fixture(scope="module")
def sentence() -> Sentence:
    torch.manual_seed(0)
    return Sentence().eval()


@pytest.fixture(scope="module")
def bundle(sentence: Sentence, folder: Path) -> Bundle:
    ids = torch.zeros(3, LENGTH, dtype=torch.int64)
    spec = ModelSpec(source="sentence", module=sentence, args=(ids,))
    calibration = Calibration(source=str(folder))
    return built(
        "sentence",
        lambda path: compile_model(spec, path, boundaries=3, calibration=calibration),
        __file__,
    )


def after_codec(bundle: Bundle, boundary: int, codec: str, given: Mapping[str, Array]) -> Array:
    """The answer with everything that crosses the boundary coded."""
    chain = OnnxChain(bundle)
    state = chain.place(given)
    for index in range(len(chain)):
        chain.load(index)
        if index == boundary:
            found = codecs_of(bundle.manifest, bundle.folder).named(codec, boundary)
            arrived = {}
            for spec in bundle.manifest.boundaries[boundary].tensors:
                way = codec_of_tensor(found, spec)
                payload = way.encode(chain.fetch(state[spec.name]), spec)
                arrived[spec.name] = way.decode(payload, spec, 1)
            state = chain.place(arrived)
        state = dict(state) | dict(chain.step(index, state))
    (output,) = bundle.manifest.outputs.values()
    return chain.fetch(state[output])


def test_the_usual_codec_keeps_to_the_bound(
    bundle: Bundle, sentence: Sentence, folder: Path
) -> None:
    manifest = bundle.manifest
    assert not manifest.classifies
    codecs = codecs_of(manifest, bundle.folder)
    # There are levels that err by far more, and are far smaller.
    errors = {rung.codec: rung.worst_error for rung in manifest.boundaries[1].ladder}
    assert errors["fkt@1"] > 10 * DEFAULT_ERROR
    codec = named_plan(manifest, codecs, "1").codec
    assert codec not in ("raw", "fkt@1")
    before, after = [], []
    for path in sorted(folder.iterdir()):
        ids = np.load(path)[np.newaxis]
        with torch.inference_mode():
            before.append(sentence(torch.tensor(ids)).numpy())
        (name,) = (spec.name for spec in manifest.boundaries[0].tensors)
        after.append(after_codec(bundle, 1, codec, {name: ids}))
    worst = np.abs(np.array(after) - before).max() / np.abs(before).max()
    assert worst == pytest.approx(errors[codec], rel=0.05)
    assert worst <= DEFAULT_ERROR


def test_a_codec_that_errs_by_more_is_not_the_usual_one(bundle: Bundle) -> None:
    manifest = bundle.manifest

    def usual(**errors: float | None) -> str:
        """With these errors of q8 and fp16, and large ones of all others."""
        ladder = tuple(
            replace(rung, worst_error=errors.get(rung.codec, 0.5))
            for rung in manifest.boundaries[1].ladder
        )
        boundaries = list(manifest.boundaries)
        boundaries[1] = replace(boundaries[1], ladder=ladder)
        changed = replace(manifest, boundaries=tuple(boundaries))
        return named_plan(changed, codecs_of(changed, bundle.folder), "1").codec

    assert usual(q8=0.01, fp16=0.001) == "q8"
    assert usual(q8=0.011, fp16=0.001) == "fp16"
    assert usual(q8=0.011, fp16=0.02) == "raw"
    assert usual(**{"q8": 0.001, "fkt@8": 0.001}) == "fkt@8"


def test_inspect_shows_it(command: Command, bundle: Bundle) -> None:
    said = command("inspect", bundle.folder).stdout
    assert "by default: no JPEG says what an answer may lose" in said
    assert "1 % of the largest" in said
    assert open_bundle(bundle.folder).manifest == bundle.manifest
