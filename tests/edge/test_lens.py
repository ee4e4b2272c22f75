"""A region, a mask and motion: what of a source's pictures is looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from splitpoint.edge.errors import SourceError
from splitpoint.edge.sources.lens import Lens, Mask, Motion, Region, motion_of
from splitpoint.edge.sources.source import InputFeed, Origin
from splitpoint.partition.errors import PictureError
from splitpoint.partition.picture import PictureInput
from splitpoint.partition.view import UNSEEN

PICTURE = PictureInput(resize_px=24, height_px=24, width_px=24)
RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (60, 80, 3)).astype(np.uint8)


def feed(lens: Lens) -> InputFeed:
    return InputFeed(model="m", specs=(PICTURE.spec,), picture=PICTURE, source="yard", lens=lens)


def test_a_region_is_what_the_model_sees_and_answers_lie_in_the_whole_picture() -> None:
    part = feed(Lens()).of_array(PHOTO[20:50, 10:50], "part")
    given = feed(Lens(region=Region.parse("10,20,40,30"))).of_array(PHOTO, "whole")
    assert np.array_equal(given.inputs["pixels"], part.inputs["pixels"])
    origin, of_part = given.metadata, part.metadata
    assert isinstance(origin, Origin)
    assert origin.source == "yard"
    assert origin.view is not None
    box = np.array([[2.0, 3.0, 10.0, 12.0]])
    assert np.allclose(
        origin.view.boxes_in_photo(box), of_part.view.boxes_in_photo(box) + np.array([10, 20] * 2)
    )
    seen = origin.view.map_in_photo(np.ones((24, 24), np.uint8))
    assert seen.shape == (60, 80)
    assert np.array_equal(
        seen[20:50, 10:50], of_part.view.map_in_photo(np.ones((24, 24), np.uint8))
    )
    seen[20:50, 10:50] = UNSEEN
    assert (seen == UNSEEN).all()


def test_a_region_beyond_the_picture_is_a_failed_frame() -> None:
    given = feed(Lens(region=Region.parse("50,0,40,30"))).of_array(PHOTO, "x")
    assert isinstance(given.error, PictureError)
    assert "50,0,40,30 reaches beyond the picture of 80x60" in str(given.error)


@pytest.mark.parametrize("text", ["1,2,3", "a,0,4,4", "0,0,0,4", "-1,0,4,4", "", "0,0,4,4,4"])
def test_what_is_no_region(text: str) -> None:
    with pytest.raises(SourceError, match="is no region"):
        Region.parse(text)


def test_a_mask_hides_what_is_black_in_it(tmp_path: Path) -> None:
    shown = np.full((60, 80), 255, np.uint8)
    shown[:, 40:] = 0
    Image.fromarray(shown).save(tmp_path / "mask.png")
    lens = Lens(mask=Mask(tmp_path / "mask.png"))
    other = PHOTO.copy()
    other[:, 40:] = 0
    given, same = (feed(lens).of_array(photo, "x").inputs["pixels"] for photo in (PHOTO, other))
    assert np.array_equal(given, same)
    open_ = feed(Lens()).of_array(PHOTO, "x").inputs["pixels"]
    assert np.array_equal(given[0, :, :10], open_[0, :, :10])  # away from the edge
    assert (given[0, :, 14:] == 128).all()
    wrong = feed(lens).of_array(PHOTO[:30], "x")
    assert isinstance(wrong.error, PictureError)
    assert "is of 80x60, the picture of 80x30" in str(wrong.error)


def test_motion_is_seen_and_noise_and_light_are_not() -> None:
    scene = np.kron(RNG.integers(40, 200, (12, 16, 3)), np.ones((40, 40, 1))).astype(np.uint8)
    motion = Motion(0.5)

    def seen(rgb: np.ndarray) -> bool:
        return motion.in_(Image.fromarray(rgb.astype(np.uint8)))

    assert seen(scene)
    assert not seen(scene)
    assert not seen(np.clip(scene + RNG.normal(0, 10, scene.shape), 0, 255))
    assert not seen(scene + 20)
    person = scene.copy()
    person[200:320, 300:350] = 0  # 2 % of the picture
    assert seen(person)
    assert not seen(person)
    # What moves slowly is compared with what was looked at, not with the frame before.
    shifts = [np.roll(scene, shift, axis=1) for shift in range(1, 20)]
    assert any(seen(shifted) for shifted in shifts)


def test_still_frames_are_given_without_inputs() -> None:
    eyes = feed(Lens(motion=motion_of("0.5")))
    assert not eyes.of_array(PHOTO, "x#0").still
    still = eyes.of_array(PHOTO, "x#1")
    assert still.still
    assert not still.inputs
    assert str(still.metadata) == "x#1"


@pytest.mark.parametrize("text", ["-1", "100", "nan", "much", ""])
def test_what_is_no_share_of_a_picture(text: str) -> None:
    with pytest.raises(SourceError, match="is no share"):
        motion_of(text)
