"""What a head takes is part of the last segment, wherever the frame ends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from built import built
from splitpoint.cloud.compute.measure_batches import measure_batches
from splitpoint.cloud.compute.runner import Runner
from splitpoint.codec import NO_TABLES, Array, TensorSpec
from splitpoint.partition.bundle.bundle import Bundle, Manifest
from splitpoint.partition.bundle.samples import synthetic_samples
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.energy.power_model import PowerModel
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.picture import PictureInput
from splitpoint.partition.profile.devices import device_named
from splitpoint.partition.profile.measure import measure, measure_server, warm_up
from splitpoint.partition.profile.profile import Profile, ProfileError, load_profile
from splitpoint.partition.profile.scale import scale_profile
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.partition.tasks.head import Head
from splitpoint.partition.tasks.task import Task

HEAD_MS, SIDE = 60.0, 32


class SlowHead:
    """Another head, and time."""

    def __init__(self, head: Head) -> None:
        self._head = head

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        return self._head.specs

    @property
    def classes(self) -> int | None:
        return self._head.classes

    def answer(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        time.sleep(HEAD_MS / 1e3)
        return self._head.answer(outputs)


def segmenter() -> ModelSpec:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 5, 3, 2, 1)
    )
    picture = PictureInput(resize="letterbox", height_px=SIDE, width_px=SIDE)
    return ModelSpec.of_picture_model(
        "slow-head", module.eval(), picture, mean=(0.4,) * 3, std=(0.2,) * 3,
        task=Task.of_head("segment"), labels=tuple("abcde"),
    )  # fmt: skip


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch) -> Bundle:
    found = built(
        "slow-head", lambda path: compile_model(segmenter(), path, boundaries=3), __file__
    )
    head = found.manifest.open_head()
    assert head is not None
    monkeypatch.setattr(Manifest, "open_head", lambda manifest: SlowHead(head))
    return found


@pytest.fixture
def profile(bundle: Bundle) -> Profile:
    power = PowerModel(name="board", idle_w=1.0, busy_w=5.0, source="a test")
    samples = synthetic_samples(bundle.manifest)
    return measure(
        bundle, OnnxChain(bundle, 1), samples, batches=(1, 2), meter=power, max_seconds=0.1
    )


def test_a_profile_has_it_in_the_last_segment_and_in_no_layer(profile: Profile) -> None:
    last = profile.segments[-1]
    assert HEAD_MS <= profile.head_ms <= last.ms <= last.p95_ms
    assert last.batch_ms[2] >= 2 * HEAD_MS
    assert last.mj == pytest.approx(5.0 * last.ms)
    assert sum(segment.ms for segment in profile.segments[:-1]) < HEAD_MS
    assert sum(layer.ms for layer in profile.layers) < HEAD_MS
    assert profile.total_ms == pytest.approx(
        profile.head_ms + sum(layer.ms for layer in profile.layers)
    )


def test_a_worker_announces_it(bundle: Bundle) -> None:
    times = measure_server(bundle, OnnxChain(bundle, 1), NO_TABLES, max_seconds=0.1)
    assert times.segment_ms[-1] >= HEAD_MS
    assert times.segment_p95_ms[-1] >= HEAD_MS
    assert sum(times.segment_ms[:-1]) < HEAD_MS


def test_batches_take_it_for_each_sample(bundle: Bundle) -> None:
    boundaries = [boundary.tensors for boundary in bundle.manifest.boundaries]
    chain = OnnxChain(bundle, 1)
    warm_up(bundle, chain)
    measured = measure_batches(bundle, Runner(chain, boundaries), 2)
    seconds = measured.times.seconds
    assert seconds[-1][1] >= HEAD_MS / 1e3
    assert seconds[-1][2] >= 1.8 * HEAD_MS / 1e3
    assert all(row[1] < HEAD_MS / 1e3 for row in seconds[:-1])


def test_it_scales_as_what_else_a_processor_does(bundle: Bundle, profile: Profile) -> None:
    source, target = device_named("pi5"), device_named("t4")
    scaled = scale_profile(profile, bundle.manifest.layers, target, source)
    ratio = scaled.codecs[0].encode_ms / profile.codecs[0].encode_ms
    assert scaled.head_ms == pytest.approx(ratio * profile.head_ms)
    assert scaled.segments[-1].ms >= scaled.head_ms


def test_it_is_kept_in_the_file(profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    profile.save(path)
    assert load_profile(path) == profile
    replace(profile, head_ms=profile.segments[-1].ms + 1).save(path)
    with pytest.raises(ProfileError, match="damaged"):
        load_profile(path)
