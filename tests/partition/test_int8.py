"""INT8 segments: their ranges, values and files, what is judged of them, and what a plan does."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from calibrated import SCENES, pixels_of
from split_tables import codec_time, level, manifest_of, profile_of
from splitpoint.partition.bundle.bundle import Bundle, Manifest, open_bundle
from splitpoint.partition.bundle.ladder import RuntimeLevel, wilson
from splitpoint.partition.bundle.samples import synthetic_samples
from splitpoint.partition.bundle.segment_files import INT8, ONNX
from splitpoint.partition.calibrate.inputs import Calibration
from splitpoint.partition.calibrate.quantise import safe_range
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.energy.radio import radio_for
from splitpoint.partition.errors import BundleError, PlanError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.plan.costs import CostTable, cost_table
from splitpoint.partition.plan.link import parse_link
from splitpoint.partition.plan.objective import Constraints, Objective
from splitpoint.partition.plan.planner import Report, make_plan
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.partition.profile.measure import measure
from splitpoint.partition.run.onnx_chain import OnnxChain

SEEN = RuntimeLevel(judged=100, agreed=97, loss=0.01)


def answers(chain: OnnxChain, pixels: np.ndarray) -> np.ndarray:
    state = chain.place({"pixels": pixels})
    for index in range(len(chain)):
        chain.load(index)
        state |= chain.step(index, state)
    return np.asarray(state["linear"] if "linear" in state else list(state.values())[-1])


@pytest.mark.parametrize(
    ("weights", "limit"),
    [
        ([[1.0, 1.0]], 2.0),
        ([[1.0, -1.0]], 1.0),
        ([[3.0, 0.5, -2.0, -2.5]], 4.5),
        ([[0.5], [-2.0]], [0.5, 2.0]),
        # A convolution [1, 2, 1, 2]: its input channels are neighbours as well as its pixels.
        ([[[[3.0, -3.0]], [[4.0, -4.0]]]], 7.0),
    ],
)
def test_known_ranges(weights: list[object], limit: float | list[float]) -> None:
    np.testing.assert_allclose(safe_range(np.array(weights, np.float32)), limit)


@pytest.mark.parametrize("shape", [(16, 64), (8, 5, 3, 3), (4, 7, 1, 1)])
def test_no_pair_overflows(shape: tuple[int, ...]) -> None:
    """The largest activation times two neighbouring weights, added in 16 bits."""
    rng = np.random.default_rng(0)
    for scale in (1e-4, 1.0, 30.0):
        weight = (scale * rng.standard_t(3, shape)).astype(np.float32)
        limit = safe_range(weight).reshape(-1, *[1] * (len(shape) - 1))
        steps = np.round(weight / (limit / 127))
        assert np.abs(steps).max() <= 127
        for order in (steps, np.moveaxis(steps, 1, -1)):
            rows = order.reshape(len(order), -1)
            assert 255 * (np.maximum(rows[:, 1:], 0) + np.maximum(rows[:, :-1], 0)).max() < 2**15
            assert 255 * (np.minimum(rows[:, 1:], 0) + np.minimum(rows[:, :-1], 0)).min() > -(2**15)


def test_bundle_holds_it(int8_bundle: Bundle) -> None:
    again = open_bundle(int8_bundle.folder)
    manifest = again.manifest
    assert manifest == int8_bundle.manifest
    assert manifest.has_int8
    assert manifest.boundaries[0].int8 is None
    for segment in manifest.segments:
        assert again.path(segment.int8).stat().st_size == manifest.files[segment.int8].nbytes
    for boundary in manifest.boundaries[1:]:
        found = boundary.int8
        assert found is not None
        assert found.judged == SCENES
        assert found.agreed is not None
        assert found.agreed >= SCENES - 2
        assert found.loss < 0.05
        assert found.drop_interval == wilson(SCENES - found.agreed, SCENES)
    assert manifest.boundaries[-1].int8.loss > 0  # type: ignore[union-attr]


def test_values_are_those_of_the_model_but_for_a_little(
    int8_bundle: Bundle, vivid_spec: ModelSpec, album_folder: Path
) -> None:
    pixels = pixels_of(vivid_spec, album_folder)
    with torch.inference_mode():
        expected = vivid_spec.module(torch.tensor(pixels)).numpy()
    exact = answers(OnnxChain(int8_bundle, 1), pixels)
    coarse = answers(OnnxChain(int8_bundle, 1, INT8), pixels)
    np.testing.assert_allclose(exact, expected, rtol=1e-4, atol=1e-5)
    error = np.abs(coarse - expected).mean() / expected.std()
    assert 1e-5 < error < 0.1


def test_it_is_measured_like_any_other(int8_bundle: Bundle) -> None:
    profile = measure(
        int8_bundle,
        OnnxChain(int8_bundle, 1, INT8),
        synthetic_samples(int8_bundle.manifest),
        max_seconds=0.5,
        codecs=(codec_time(0, "raw", 1.0),),
    )
    assert profile.runtime == INT8
    assert [codec.codec for codec in profile.codecs] == ["raw"]
    assert [layer.name for layer in profile.layers] == [
        layer.name for layer in int8_bundle.manifest.layers
    ]
    assert sum(layer.ms for layer in profile.layers) == pytest.approx(profile.total_ms)


def test_bundle_without(small_bundle: Bundle) -> None:
    assert not small_bundle.manifest.has_int8
    assert b'"int8"' not in small_bundle.manifest.to_bytes()  # as bundles were before
    with pytest.raises(PlanError, match="has no INT8 segments"):
        OnnxChain(small_bundle, 1, INT8)
    with pytest.raises(PlanError, match="unknown runtime 'tflite'"):
        OnnxChain(small_bundle, 1, "tflite")


def test_damaged_file(int8_bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "copy.split"
    shutil.copytree(int8_bundle.folder, copy)
    path = copy / int8_bundle.manifest.segments[1].int8
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"01\.int8\.onnx is damaged"):
        open_bundle(copy)
    path.write_bytes(b"no model")
    chain = OnnxChain(replace(int8_bundle, folder=copy), 1, INT8)
    with pytest.raises(BundleError, match="onnxruntime cannot load"):
        chain.load(1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record["segments"][1].pop("int8"),
        lambda record: record["boundaries"][2].pop("int8"),
        lambda record: record["segments"][1].update(int8="segments/gone.onnx"),
        lambda record: record["boundaries"][2]["int8"].update(agreed=1000),
        lambda record: record["boundaries"][2]["int8"].update(loss=-1),
        lambda record: record["boundaries"][2].update(int8=[]),
    ],
)
def test_damaged_manifest(int8_bundle: Bundle, damage: object) -> None:
    record = json.loads(int8_bundle.manifest.to_bytes())
    damage(record)  # type: ignore[operator]
    with pytest.raises(BundleError):
        Manifest.from_bytes(json.dumps(record).encode(), "manifest")


@pytest.mark.slow
def test_labels_count_what_is_right(
    vivid_spec: ModelSpec, album_folder: Path, tmp_path: Path
) -> None:
    with torch.inference_mode():
        top = vivid_spec.module(torch.tensor(pixels_of(vivid_spec, album_folder))).argmax(-1)
    labels = tmp_path / "labels.txt"
    names = [path.name for path in sorted(album_folder.iterdir())]
    labels.write_text("".join(f"{n} {int(t)}\n" for n, t in zip(names, top, strict=True)))
    bundle = compile_model(
        vivid_spec,
        tmp_path / "labelled.split",
        boundaries=3,
        calibration=Calibration(source=str(album_folder), labels=labels, int8=True),
    )
    for boundary in bundle.manifest.boundaries[1:]:
        assert boundary.int8 is not None
        assert boundary.int8.correct_before == SCENES
        assert boundary.int8.correct == boundary.int8.agreed


# What a plan makes of it: two segments of 10 ms each in float32, 4 ms in INT8.


def manifest(seen: RuntimeLevel | None = SEEN) -> Manifest:
    plain = manifest_of(2, {1: [level("q8", loss=0.002, judged=50, agreed=49), level("q4")]})
    if seen is None:
        return plain
    return replace(
        plain,
        segments=tuple(replace(segment, int8="x.onnx") for segment in plain.segments),
        boundaries=(
            plain.boundaries[0],
            *(replace(boundary, int8=seen) for boundary in plain.boundaries[1:]),
        ),
    )


def table(manifest: Manifest, *runtimes: str) -> CostTable:
    codecs = [
        codec_time(boundary, codec, 100.0) for boundary in (0, 1) for codec in ("raw", "q8", "q4")
    ]
    ms = {ONNX: [10.0, 10.0], INT8: [4.0, 4.0]}
    edges = [profile_of(ms[runtime], codecs, runtime=runtime) for runtime in runtimes]
    return cost_table(manifest, edges, CloudTimes(segment_ms=(1.0, 1.0)), radio=radio_for(""))


def plan(manifest: Manifest, **limits: float) -> Report:
    return make_plan(
        manifest,
        table(manifest, ONNX, INT8),
        parse_link("0.001mbps,1000ms"),  # so that the device does best alone
        objective=Objective.parse("latency"),
        constraints=Constraints(**limits),
    )


def test_it_is_an_arm() -> None:
    report = plan(manifest())
    assert (report.chosen.boundary, report.chosen.runtime) == (2, INT8)
    chosen = report.candidates[0]
    assert chosen.latency_ms == pytest.approx(8.0)
    assert chosen.accuracy_drop == pytest.approx(0.03)
    assert chosen.drop_bound == pytest.approx(wilson(3, 100)[1])


def test_it_is_refused_where_it_changes_too_much() -> None:
    strict = plan(manifest(), max_accuracy_drop=0.05)
    assert (strict.chosen.boundary, strict.chosen.runtime) == (2, ONNX)
    refused = next(c for c in strict.candidates if c.runtime == INT8 and c.boundary == 2)
    assert refused.broken == ("--max-accuracy-drop",)
    allowed = plan(manifest(), max_accuracy_drop=0.09)
    assert allowed.chosen.runtime == INT8
    # Without a limit it may lose what a JPEG may.
    assert plan(manifest(replace(SEEN, loss=0.03))).chosen.runtime == ONNX
    # Or, where there is none and its errors were measured, so much of the largest output.
    assert plan(manifest(replace(SEEN, worst_error=0.009))).chosen.runtime == INT8
    assert plan(manifest(replace(SEEN, worst_error=0.02))).chosen.runtime == ONNX


def test_codec_and_runtime_together() -> None:
    found = table(manifest(), ONNX, INT8)
    rows = {
        (found.runtime[i], int(found.boundary[i]), found.codec[i]): i for i in range(len(found))
    }
    both, codec, alone = rows[INT8, 1, "q8"], rows[ONNX, 1, "q8"], rows[INT8, 1, "raw"]
    for column in (found.accuracy_drop, found.drop_bound, found.loss):
        assert column[both] == pytest.approx(column[codec] + column[alone])
    assert found.loss[alone] == pytest.approx(0.01)
    assert found.judged[both] == 50
    assert found.judged[alone] == 100
    assert (INT8, 0, "raw") not in rows  # where nothing runs, there is nothing to choose
    only = table(manifest(), INT8)
    sent = next(i for i in range(len(only)) if only.boundary[i] == 0 and only.codec[i] == "raw")
    assert (only.loss[sent], only.drop_bound[sent]) == (0, 0)


def test_what_was_never_judged_stays_unknown() -> None:
    """A model that is no classifier has losses, and no answers to change."""
    unknown = replace(SEEN, agreed=None)
    found = table(manifest(unknown), INT8)
    local = next(i for i in range(len(found)) if found.codec[i] == "none")
    assert np.isnan(found.drop_bound[local])
    assert found.loss[local] == pytest.approx(0.01)
    assert plan(manifest(unknown), max_accuracy_drop=0.5).chosen.runtime == ONNX


def test_no_arm_without_it() -> None:
    with pytest.raises(PlanError, match="has no INT8 segments"):
        table(manifest(None), ONNX, INT8)
