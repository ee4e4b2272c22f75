"""Calibration: tables and ladders, and that they say what the codecs do."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from calibrated import SCENES, pixels_of
from splitpoint.codec import NO_TABLES, Array, CodecError, codecs_for
from splitpoint.codec.fkt.table import FktTable
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.bundle.ladder import DEFAULT_LOSS
from splitpoint.partition.bundle.samples import Samples
from splitpoint.partition.calibrate import fkt_ladder
from splitpoint.partition.calibrate.calibrate import FOLDS, IMAGE_LADDER, calibrate
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.errors import PlanError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.plan.plan import coarser, default_level, named_plan
from splitpoint.partition.profile.measure_codecs import measure_codecs
from splitpoint.partition.run.codecs import codecs_of
from splitpoint.partition.run.onnx_chain import OnnxChain
from two_tensors import (
    CPU,
    Values,
    crossing,
    divergence,
    fkt_rungs,
    inputs_of,
    rest_of_the_model,
    sent,
)


@pytest.fixture
def pictures(album_folder: Path) -> Path:
    return album_folder


@pytest.fixture
def spec(vivid_spec: ModelSpec) -> ModelSpec:
    return vivid_spec


@pytest.fixture
def bundle(vivid_bundle: Bundle) -> Bundle:
    return vivid_bundle


def test_inner_boundaries_get_tables_and_all_get_ladders(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert open_bundle(bundle.folder).manifest == manifest
    first, *inner, last = manifest.boundaries
    assert inner
    assert (first.tables, last.tables, last.ladder) == ("", "", ())
    assert [rung.codec for rung in first.ladder] == [
        *IMAGE_LADDER["jpeg"], *IMAGE_LADDER["webp"],
    ]  # fmt: skip
    for boundary in inner:
        assert boundary.tables == f"codecs/{boundary.id:02}.safetensors"
        assert boundary.tables in manifest.files
        names = [rung.codec for rung in boundary.ladder]
        fixed = [name for name in codecs_for(boundary.tensors) if name != "raw"]
        levels = names[len(fixed) :]
        assert names[: len(fixed)] == fixed
        assert levels == [f"fkt@{number}" for number in range(1, len(levels) + 1)]
        assert len(levels) >= 4
        assert boundary.codecs == ["raw", *fixed, *levels]


def test_every_rung_makes_sense(bundle: Bundle) -> None:
    for boundary in bundle.manifest.boundaries:
        for rung in boundary.ladder:
            assert rung.judged == SCENES
            assert rung.agreed is not None
            assert 0 < rung.nbytes < 2 * boundary.nbytes
            assert rung.p95_bytes >= 0.9 * rung.nbytes
            assert rung.encode_ms > 0
            assert rung.decode_ms > 0
            assert (rung.correct, rung.correct_before) == (None, None)
            if rung.loss < 1e-4:
                assert rung.agreed >= SCENES - 1


def test_finer_levels_cost_more_and_lose_less(bundle: Bundle, two_tensors: Bundle) -> None:
    for found in (bundle, two_tensors):
        for boundary in found.manifest.boundaries[1:-1]:
            rungs = fkt_rungs(boundary)
            # Each fold has tables of its own, so that two levels of a few bytes may change places.
            assert all(a.nbytes <= 1.02 * b.nbytes for a, b in pairwise(rungs))
            assert rungs[-1].nbytes > rungs[0].nbytes
            assert rungs[-1].loss < rungs[0].loss


def test_the_transform_codec_is_the_smallest(bundle: Bundle) -> None:
    """Of what these pictures are made of, little matters to the answer."""
    for boundary in bundle.manifest.boundaries[1:-2]:
        q4 = boundary.level("q4")
        assert q4 is not None
        assert all(rung.nbytes < q4.nbytes / 4 for rung in fkt_rungs(boundary))


# Against what really happens


def worst_error(before: np.ndarray, after: np.ndarray) -> float:
    return float(np.abs(after - before).max() / np.abs(before).max())


@pytest.mark.parametrize("codec", ["jpeg@75", "jpeg@95", "webp@80"])
def test_image_rungs_against_the_unsplit_model(
    bundle: Bundle, spec: ModelSpec, pictures: Path, codec: str
) -> None:
    boundary = bundle.manifest.boundaries[0]
    pixels = pixels_of(spec, pictures)
    sizes, decoded = [], []
    for row in pixels:
        nbytes, arrived = sent(NO_TABLES, codec, boundary, {"pixels": row[None]})
        sizes.append(nbytes)
        decoded.append(arrived["pixels"][0])
    with torch.inference_mode():
        before = spec.module(torch.tensor(pixels)).numpy()
        after = spec.module(torch.tensor(np.stack(decoded))).numpy()
    rung = boundary.level(codec)
    assert rung is not None
    assert rung.nbytes == pytest.approx(np.mean(sizes), abs=0.06)
    assert rung.p95_bytes == pytest.approx(np.percentile(sizes, 95), abs=0.06)
    assert rung.agreed == int((before.argmax(-1) == after.argmax(-1)).sum())
    assert rung.loss == pytest.approx(divergence(before, after), rel=1e-2, abs=1e-5)
    assert rung.worst_error == pytest.approx(worst_error(before, after), rel=1e-2)


def test_codecs_without_tables_against_the_rest_of_the_model(
    bundle: Bundle, spec: ModelSpec, pictures: Path
) -> None:
    with torch.inference_mode():
        before = spec.module(torch.tensor(pixels_of(spec, pictures))).numpy()
    rows = [crossing(bundle, given) for given in inputs_of(bundle, pictures)]
    for boundary in bundle.manifest.boundaries[1:-1]:
        for codec in ("fp16", "q4"):
            found = [sent(NO_TABLES, codec, boundary, row[boundary.id]) for row in rows]
            after = np.concatenate(
                [rest_of_the_model(bundle, boundary.id, arrived) for _, arrived in found]
            )
            rung = boundary.level(codec)
            assert rung is not None
            assert rung.nbytes == pytest.approx(np.mean([n for n, _ in found]), abs=0.06)
            assert rung.agreed == int((before.argmax(-1) == after.argmax(-1)).sum())
            assert rung.loss == pytest.approx(divergence(before, after), rel=0.02, abs=1e-5)
            assert rung.worst_error == pytest.approx(worst_error(before, after), rel=0.05, abs=1e-4)
            if codec == "fp16":
                assert rung.agreed == SCENES


def test_the_tables_that_ship_do_as_the_ladder_says(bundle: Bundle, pictures: Path) -> None:
    """Those that judged were made from three quarters of the inputs, so that figures differ.

    Payloads of some twenty bytes also by the four bytes of a lane.
    """
    codecs = codecs_of(bundle.manifest, bundle.folder)
    rows = [crossing(bundle, given) for given in inputs_of(bundle, pictures)]
    for boundary in bundle.manifest.boundaries[1:-1]:
        for rung in fkt_rungs(boundary)[::3]:
            sizes = [sent(codecs, rung.codec, boundary, row[boundary.id])[0] for row in rows]
            assert np.mean(sizes) == pytest.approx(rung.nbytes, rel=0.15, abs=5)


def test_the_finest_level_keeps_the_answers(
    bundle: Bundle, spec: ModelSpec, pictures: Path
) -> None:
    """With the tables that ship, against the unsplit model.

    Of answers on the edge, one that changes must have been nearly as likely as the one it was.
    """
    codecs = codecs_of(bundle.manifest, bundle.folder)
    with torch.inference_mode():
        before = spec.module(torch.tensor(pixels_of(spec, pictures))).numpy()
    likely = torch.tensor(before).softmax(-1).numpy()
    rows = [crossing(bundle, given) for given in inputs_of(bundle, pictures)]
    for boundary in bundle.manifest.boundaries[1:-1]:
        losses = []
        for rung in (fkt_rungs(boundary)[0], fkt_rungs(boundary)[-1]):
            after = np.concatenate(
                [
                    rest_of_the_model(
                        bundle,
                        boundary.id,
                        sent(codecs, rung.codec, boundary, row[boundary.id])[1],
                    )
                    for row in rows
                ]
            )
            losses.append(divergence(before, after))
        each = np.arange(len(before))
        lost = likely.max(-1) - likely[each, after.argmax(-1)]
        assert lost.max() < 0.1
        assert losses[-1] < 0.01
        assert losses[-1] < losses[0]


@pytest.mark.slow
def test_every_input_is_judged_with_tables_made_without_it(
    spec: ModelSpec, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table's mean shows what it was made from: an input of its own fold never matters."""
    bundle = compile_model(spec, tmp_path / "v.split", boundaries=3)
    inputs = list(inputs_of(bundle, pictures))[:8]
    fit = fkt_ladder.fit_table

    def means(given: Sequence[Values]) -> list[tuple[int, Array]]:
        found: list[tuple[int, Array]] = []

        def noted(*arguments: object) -> FktTable:
            table = fit(*arguments)
            found.append((arguments[2].inputs, table.mean))
            return table

        monkeypatch.setattr(fkt_ladder, "fit_table", noted)
        monkeypatch.setattr(fkt_ladder, "FITTED_TOGETHER", 1)  # in their order
        calibrate(bundle, given, device=CPU)
        return found

    before = means(inputs)
    odd = 5
    inputs[odd] = {"pixels": 255 - inputs[odd]["pixels"]}
    after = means(inputs)
    fits = len(before) // (FOLDS + 1)  # a second time where coarser levels are tried
    assert [count for count, _ in before] == [*[6] * FOLDS, 8] * fits
    same = [np.array_equal(a, b) for (_, a), (_, b) in zip(before, after, strict=True)]
    assert same == [*(fold == odd % FOLDS for fold in range(FOLDS)), False] * fits


# What is made of them


def test_fkt_stands_for_a_sensible_level(bundle: Bundle) -> None:
    manifest, codecs = bundle.manifest, codecs_of(bundle.manifest, bundle.folder)
    for boundary in manifest.boundaries[1:-1]:
        split, levels = str(boundary.id), fkt_rungs(boundary)
        fine = [all(x.loss <= DEFAULT_LOSS for x in levels[i:]) for i in range(len(levels))]
        expected = levels[fine.index(True) if any(fine) else -1].codec
        assert default_level(manifest, boundary.id) == expected
        for codec in ("auto", "fkt"):
            assert named_plan(manifest, codecs, split, codec).codec == expected
        assert named_plan(manifest, codecs, split, "fkt@2").codec == "fkt@2"
        for codec in ("fkt@0", "fkt@99", "fkt@x", "fkt@"):
            with pytest.raises(CodecError, match="unknown codec"):
                named_plan(manifest, codecs, split, codec)
    assert named_plan(manifest, codecs, "input").codec == "jpeg"


def test_what_was_not_calibrated_says_so(small_bundle: Bundle, bundle: Bundle) -> None:
    plain = codecs_of(small_bundle.manifest, small_bundle.folder)
    calibrated = codecs_of(bundle.manifest, bundle.folder)
    for manifest, codecs, split in (
        (small_bundle.manifest, plain, "1"),
        (bundle.manifest, calibrated, "0"),
    ):
        with pytest.raises(CodecError, match=f"boundary {split} has no tables.*--calibrate"):
            named_plan(manifest, codecs, split, "fkt")
    assert named_plan(small_bundle.manifest, plain, "1").codec == "q8"
    with pytest.raises(PlanError, match="codec jpeg cannot carry boundary 1"):
        named_plan(bundle.manifest, calibrated, "1", "jpeg")


def test_coarser_levels(bundle: Bundle) -> None:
    first, inner = bundle.manifest.boundaries[:2]
    assert coarser(first, "jpeg") == ["jpeg", "jpeg@85", "jpeg@75"]
    assert coarser(first, "webp@80") == ["webp@80"]
    assert coarser(first, "jpeg@50") == ["jpeg@50"]  # of which nothing is known
    assert coarser(inner, "q8") == ["q8"]
    assert coarser(inner, "raw") == ["raw"]
    *coarse, finest = (rung.codec for rung in fkt_rungs(inner))
    own, *others = coarser(inner, finest)
    assert own == finest
    assert sorted(others) == coarse
    sizes = [rung.nbytes for name in others for rung in fkt_rungs(inner) if rung.codec == name]
    assert sizes == sorted(sizes, reverse=True)
    assert coarser(inner, "fkt@1") == ["fkt@1"]


def test_a_device_measures_the_calibrated_levels(bundle: Bundle, pictures: Path) -> None:
    chain = OnnxChain(bundle, 1)
    for index in range(len(chain)):
        chain.load(index)
    inputs = inputs_of(bundle, pictures)[:6]
    found = measure_codecs(
        bundle,
        chain,
        codecs_of(bundle.manifest, bundle.folder),
        Samples(description="six", inputs=inputs, are_photos=True),
        max_seconds=60,
    )
    boundaries = bundle.manifest.boundaries[:-1]
    assert {(c.boundary, c.codec) for c in found} >= {
        (boundary.id, codec) for boundary in boundaries for codec in boundary.codecs
    }
    for c in found:
        rung = boundaries[c.boundary].level(c.codec)
        if rung is not None and c.codec.startswith("fkt@"):
            assert c.nbytes == pytest.approx(rung.nbytes, rel=0.2, abs=9)
