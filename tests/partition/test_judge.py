"""What a codec or a runtime leaves of an input may be answered with no number at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from splitpoint.codec import Array
from splitpoint.codec.codec_set import CodecSet
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.calibrate.inputs import Calibration
from splitpoint.partition.calibrate.judge import Judge
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.errors import CalibrationError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.run.onnx_chain import OnnxChain


class Fragile(OnnxChain):
    """Its last segment answers NaN to anything that is not exactly what it has seen first."""

    seen: Array | None = None

    def step(self, index: int, state: dict[str, Array]) -> dict[str, Array]:
        found = super().step(index, state)
        if index == len(self) - 1:
            (answer,) = found.values()
            self.seen = answer if self.seen is None else self.seen
            if not np.array_equal(answer, self.seen):
                return {name: np.full_like(value, np.nan) for name, value in found.items()}
        return found


def judge_of(bundle: Bundle, pixels: Array, chain: OnnxChain) -> Judge:
    for index in range(len(chain)):
        chain.load(index)
    name = bundle.manifest.boundaries[0].tensors[0].name
    return Judge(bundle.manifest, chain, [{name: pixels[:1]}])


def values_at_1(bundle: Bundle, pixels: Array) -> Mapping[str, list[Array]]:
    chain = OnnxChain(bundle)
    chain.load(0)
    state = chain.step(0, {bundle.manifest.boundaries[0].tensors[0].name: pixels[:1]})
    return {name: [value] for name, value in state.items()}


def test_a_codec_after_which_answers_are_nan_has_no_rung(
    small_bundle: Bundle, pixels: np.ndarray
) -> None:
    boundary, sources = small_bundle.manifest.boundaries[1], [CodecSet(lambda _: {})]
    values = values_at_1(small_bundle, pixels)
    judge = judge_of(small_bundle, pixels, Fragile(small_bundle))
    assert judge.level(boundary, "q4", sources, values) is None
    exact = judge.level(boundary, "raw", sources, values)
    assert exact is not None
    assert exact.loss == 0


def test_a_runtime_in_which_answers_are_nan_is_refused(
    small_bundle: Bundle, pixels: np.ndarray
) -> None:
    judge = judge_of(small_bundle, pixels, Fragile(small_bundle))
    values = {n: [v + 1 for v in vs] for n, vs in values_at_1(small_bundle, pixels).items()}
    with pytest.raises(CalibrationError, match="NaN or infinity"):
        judge.runtime_level(replace(small_bundle.manifest.boundaries[1]), values)


class Masked(torch.nn.Module):
    """Scores of which some are -inf, and what their softmax picks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(6, 8), torch.nn.Linear(8, 5)
        self.register_buffer("banned", torch.tensor([0, 1, 0, 0, 1, 0, 0, 0]).bool())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.first(x).masked_fill(self.banned, -torch.inf)
        y: torch.Tensor = self.second(scores.softmax(-1))
        return y


@pytest.mark.slow
def test_a_boundary_that_carries_infinity_has_the_codecs_that_can(tmp_path: Path) -> None:
    folder, rng = tmp_path / "arrays", np.random.default_rng(0)
    folder.mkdir()
    for index in range(8):
        np.save(folder / f"{index}.npy", rng.normal(size=(6,)).astype(np.float32))
    torch.manual_seed(0)
    spec = ModelSpec(source="masked", module=Masked(), args=(torch.randn(3, 6),))
    bundle = compile_model(
        spec,
        tmp_path / "m.split",
        after=["masked_fill"],
        calibration=Calibration(source=str(folder)),
    )
    assert bundle.manifest.max_relative_error < 1e-4
    boundary = bundle.manifest.boundaries[1]
    assert [level.codec for level in boundary.ladder] == ["fp16"]
    assert not boundary.tables
