"""The ladder: intervals against published and counted ones, and what a manifest may say."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from split_tables import level, manifest_of
from splitpoint.partition.bundle.bundle import Manifest, Segment
from splitpoint.partition.bundle.bundle_file import File
from splitpoint.partition.bundle.ladder import CodecLevel, inputs_needed, wilson
from splitpoint.partition.errors import BundleError


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        (0, 100, 0.0, 0.0370),
        (5, 100, 0.0215, 0.1118),
        # Newcombe, Statistics in Medicine 17 (1998), table I.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (100, 100, 0.9630, 1.0),
    ],
)
def test_known_intervals(count: int, total: int, low: float, high: float) -> None:
    assert wilson(count, total) == pytest.approx((low, high), abs=6e-5)


def test_intervals_are_solutions_of_their_equation() -> None:
    """At either end the share seen lies 1.96 standard deviations of that end away."""
    for total in (1, 2, 10, 77, 5000):
        for count in {0, 1, total // 3, total - 1, total}:
            low, high = wilson(count, total)
            share = count / total
            assert 0 <= low <= share + 1e-12
            assert share - 1e-12 <= high <= 1
            for end in (low, high):
                away = 1.959964 * math.sqrt(end * (1 - end) / total)
                assert abs(end - share) == pytest.approx(away, abs=1e-7)


def test_they_hold_what_they_promise() -> None:
    """Over all counts that a share makes, about 95 % of the intervals contain it."""
    for total in (40, 100, 400):
        for share in (0.05, 0.1, 0.3, 0.5):
            held = sum(
                math.comb(total, count) * share**count * (1 - share) ** (total - count)
                for count in range(total + 1)
                if wilson(count, total)[0] <= share <= wilson(count, total)[1]
            )
            assert 0.91 < held < 0.99


@pytest.mark.parametrize("most", [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.9])
def test_the_inputs_needed_are_just_enough(most: float) -> None:
    count = inputs_needed(most)
    assert wilson(0, count)[1] <= most
    assert count == 1 or wilson(0, count - 1)[1] > most


def test_inputs_needed_at_the_ends() -> None:
    assert inputs_needed(0) == 0  # no number is enough
    assert inputs_needed(1.0) == 0  # nothing has to be shown


def test_what_a_rung_says() -> None:
    rung = level("fkt@1", judged=100, agreed=95)
    assert rung.drop == pytest.approx(0.05)
    assert rung.drop_interval == pytest.approx((0.0215, 0.1118), abs=6e-5)
    assert level("q8").drop == 0
    unknown = level("q8", agreed=None)
    assert (unknown.drop, unknown.drop_interval) == (None, None)


@pytest.mark.parametrize(
    "damage",
    [
        {"judged": 0},
        {"judged": -5},
        {"agreed": 401},
        {"agreed": -1},
        {"correct": 401},
        {"correct_before": -1},
        *(
            {name: value}
            for name in ("nbytes", "p95_bytes", "loss", "encode_ms", "decode_ms", "worst_error")
            for value in (-1.0, math.nan, math.inf)
        ),
    ],
)
def test_impossible_figures(damage: dict[str, float]) -> None:
    good = level("q8", correct=300, correct_before=310)
    with pytest.raises(ValueError, match="impossible"):
        replace(good, **damage)


LADDER = (
    level("q8", 123.4, p95_bytes=140.0, agreed=399, loss=1.5e-7, correct=3, correct_before=400),
    level("fkt@1", 30.0, agreed=None, loss=0.25, encode_ms=1.5, decode_ms=0.25, worst_error=0.07),
)
FILE = File(sha256="0" * 64, nbytes=1)


def listed(manifest: Manifest) -> Manifest:
    """With files, so that it can be read."""
    segment = Segment(program="a.json", onnx="a.onnx", weights="a.bin", flops=1)
    return replace(
        manifest,
        segments=(segment,) * len(manifest.segments),
        files=dict.fromkeys(("a.json", "a.onnx", "a.bin"), FILE),
    )


MANIFEST = listed(manifest_of(3, {1: LADDER}))


def test_a_manifest_keeps_its_ladders() -> None:
    data = MANIFEST.to_bytes()
    found = Manifest.from_bytes(data, "here")
    assert found.boundaries[1].ladder == LADDER
    assert found.boundaries[0].ladder == found.boundaries[2].ladder == ()
    assert found.to_bytes() == data
    assert found.digest == MANIFEST.digest != listed(manifest_of(3)).digest
    assert found.boundaries[1].level("fkt@1") == LADDER[1]
    assert found.boundaries[1].level("fkt@2") is None
    # Rungs that any boundary may have come where they always were, the calibrated ones last.
    assert found.boundaries[1].codecs == [*found.boundaries[0].codecs, "fkt@1"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("judged", 0),
        ("judged", "400"),
        ("judged", None),
        ("agreed", 401),
        ("agreed", "many"),
        ("agreed", [1]),
        ("loss", -1),
        ("loss", math.nan),
        ("loss", None),
        ("nbytes", "30"),
        ("nbytes", math.inf),
        ("encode_ms", {}),
        ("correct", 500),
    ],
)
def test_a_damaged_rung(key: str, value: object) -> None:
    record = json.loads(MANIFEST.to_bytes())
    record["boundaries"][1]["ladder"][1][key] = value
    refused(record)


@pytest.mark.parametrize("key", sorted(set(LADDER[0].to_json()) | {"codec"}))
def test_a_rung_that_lacks_something(key: str) -> None:
    record = json.loads(MANIFEST.to_bytes())
    del record["boundaries"][1]["ladder"][0][key]
    refused(record)


def test_a_rung_that_was_written_before_errors_were_measured() -> None:
    record = json.loads(MANIFEST.to_bytes())
    assert "worst_error" not in record["boundaries"][1]["ladder"][0]
    del record["boundaries"][1]["ladder"][1]["worst_error"]
    data = json.dumps(record, separators=(",", ":")).encode()
    found = Manifest.from_bytes(data, "here")
    assert [rung.worst_error for rung in found.boundaries[1].ladder] == [None, None]
    assert found.to_bytes() == data  # and so its digest


@pytest.mark.parametrize("ladder", [None, 5, "q8", [5], ["q8"], [None], {"q8": 1}])
def test_a_ladder_that_is_none(ladder: object) -> None:
    record = json.loads(MANIFEST.to_bytes())
    record["boundaries"][1]["ladder"] = ladder
    refused(record)


def test_tables_that_are_no_file_of_the_bundle() -> None:
    record = json.loads(MANIFEST.to_bytes())
    record["boundaries"][1]["tables"] = "codecs/01.safetensors"
    refused(record, "does not list its file 'codecs/01.safetensors'")


@pytest.mark.parametrize("schema", [1, 4, "2", None])
def test_other_schemas(schema: object) -> None:
    record = json.loads(MANIFEST.to_bytes()) | {"schema": schema}
    refused(record, "splitpoint compile")


def refused(record: object, words: str = "here") -> None:
    with pytest.raises(BundleError, match=words) as caught:
        Manifest.from_bytes(json.dumps(record).encode(), "here")
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def test_equal_rungs_are_equal_bytes() -> None:
    assert CodecLevel.from_json(json.loads(json.dumps(LADDER[0].to_json()))) == LADDER[0]
