"""When the agent says that its camera has left the calibration, and when it does not."""

from __future__ import annotations

import itertools
import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_scenes import at_night, negative, out_of_focus, pan, scenes
from splitpoint.codec import TensorSpec
from splitpoint.edge import EdgeAgent, Outcome
from splitpoint.edge.figures import drift as drift_module
from splitpoint.edge.figures.drift import Drift
from splitpoint.partition.bundle.boundary import Boundary
from splitpoint.partition.bundle.bundle import Bundle, write_manifest
from splitpoint.partition.bundle.ladder import CodecLevel
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.look import UsualLook
from splitpoint.partition.model_spec import ModelSpec

SAID = "the camera has left the calibration"


def drift_of(usual: UsualLook | None) -> Drift:
    """One that looks at every frame: its clock says that this takes no time."""
    return Drift("small", usual, clock=lambda: 0.0)


@pytest.fixture(scope="module")
def usual() -> UsualLook:
    return UsualLook.of(scenes(100, 1))


@pytest.mark.parametrize("seed", [2, 3])
def test_photos_like_those_of_calibration(
    usual: UsualLook, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    drift = drift_of(usual)
    for picture in scenes(150, seed):
        drift.see(picture[None])
    assert SAID not in caplog.text
    assert drift.of_limit is not None
    assert drift.of_limit < 0.7


@pytest.mark.parametrize("change", [negative, at_night, out_of_focus])
def test_it_speaks_within_fifty_frames_and_once(usual, caplog, change) -> None:  # type: ignore[no-untyped-def]
    drift = drift_of(usual)
    for number, picture in enumerate(scenes(120, 2)):
        drift.see(change(picture)[None])
        if number == 49:
            assert caplog.text.count(SAID) == 1
    assert caplog.text.count(SAID) == 1
    assert "small" in caplog.text
    assert drift.of_limit is not None
    assert drift.of_limit > 1


def test_a_scene_that_does_not_move_is_one_picture(
    usual: UsualLook, caplog: pytest.LogCaptureFixture
) -> None:
    """Any photo is away from the mean of all, and 48 of the same prove no more than one."""
    for picture in scenes(20, 5):
        drift = drift_of(usual)
        for _ in range(60):
            drift.see(picture[None])
    assert SAID not in caplog.text


def test_a_camera_that_turns_sees_one_place(
    usual: UsualLook, caplog: pytest.LogCaptureFixture
) -> None:
    """What it shows differs, and yet it is no more than one place that is away from the mean."""
    for picture in scenes(20, 5):
        drift = drift_of(usual)
        for view in pan(picture):
            drift.see(view[None])
    assert SAID not in caplog.text


def test_some_scenes_that_do_not_move_are_some_pictures(
    usual: UsualLook, caplog: pytest.LogCaptureFixture
) -> None:
    """As of two or three cameras that share an agent, or of one that turns between places."""
    pictures = scenes(24, 5)
    for count in (2, 3):
        for first in range(0, 24, count):
            drift = drift_of(usual)
            for number in range(60):
                drift.see(pictures[first + number % count][None])
    for before, after in itertools.pairwise(pictures):
        drift = drift_of(usual)
        for picture in [before] * 50 + [after] * 50:
            drift.see(picture[None])
    assert SAID not in caplog.text


def test_night_falls_and_it_dawns(usual: UsualLook, caplog: pytest.LogCaptureFixture) -> None:
    """Each departure is told once."""
    drift, by_day = drift_of(usual), scenes(120, 2)
    for picture in (*by_day, *map(at_night, by_day)):
        drift.see(picture[None])
    assert caplog.text.count(SAID) == 1
    for picture in (*by_day, *map(at_night, by_day)):
        drift.see(picture[None])
    assert caplog.text.count(SAID) == 2


def test_nothing_is_said_where_nothing_is_known(caplog: pytest.LogCaptureFixture) -> None:
    drift = drift_of(None)
    for picture in scenes(60, 2):
        drift.see(at_night(picture)[None])
    assert drift.of_limit is None
    assert not caplog.records


def test_looking_takes_a_hundredth_of_the_time(usual: UsualLook) -> None:
    now_s, looks = 0.0, 0

    def clock() -> float:
        nonlocal now_s, looks
        now_s += 0.001  # a look asks twice, before and after
        looks += 1
        return now_s

    drift, picture = Drift("small", usual, clock=clock), scenes(1, 1)[0][None]
    for _ in range(1000):
        drift.see(picture)  # a millisecond passes where it is too early
    assert 1000 <= looks <= 1000 + 1000 / 50


def test_bytes_are_compared_with_those_of_calibration() -> None:
    level = CodecLevel(
        codec="fkt@1", nbytes=100, p95_bytes=120, encode_ms=1, decode_ms=1, judged=9, agreed=9,
        loss=0.01,
    )  # fmt: skip
    spec = TensorSpec(name="x", dtype="float32", shape=(1, 4, 4, 4), batch_dim=0)
    boundary = Boundary(id=1, after="conv", tensors=(spec,), ladder=(level,))
    drift = drift_of(None)
    assert drift.bytes_over_calibrated is None
    drift.encoded(boundary, "raw", 256)
    assert drift.bytes_over_calibrated is None
    for sample_bytes in (110, 130):
        drift.encoded(boundary, "fkt@1", sample_bytes)
    assert drift.bytes_over_calibrated == pytest.approx(1.2)


def test_the_log_has_one_line(usual: UsualLook, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    drift = drift_of(usual)
    for picture in scenes(48, 2):
        drift.see(np.zeros_like(picture)[None])
    (record,) = [record for record in caplog.records if SAID in record.getMessage()]
    assert "\n" not in record.getMessage()
    assert "lower in contrast" in record.getMessage()


@pytest.fixture
def looks_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that takes."""
    monkeypatch.setattr(drift_module, "MOST_SHARE", math.inf)


@pytest.mark.usefixtures("looks_at_all")
async def test_an_agent_looks_at_its_frames(
    vivid_bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    async with EdgeAgent(None, bundle=vivid_bundle.folder, split="local") as agent:
        (spec,) = agent.manifest.boundaries[0].tensors
        for _ in range(drift_module.FEWEST):
            assert agent.drift.of_limit is None
            await agent.infer({spec.name: np.zeros(spec.shape, np.uint8)})
        assert agent.drift.of_limit is not None
        assert agent.drift.of_limit > 1
    assert caplog.text.count(SAID) == 1
    assert agent.drift.of_limit > 1  # when it has been left, too


@pytest.mark.usefixtures("looks_at_all")
async def test_arrays_that_are_no_pictures_are_not_looked_at(
    small: ModelSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A user's own model may read photos and take something else, and a manifest may say it."""
    odd = ModelSpec(
        source="odd",
        module=small.users_module,
        args=(torch.zeros(1, 3, 24, 24),),
        picture=small.picture,
    )
    bundle = compile_model(odd, tmp_path / "odd.split", boundaries=3)
    usual = UsualLook.of(scenes(9, 1))
    write_manifest(bundle.folder, replace(bundle.manifest, usual_look=usual))
    async with EdgeAgent(None, bundle=bundle.folder, split="local") as agent:
        (spec,) = agent.manifest.boundaries[0].tensors
        for _ in range(drift_module.FEWEST):
            result = await agent.infer({spec.name: np.zeros(spec.shape, np.float32)})
            assert result.outcome is Outcome.LOCAL, result.why
        assert agent.drift.of_limit is None
    assert SAID not in caplog.text
