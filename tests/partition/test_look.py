"""How pictures look, against those of calibration."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_scenes import at_night, negative, out_of_focus, scenes
from splitpoint.partition.look import MOST_DEVIATIONS, WORDS, UsualLook, look_of, what_stands_out


def test_a_look_has_a_figure_for_each_word() -> None:
    look = look_of(scenes(1, 0)[0])
    assert look.shape == (len(WORDS),)
    assert np.isfinite(look).all()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5, 3), (700, 2, 3), (3, 1000, 3)])
def test_any_size_has_a_look(shape: tuple[int, int, int]) -> None:
    for value in (0, 255):
        assert np.isfinite(look_of(np.full(shape, value, np.uint8))).all()


def test_pictures_like_those_of_calibration_are_near() -> None:
    usual = UsualLook.of(scenes(60, 1))
    away = np.stack([usual.in_deviations(look_of(picture)) for picture in scenes(60, 2)])
    assert (away.mean(0) ** 2).mean() < 0.15


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (negative, {"greener", "bluer", "redder", "yellower", "lit from below"}),
        (at_night, {"darker", "flatter", "paler"}),
        (out_of_focus, {"less sharp"}),
    ],
)
def test_what_stands_out_is_said(change, words: set[str]) -> None:  # type: ignore[no-untyped-def]
    usual = UsualLook.of(scenes(60, 1))
    looks = [usual.in_deviations(look_of(change(picture))) for picture in scenes(40, 2)]
    mean = np.stack(looks).mean(0)
    assert (mean**2).mean() > 0.3
    assert words & set(what_stands_out(mean).split(" and "))


def test_pictures_that_are_all_alike_leave_room() -> None:
    """Eight frames of one scene are a calibration, too: its twin with a little noise is near."""
    picture = scenes(1, 3)[0]
    usual = UsualLook.of([picture] * 8)
    noise = np.random.default_rng(0).integers(-3, 4, picture.shape)
    other = np.clip(picture + noise, 0, 255).astype(np.uint8)
    assert np.abs(usual.in_deviations(look_of(other))).max() < 1


def test_deviations_that_are_next_to_nothing() -> None:
    away = UsualLook((1e308,) * 9, (5e-324,) * 9).in_deviations(np.zeros(9))
    assert away.tolist() == [-MOST_DEVIATIONS] * 9


def test_the_manifest_form() -> None:
    usual = UsualLook.of(scenes(9, 4))
    assert UsualLook.from_json(usual.to_json()) == usual


@pytest.mark.parametrize(
    "record",
    [
        {"means": [0.0] * 8, "deviations": [1.0] * 8},
        {"means": [0.0] * 9, "deviations": [0.0] * 9},
        {"means": [float("nan")] * 9, "deviations": [1.0] * 9},
        {"means": [0.0] * 9, "deviations": [float("inf")] * 9},
    ],
)
def test_impossible_figures(record: dict[str, list[float]]) -> None:
    with pytest.raises(ValueError, match="figures"):
        UsualLook.from_json(record)
