"""Calibration of models that are no classifiers, and of unusual ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from calibrated import pixels_of
from splitpoint.codec import NO_TABLES
from splitpoint.partition.bundle.bundle import Boundary, Bundle
from splitpoint.partition.calibrate.calibrate import calibrate
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.run.codecs import codecs_of
from two_tensors import (
    CPU,
    Values,
    crossing,
    fkt_rungs,
    inputs_of,
    rest_of_the_model,
    sent,
    two_tensors_spec,
)


@pytest.fixture
def pictures(album_folder: Path) -> Path:
    return album_folder


@pytest.fixture
def bundle(vivid_bundle: Bundle) -> Bundle:
    return vivid_bundle


def test_tensors_and_integers_together(two_tensors: Bundle, arrays: Path) -> None:
    """Each float32 has a table, integers travel raw, and a first boundary has none at all."""
    codecs = codecs_of(two_tensors.manifest, two_tensors.folder)
    rows = [crossing(two_tensors, given) for given in inputs_of(two_tensors, arrays)]
    widest = 0
    assert two_tensors.manifest.boundaries[0].tables == ""
    for boundary in two_tensors.manifest.boundaries[1:-1]:
        floats = [spec.name for spec in boundary.tensors if spec.dtype == "float32"]
        integers = [spec.name for spec in boundary.tensors if spec.dtype == "int64"]
        widest = max(widest, len(floats))
        assert sorted(codecs.tables(boundary.id)) == sorted(floats)
        for name in integers:
            assert name not in codecs.tables(boundary.id)
        finest = fkt_rungs(boundary)[-1].codec
        values = rows[0][boundary.id]
        _, arrived = sent(codecs, finest, boundary, values)
        for spec in boundary.tensors:
            value, found = values[spec.name], arrived[spec.name]
            assert (found.shape, found.dtype) == (value.shape, value.dtype)
            if spec.name in integers:
                assert np.array_equal(found, value)
            else:
                assert np.abs(found - value).mean() < np.abs(value).mean()
    assert widest >= 2
    assert any(
        spec.dtype == "int64" for b in two_tensors.manifest.boundaries[1:] for spec in b.tensors
    )


def test_a_regression_has_a_relative_error(two_tensors: Bundle, arrays: Path) -> None:
    """Half the squared error over the variance, of all inputs together."""
    inputs = inputs_of(two_tensors, arrays)
    rows = [crossing(two_tensors, given) for given in inputs]
    module = two_tensors_spec().module
    with torch.inference_mode():
        before = np.concatenate(
            [module(*(torch.tensor(given[n]) for n in ("x", "ids"))).numpy() for given in inputs]
        ).astype(np.float64)
    for boundary in two_tensors.manifest.boundaries[:-1]:
        for rung in boundary.ladder:
            assert (rung.agreed, rung.drop, rung.drop_interval) == (None, None, None)
        after = np.concatenate(
            [
                rest_of_the_model(
                    two_tensors,
                    boundary.id,
                    sent(NO_TABLES, "q4", boundary, row[boundary.id])[1],
                )
                for row in rows
            ]
        )
        rung = boundary.level("q4")
        assert rung is not None
        loss = ((after - before) ** 2).mean() / before.var() / 2
        assert rung.loss == pytest.approx(loss, rel=0.02)


# Models that have little to calibrate


def compiled(spec: ModelSpec, folder: Path, inputs: Sequence[Values]) -> tuple[Boundary, ...]:
    bundle = compile_model(spec, folder / "m.split", boundaries=4)
    names = [tensor.name for tensor in bundle.manifest.boundaries[0].tensors]
    renamed = [dict(zip(names, given.values(), strict=True)) for given in inputs]
    return calibrate(bundle, renamed, device=CPU)


def test_a_model_whose_answers_hardly_differ(
    small: ModelSpec, tmp_path: Path, pictures: Path
) -> None:
    """Untrained, it says nearly the same of everything: all levels together lose too little."""
    pixels = pixels_of(small, pictures)
    boundaries = compiled(small, tmp_path, [{"pixels": row[None]} for row in pixels])
    assert all(boundary.ladder for boundary in boundaries[:-1])


class Masked(torch.nn.Module):
    """The mask crosses with the activations, and is the same for every input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(6, 12), torch.nn.Linear(12, 3)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)) * mask.unsqueeze(-1))


def test_a_tensor_that_never_changes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = ModelSpec(
        source="masked", module=Masked(), args=(torch.randn(3, 16, 6), torch.ones(3, 16))
    )
    rng = np.random.default_rng(0)
    inputs = [
        {"x": rng.normal(size=(1, 16, 6)).astype(np.float32), "mask": np.ones((1, 16), np.float32)}
        for _ in range(9)
    ]
    boundaries = compiled(spec, tmp_path, inputs)
    assert all(boundary.ladder for boundary in boundaries[:-1])


class Scalar(torch.nn.Module):
    """One number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(24, 48), torch.nn.Linear(48, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


def vectors(count: int) -> list[Values]:
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(size=(1, 24)).astype(np.float32)} for _ in range(count)]


def scalar_spec() -> ModelSpec:
    torch.manual_seed(0)
    return ModelSpec(source="scalar", module=Scalar(), args=(torch.randn(3, 24),))


def test_a_regression_of_one_number(tmp_path: Path) -> None:
    """Its levels lose about what was aimed at, as those of any other model."""
    for boundary in compiled(scalar_spec(), tmp_path, vectors(40))[1:-1]:
        rungs = fkt_rungs(boundary)
        assert rungs[0].nbytes <= rungs[-1].nbytes  # some bytes hold one number at any level
        assert 0.02 < rungs[0].loss < 0.2
        assert rungs[-1].loss < 0.01


def test_one_input_unlike_all_others(tmp_path: Path) -> None:
    """The tables that judge it were made without it; that is no reason to give up."""
    inputs = vectors(12)
    inputs[3] = {"x": 1e6 * inputs[3]["x"]}
    boundaries = compiled(scalar_spec(), tmp_path, inputs)
    assert all(boundary.ladder for boundary in boundaries[:-1])
