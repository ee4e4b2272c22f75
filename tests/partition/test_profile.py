"""Profiles: what they add up to, and what is refused when one is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from splitpoint.partition.bundle import Bundle
from splitpoint.partition.measure import measure
from splitpoint.partition.profile import Profile, ProfileError, load_profile


@pytest.fixture(scope="module")
def measured(lite0_bundle: Bundle) -> Profile:
    return measure(lite0_bundle, threads=1, max_seconds=5)


def test_layers_add_up_to_their_segments(measured: Profile, lite0_bundle: Bundle) -> None:
    manifest = lite0_bundle.manifest
    for segment in measured.segments:
        assert segment.samples >= 20
        assert 0 < segment.ms <= segment.p95_ms
        layers = [
            time.ms
            for layer, time in zip(manifest.layers, measured.layers, strict=True)
            if layer.segment == segment.id
        ]
        assert sum(layers) == pytest.approx(segment.ms, rel=1e-6)
    assert sum(layer.share for layer in measured.layers) == pytest.approx(1)


def test_time_is_where_the_work_is(measured: Profile, lite0_bundle: Bundle) -> None:
    """Convolutions hold nearly all of it; a batch norm that was folded holds next to nothing."""
    share = {"conv2d": 0.0, "batch_norm": 0.0}
    for layer in measured.layers:
        if layer.op in share:
            share[layer.op] += layer.share
    assert share["conv2d"] > 0.7
    assert share["batch_norm"] < 0.1


def test_round_trip_and_refusals(measured: Profile, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    measured.save(path)
    assert load_profile(path, measured.digest) == measured
    with pytest.raises(ProfileError, match="is of the bundle"):
        load_profile(path, "0" * 64)
    record = json.loads(path.read_text())
    for damage, words in (
        ({**record, "schema": 99}, "schema 99"),
        ({k: v for k, v in record.items() if k != "layers"}, "damaged"),
        ({**record, "segments": [{"id": 0}]}, "damaged"),
        ({**record, "segments": []}, "make no sense"),
        ({**record, "segments": [{**record["segments"][0], "ms": -1}]}, "make no sense"),
        ([], "no profile"),
    ):
        path.write_text(json.dumps(damage))
        with pytest.raises(ProfileError, match=words):
            load_profile(path)
    path.write_text("{")
    with pytest.raises(ProfileError, match="no profile"):
        load_profile(path)
    with pytest.raises(ProfileError, match="cannot read"):
        load_profile(tmp_path / "nothing.json")
    with pytest.raises(ProfileError, match="cannot write"):
        measured.save(tmp_path / "nowhere" / "p.json")
