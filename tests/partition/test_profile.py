"""Profiles: what is measured, what it adds up to, and what is refused when one is read."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from split_tables import codec_time, profile_of
from splitpoint.codec import NO_TABLES
from splitpoint.partition.bundle.bundle import Bundle, Manifest
from splitpoint.partition.bundle.samples import (
    Samples,
    find_pictures,
    photo_samples,
    synthetic_samples,
)
from splitpoint.partition.energy.meter import EnergyReading, NoMeter, no_reading
from splitpoint.partition.energy.power_model import PowerModel
from splitpoint.partition.profile import measure as measuring
from splitpoint.partition.profile.measure import measure, measure_server
from splitpoint.partition.profile.measure_codecs import measure_codecs
from splitpoint.partition.profile.profile import (
    PROFILE_SCHEMA,
    CodecTime,
    Profile,
    ProfileError,
    load_profile,
)
from splitpoint.partition.run.chain import SegmentChain
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.partition.run.torch_chain import TorchChain

CPU = torch.device("cpu")


class CountingMeter:
    """Every reading is `mj` times the runs that its chain made since the start."""

    name, kind = "fake", "measured"

    def __init__(self, mj: Callable[[int], float | None]) -> None:
        self._mj = mj
        self.readings = 0
        self.chain: StepCounter | None = None
        self._from = 0

    def describe(self) -> str:
        return "a fake"

    def start(self) -> None:
        self._from = self.chain.steps if self.chain else 0

    def stop(self) -> EnergyReading:
        runs = (self.chain.steps if self.chain else 0) - self._from
        mj = self._mj(self.readings)
        self.readings += 1
        if mj is None:
            return no_reading(self.name, "the sensor went away")
        return EnergyReading(mj=mj * max(runs, 1), kind="measured", meter=self.name)


class StepCounter(OnnxChain):
    """Counts its steps."""

    def __init__(self, bundle: Bundle, meter: CountingMeter) -> None:
        super().__init__(bundle, 1)
        self.steps = 0
        meter.chain = self

    def step(self, index: int, state: dict[str, Any]) -> dict[str, Any]:
        self.steps += 1
        return super().step(index, state)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitpoint.partition.profile.measure_energy.METERED_S", 0.01)
    monkeypatch.setattr("splitpoint.partition.profile.measure_energy.IDLE_S", 0.01)


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


def assert_layers_add_up(profile: Profile, manifest: Manifest) -> None:
    assert [layer.name for layer in profile.layers] == [layer.name for layer in manifest.layers]
    for segment in profile.segments:
        layers = [
            time
            for layer, time in zip(manifest.layers, profile.layers, strict=True)
            if layer.segment == segment.id
        ]
        assert sum(layer.ms for layer in layers) == pytest.approx(segment.ms, rel=1e-6)
        assert all(layer.ms >= 0 for layer in layers)
        if segment.mj is not None:
            assert sum(layer.mj or 0 for layer in layers) == pytest.approx(segment.mj, rel=1e-6)
    assert sum(layer.share for layer in profile.layers) == pytest.approx(1)


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


class FakeTime:
    """A clock that goes on by a millisecond with every step of a chain, and by what is slept."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def chain(self, bundle: Bundle) -> OnnxChain:
        clock = self

        class Clocked(OnnxChain):
            def step(self, index: int, state: dict[str, Any]) -> dict[str, Any]:
                clock.now_s += 1e-3 * next(iter(state.values())).shape[0]  # the batch
                return super().step(index, state)

        return Clocked(bundle, 1)


def slowed(bundle: Bundle, meter: Any, slowdown: float, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """Every step takes a millisecond a sample, every encoding and decoding one."""
    ticks = iter(range(1 << 40))
    clock = FakeTime()
    for module in ("profile.measure", "profile.measure_energy", "run.slowdown"):
        monkeypatch.setattr(f"splitpoint.partition.{module}.time", clock)
    monkeypatch.setattr(
        "splitpoint.partition.profile.measure_codecs.time",
        SimpleNamespace(perf_counter=lambda: next(ticks) * 1e-3),
    )
    return measure(
        bundle,
        clock.chain(bundle),
        synthetic_samples(bundle.manifest),
        batches=(1, 2),
        meter=meter,
        slowdown=slowdown,
        max_seconds=5,
    )


def test_slowing_down_is_marked(small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every time is multiplied, and with it the energy; bytes and the board's power are not."""
    power = PowerModel(name="made up", idle_w=1.0, busy_w=4.0, source="")
    plain = slowed(small_bundle, power, 1, monkeypatch)
    slow = slowed(small_bundle, power, 3, monkeypatch)
    assert plain.emulated == ""
    assert "3 times" in slow.emulated
    for before, after in zip(plain.segments, slow.segments, strict=True):
        assert before.ms == pytest.approx(1)
        assert after.ms == pytest.approx(3)
        assert after.p95_ms == pytest.approx(3)
        assert after.spread_ms == pytest.approx(0, abs=1e-9)
        assert after.mj == pytest.approx(4 * 3)
        assert before.batch_ms == {1: pytest.approx(1), 2: pytest.approx(2)}
        assert after.batch_ms == {1: pytest.approx(3), 2: pytest.approx(6)}
    for before, after in zip(plain.codecs, slow.codecs, strict=True):
        assert after.encode_ms == pytest.approx(3 * before.encode_ms)
        assert after.decode_ms == pytest.approx(3 * before.decode_ms)
        assert after.nbytes == before.nbytes
    assert sum(layer.ms for layer in slow.layers) == pytest.approx(slow.total_ms)
    assert (slow.busy_w, slow.idle_w) == (4, 1)


class SteadyMeter:
    """A board of 5 W, by the clock of the test."""

    name, kind = "fake", "measured"

    def __init__(self) -> None:
        self._began_s = 0.0

    def describe(self) -> str:
        return "a fake"

    def start(self) -> None:
        self._began_s = measuring.time.perf_counter()

    def stop(self) -> EnergyReading:
        ms = 1e3 * (measuring.time.perf_counter() - self._began_s)
        return EnergyReading(mj=5 * ms, kind="measured", meter=self.name)


def test_a_slower_device_takes_more_energy(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured or modelled, a segment of three times the time takes three times the energy."""
    for slowdown in (1, 3):
        found = slowed(small_bundle, SteadyMeter(), slowdown, monkeypatch)
        assert [segment.mj for segment in found.segments] == [
            pytest.approx(5 * slowdown, rel=0.05)
        ] * len(found.segments)
        assert found.busy_w == pytest.approx(5, rel=0.05)
        assert found.idle_w == pytest.approx(5, rel=0.05)


def metered(bundle: Bundle, mj: Callable[[int], float | None]) -> Profile:
    meter = CountingMeter(mj)
    return measure(
        bundle,
        StepCounter(bundle, meter),
        synthetic_samples(bundle.manifest),
        meter=meter,
        max_seconds=0.5,
    )


def test_measured_energy_is_a_run_s(small_bundle: Bundle) -> None:
    """The first reading is of idling, then one a segment."""
    found = metered(small_bundle, lambda reading: 2.0 + reading)
    assert found.energy_kind == "measured"
    assert found.energy_meter == "fake"
    assert [segment.mj for segment in found.segments] == [
        pytest.approx(3.0 + index) for index in range(len(found.segments))
    ]
    assert found.idle_w == pytest.approx(2e-3 / 0.01)
    assert found.busy_w is not None
    assert found.busy_w > 0
    assert_layers_add_up(found, small_bundle.manifest)


@pytest.mark.parametrize("last", [0, 1, 3])
def test_a_meter_that_dies_leaves_no_energy(small_bundle: Bundle, last: int) -> None:
    """The run goes on, says so, and claims nothing that was not measured to its end."""
    found = metered(small_bundle, lambda reading: 2.0 if reading < last else None)
    assert found.energy_kind == "none"
    assert any("the sensor went away" in note for note in found.notes)
    assert all(segment.mj is None for segment in found.segments)
    assert all(layer.mj is None for layer in found.layers)
    assert found.codecs
    assert (found.busy_w, found.idle_w) == (None, None)


def test_no_meter_is_no_energy(small_bundle: Bundle) -> None:
    found = measure(
        small_bundle,
        OnnxChain(small_bundle, 1),
        synthetic_samples(small_bundle.manifest),
        meter=NoMeter("none here"),
        max_seconds=0.3,
    )
    assert found.energy_kind == "none"
    assert {segment.mj for segment in found.segments} == {None}
    assert (found.busy_w, found.idle_w) == (None, None)


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


# The file


MADE_UP = profile_of(
    [10, 20],
    [codec_time(0, "raw", 1000), codec_time(1, "q8", 500, encode_ms=1)],
    mj=[1, 2],
    memory_mb=[5, 6],
    energy_kind="measured",
    busy_w=4.0,
    idle_w=1.0,
    notes=("hot",),
)


def saved(tmp_path: Path, record: Any) -> Path:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(record))
    return path


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


def test_of_another_bundle(tmp_path: Path) -> None:
    path = saved(tmp_path, MADE_UP.to_json())
    with pytest.raises(ProfileError, match="is of the bundle 000000000000, not ffffffffffff"):
        load_profile(path, "f" * 64)


def test_the_first_schema_is_still_read(tmp_path: Path) -> None:
    """It knew neither codecs nor memory nor what a batch takes."""
    record = {
        "schema": 1,
        "device": "board",
        "runtime": "onnxruntime",
        "threads": 4,
        "date": "2025-01-01T00:00:00+00:00",
        "digest": "ab",
        "versions": {"numpy": "1"},
        "segments": [{"id": 0, "ms": 3.0, "p95_ms": 4.0, "samples": 20, "mj": None}],
        "layers": [{"name": "conv", "op": "conv2d", "ms": 3.0, "mj": None, "share": 1.0}],
    }
    found = load_profile(saved(tmp_path, record), "ab")
    assert found.codecs == found.notes == ()
    assert found.energy_kind == "none"
    assert (found.busy_w, found.base_mb) == (None, None)
    assert found.segments[0].batch_ms == {}
    assert found.segments[0].memory_mb is None
    assert found.layers[0].output_shape == ()


def test_what_an_older_version_said_of_the_answers_is_ignored(tmp_path: Path) -> None:
    """Calibration says that now, in the bundle."""
    record = MADE_UP.to_json()
    record["codecs"] = [entry | {"accuracy_drop": 0.5} for entry in record["codecs"]]
    assert load_profile(saved(tmp_path, record)) == MADE_UP


def test_keys_of_a_later_version_are_ignored(tmp_path: Path) -> None:
    record = MADE_UP.to_json()
    record["weather"] = "rain"
    for part in ("segments", "codecs"):
        record[part] = [entry | {"colour": 1} for entry in record[part]]
    assert load_profile(saved(tmp_path, record)) == MADE_UP


@pytest.mark.parametrize("schema", [0, 3, 99, "2", None, [2], 1.5])
def test_a_newer_schema_is_refused_in_words(tmp_path: Path, schema: object) -> None:
    path = saved(tmp_path, MADE_UP.to_json() | {"schema": schema})
    with pytest.raises(ProfileError, match=r"reads up to 2.*splitpoint profile"):
        load_profile(path)


NAN, INF = math.nan, math.inf
FIRST = ("segments", 0)
CODEC = ("codecs", 1)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        *(((*FIRST, key), bad) for key in ("ms", "p95_ms") for bad in (NAN, INF, -1, "x", None)),
        *(((*FIRST, key), bad) for key in ("mj", "memory_mb") for bad in (NAN, -1, "x")),
        pytest.param((*FIRST, "ms"), 10**400, id="a number with 400 digits"),
        ((*FIRST, "id"), 1),
        ((*FIRST, "id"), "0"),
        ((*FIRST, "batch_ms"), {"2": NAN}),
        ((*FIRST, "batch_ms"), {"two": 1}),
        ((*FIRST, "batch_ms"), [1]),
        ((*FIRST,), 5),
        (("segments",), []),
        (("segments",), 5),
        (("segments",), None),
        (("layers",), 5),
        (("layers",), ["conv"]),
        (("layers",), [{"name": "a", "op": "b", "ms": NAN, "mj": None, "share": 1}]),
        *(
            ((*CODEC, key), bad)
            for key in ("nbytes", "p95_bytes", "encode_ms", "decode_ms")
            for bad in (NAN, -1, "x")
        ),
        *(((*CODEC, "boundary"), bad) for bad in (-1, 2, "1", None)),
        ((*CODEC,), 5),
        (("codecs",), None),
        *(((key,), bad) for key in ("busy_w", "idle_w", "base_mb") for bad in (NAN, -1, "x")),
        (("digest",), 5),
    ],
)  # fmt: skip
def test_damaged_figures(tmp_path: Path, where: tuple[str | int, ...], value: object) -> None:
    record: Any = copy.deepcopy(json.loads(json.dumps(MADE_UP.to_json())))
    *path, last = where
    place = record
    for step in path:
        place = place[step]
    place[last] = value
    with pytest.raises(ProfileError, match="splitpoint profile"):
        load_profile(saved(tmp_path, record), MADE_UP.digest)


@pytest.mark.parametrize(
    "missing", ["device", "runtime", "threads", "date", "digest", "versions", "segments", "layers"]
)
def test_missing_fields(tmp_path: Path, missing: str) -> None:
    record = {key: value for key, value in MADE_UP.to_json().items() if key != missing}
    with pytest.raises(ProfileError, match=f"damaged.*{missing}"):
        load_profile(saved(tmp_path, record))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"5", b"{}", b"\xff\xfe", b"[" * 100_000, b"null"]
)
def test_no_profile_at_all(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(content)
    with pytest.raises(ProfileError, match="is no profile"):
        load_profile(path)


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.json", tmp_path):
        with pytest.raises(ProfileError, match="cannot read"):
            load_profile(path)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in ("nowhere/p.json", "file/p.json", "folder"):
        with pytest.raises(ProfileError, match="cannot write"):
            MADE_UP.save(tmp_path / path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.json"
    MADE_UP.save(path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ProfileError, match="No space left"):
        dataclasses.replace(MADE_UP, device="other").save(path)
    assert load_profile(path) == MADE_UP
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.json"]
