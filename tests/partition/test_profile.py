"""Profiles: what is measured, and what it adds up to."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from metered import MADE_UP, assert_layers_add_up
from splitpoint.codec import NO_TABLES
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.bundle.samples import (
    Samples,
    find_pictures,
    photo_samples,
    synthetic_samples,
)
from splitpoint.partition.energy.power_model import PowerModel
from splitpoint.partition.profile.measure import measure, measure_server
from splitpoint.partition.profile.measure_codecs import measure_codecs
from splitpoint.partition.profile.profile import (
    PROFILE_SCHEMA,
    CodecTime,
    Profile,
    load_profile,
)
from splitpoint.partition.run.chain import SegmentChain
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.partition.run.torch_chain import TorchChain

pytestmark = pytest.mark.usefixtures("short_metering")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def large_profile(lite0_bundle: Bundle) -> Profile:
    return measure(
        lite0_bundle,
        OnnxChain(lite0_bundle, 1),
        synthetic_samples(lite0_bundle.manifest),
        max_seconds=4,
    )


@pytest.fixture(scope="module", params=["onnxruntime", "torch"])
def chain(request: pytest.FixtureRequest, small_bundle: Bundle) -> SegmentChain:
    if request.param == "torch":
        return TorchChain(small_bundle, CPU)
    return OnnxChain(small_bundle, 1)


@pytest.fixture(scope="module")
def small_profile(small_bundle: Bundle, chain: SegmentChain) -> Profile:
    return measure(
        small_bundle,
        chain,
        synthetic_samples(small_bundle.manifest),
        batches=(1, 2, 4),
        meter=PowerModel(name="made up", idle_w=1.0, busy_w=4.0, source=""),
        max_seconds=2,
    )


@pytest.mark.slow
def test_layers_add_up_to_their_segments(large_profile: Profile, lite0_bundle: Bundle) -> None:
    assert_layers_add_up(large_profile, lite0_bundle.manifest)
    assert all(segment.samples >= 1 for segment in large_profile.segments)


@pytest.mark.slow
def test_time_is_where_the_work_is(large_profile: Profile) -> None:
    """Convolutions hold nearly all of it; a batch norm that was folded holds next to nothing."""
    share = {"conv2d": 0.0, "batch_norm": 0.0}
    for layer in large_profile.layers:
        if layer.op in share:
            share[layer.op] += layer.share
    assert share["conv2d"] > 0.7
    assert share["batch_norm"] < 0.1


def test_both_runtimes_measure_the_same_things(
    small_profile: Profile, small_bundle: Bundle, chain: SegmentChain
) -> None:
    manifest = small_bundle.manifest
    assert small_profile.runtime == chain.runtime
    assert small_profile.digest == small_bundle.digest
    assert [segment.id for segment in small_profile.segments] == list(range(len(chain)))
    assert_layers_add_up(small_profile, manifest)
    for segment in small_profile.segments:
        assert 0 < segment.ms <= segment.p95_ms
        assert segment.spread_ms >= 0
        assert segment.samples >= 1
        assert segment.memory_mb is not None
        assert segment.batch_ms.keys() == {1, 2, 4}
        assert segment.batch_ms[1] == segment.ms
        assert all(ms > 0 for ms in segment.batch_ms.values())
    assert small_profile.total_ms == pytest.approx(sum(s.ms for s in small_profile.segments))
    for layer, known in zip(small_profile.layers, manifest.layers, strict=True):
        assert (layer.output_shape, layer.flops) == (known.output_shape, known.flops)
        assert (layer.output_bytes, layer.params) == (known.output_bytes, known.params)
    assert small_profile.emulated == small_profile.modelled == ""
    assert "synthetic" in small_profile.pictures


def test_modelled_energy_follows_the_time(small_profile: Profile) -> None:
    assert small_profile.energy_kind == "modelled"
    assert (small_profile.busy_w, small_profile.idle_w) == (4, 1)
    for segment in small_profile.segments:
        assert segment.mj == pytest.approx(4 * segment.ms)


def test_every_codec_at_every_boundary_but_the_last(
    small_profile: Profile, small_bundle: Bundle
) -> None:
    boundaries = small_bundle.manifest.boundaries
    assert [(c.boundary, c.codec) for c in small_profile.codecs] == [
        (boundary.id, codec) for boundary in boundaries[:-1] for codec in boundary.codecs
    ]
    for c in small_profile.codecs:
        if c.codec == "raw":
            assert c.nbytes == c.p95_bytes == boundaries[c.boundary].nbytes
        assert 0 < c.nbytes <= 2 * boundaries[c.boundary].nbytes + 2000
        assert c.encode_ms > 0
        assert c.decode_ms > 0
        assert c.pictures == 0  # synthetic ones are no pictures
    assert any(c.codec == "q8" for c in small_profile.codecs)


def test_photos_are_counted_and_the_clock_is_kept(
    small_bundle: Bundle, photos: Path, chain: SegmentChain
) -> None:
    paths = find_pictures(str(photos))
    samples = photo_samples(small_bundle.manifest, paths)
    many = dataclasses.replace(samples, inputs=samples.inputs * 3)
    for index in range(len(chain)):
        chain.load(index)
    found = measure_codecs(small_bundle, chain, NO_TABLES, samples, max_seconds=60)
    assert {c.pictures for c in found} == {3}
    assert {c.pictures for c in measured_in_time(small_bundle, chain, many)} == {9}
    # The first few are timed in any case; of the others only as many as there is time for.
    rushed = measure_codecs(small_bundle, chain, NO_TABLES, many, max_seconds=0)
    assert {c.pictures for c in rushed} == {5}
    for c, in_time in zip(rushed, found, strict=True):
        assert (c.boundary, c.codec) == (in_time.boundary, in_time.codec)


def measured_in_time(
    bundle: Bundle, chain: SegmentChain, samples: Samples
) -> tuple[CodecTime, ...]:
    return measure_codecs(bundle, chain, NO_TABLES, samples, max_seconds=60)


def test_what_an_input_weighs_is_measured_on_more_photos(
    small_bundle: Bundle, photos: Path, chain: SegmentChain
) -> None:
    paths = find_pictures(str(photos))
    assert len(paths) == 3
    for index in range(len(chain)):
        chain.load(index)

    def sizes(most: int) -> dict[tuple[int, str], CodecTime]:
        samples = photo_samples(small_bundle.manifest, paths, most)
        assert (len(samples.inputs), len(samples.uploads)) == (most, 3 - most)
        found = measured_in_time(small_bundle, chain, samples)
        return {(c.boundary, c.codec): c for c in found}

    one, all_three = sizes(1), sizes(3)
    for (boundary, codec), found in one.items():
        assert found.pictures == (1 if boundary else 3)
        if boundary == 0:
            assert found.nbytes == all_three[0, codec].nbytes


def test_progress_goes_to_its_end(small_bundle: Bundle) -> None:
    said: list[tuple[str, int, int]] = []
    samples = synthetic_samples(small_bundle.manifest)
    measure(
        small_bundle,
        OnnxChain(small_bundle, 1),
        Samples(description="one", inputs=samples.inputs[:1], are_photos=False),
        max_seconds=0.1,
        progress=lambda what, done, total: said.append((what, done, total)),
    )
    assert [done for _, done, _ in said] == sorted({done for _, done, _ in said})
    assert said[-1][1] == said[-1][2]


def test_a_worker_tells_its_times(small_bundle: Bundle) -> None:
    chain = TorchChain(small_bundle, CPU)
    times = measure_server(small_bundle, chain, NO_TABLES, max_seconds=0.3)
    count = len(small_bundle.manifest.segments)
    assert len(times.segment_ms) == len(times.segment_p95_ms) == count
    assert all(ms > 0 for ms in times.segment_ms)
    assert times.decode_ms.keys() == {
        (boundary.id, codec)
        for boundary in small_bundle.manifest.boundaries[:-1]
        for codec in boundary.codecs
    }


def test_round_trip(small_profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    for profile in (small_profile, MADE_UP):
        profile.save(path)
        assert load_profile(path) == load_profile(path, profile.digest) == profile
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.json"]
    record = json.loads(path.read_text())
    assert record["schema"] == PROFILE_SCHEMA == 2
    assert record.keys() >= {
        "device", "runtime", "threads", "date", "digest", "segments", "layers",
    }  # fmt: skip
    assert record["segments"][0].keys() >= {"id", "ms", "p95_ms", "mj"}
