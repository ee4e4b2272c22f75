"""A second calibration, with labels: what it counts, and what it replaces."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from calibrated import SCENES, pixels_of
from splitpoint.partition.bundle.bundle import Boundary, Bundle
from splitpoint.partition.calibrate.calibrate import calibrate
from splitpoint.partition.model_spec import ModelSpec
from two_tensors import CPU, inputs_of


@pytest.fixture
def pictures(album_folder: Path) -> Path:
    return album_folder


@pytest.fixture
def bundle(vivid_bundle: Bundle) -> Bundle:
    return vivid_bundle


@dataclass(frozen=True)
class Again:
    """A second calibration, with labels: nine are what the model says, three are not."""

    folder: Path
    boundaries: tuple[Boundary, ...]
    said: list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def again(
    vivid_bundle: Bundle,
    vivid_spec: ModelSpec,
    album_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Again:
    bundle, spec, pictures = vivid_bundle, vivid_spec, album_folder
    with torch.inference_mode():
        answers = spec.module(torch.tensor(pixels_of(spec, pictures))).argmax(-1).tolist()
    said: list[tuple[str, int, int]] = []
    folder = tmp_path_factory.mktemp("again") / "v.split"
    shutil.copytree(bundle.folder, folder, ignore=shutil.ignore_patterns("codecs"))
    boundaries = calibrate(
        uncalibrated(bundle, folder),
        inputs_of(bundle, pictures),
        device=CPU,
        labels=[(answer + (index < 3)) % 5 for index, answer in enumerate(answers)],
        progress=lambda what, done, total: said.append((what, done, total)),
    )
    return Again(folder, boundaries, said)


def uncalibrated(bundle: Bundle, folder: Path) -> Bundle:
    boundaries = tuple(
        replace(boundary, tables="", ladder=()) for boundary in bundle.manifest.boundaries
    )
    return replace(bundle, folder=folder, manifest=replace(bundle.manifest, boundaries=boundaries))


def test_labels_are_counted(again: Again) -> None:
    for boundary in again.boundaries:
        for rung in boundary.ladder:
            assert rung.correct_before == 9
            assert rung.correct is not None
            assert rung.agreed is not None
            assert abs(rung.correct - 9) <= SCENES - rung.agreed
            if rung.agreed == SCENES:
                assert rung.correct == 9


def test_the_same_inputs_give_the_same_tables_and_ladders(bundle: Bundle, again: Again) -> None:
    own = {"encode_ms": 0.0, "decode_ms": 0.0, "correct": None, "correct_before": None}
    for before, after in zip(bundle.manifest.boundaries, again.boundaries, strict=True):
        assert [replace(rung, **own) for rung in before.ladder] == [
            replace(rung, **own) for rung in after.ladder
        ]
        assert before.tables == after.tables
        if before.tables:
            data = bundle.path(before.tables).read_bytes()
            assert data == (again.folder / after.tables).read_bytes()


def test_progress_goes_to_its_end(again: Again) -> None:
    assert [done for _, done, _ in again.said] == list(range(1, again.said[-1][2] + 1))
    assert len({total for _, _, total in again.said}) == 1


def test_calibrating_again_replaces_the_ladder(
    bundle: Bundle, pictures: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "copy"))
    boundaries = calibrate(
        replace(bundle, folder=folder), inputs_of(bundle, pictures)[:8], device=CPU
    )
    for before, after in zip(bundle.manifest.boundaries, boundaries, strict=True):
        kinds = [
            [rung.codec.partition("@")[0] for rung in found.ladder] for found in (before, after)
        ]
        assert kinds[0][:3] == kinds[1][:3]
        assert set(kinds[0]) == set(kinds[1])
