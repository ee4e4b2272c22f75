"""Answers are found again in the photo, whatever became of it on its way to the input."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from splitpoint.codec import Array
from splitpoint.partition.errors import PictureError
from splitpoint.partition.picture import RESIZES, PictureInput
from splitpoint.partition.view import UNSEEN

SIZES = [(300, 200), (200, 300), (64, 64), (640, 97), (31, 47)]
# x0, y0, x1, y1 as parts of the photo; in its middle, so that a crop keeps it.
MARK = (0.45, 0.4, 0.58, 0.55)


def input_of(resize: str, height: int = 96, width: int = 128) -> PictureInput:
    return PictureInput(resize=resize, height_px=height, width_px=width)


def marked(width: int, height: int) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """A black photo with a white rectangle, and where that lies."""
    x0, y0, x1, y1 = (
        round(part * side) for part, side in zip(MARK, (width, height) * 2, strict=True)
    )
    values = np.zeros((height, width, 3), np.uint8)
    values[y0:y1, x0:x1] = 255
    return Image.fromarray(values), (x0, y0, x1, y1)


def bounds(mask: Array) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", SIZES)
def test_a_box_in_the_input_is_a_box_in_the_photo(size: tuple[int, int], resize: str) -> None:
    photo, mark = marked(*size)
    picture = input_of(resize)
    pixels = picture.pixels_of(photo)
    assert pixels.shape == (96, 128, 3)
    view = picture.view_of(*size)
    (found,) = view.boxes_in_photo(np.array([bounds(pixels[..., 0] > 127)], np.float32))
    # To within a pixel of the coarser of the two.
    step = max((view.right_px - view.left_px) / 128, (view.bottom_px - view.top_px) / 96, 1)
    assert np.abs(found - mark).max() <= step


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", SIZES)
def test_a_map_of_the_input_lies_over_the_photo(size: tuple[int, int], resize: str) -> None:
    photo, mark = marked(*size)
    picture = input_of(resize)
    mask = (picture.pixels_of(photo)[..., 0] > 127).astype(np.uint8)
    view = picture.view_of(*size)
    for coarser in (1, 2):
        found = view.map_in_photo(mask[::coarser, ::coarser])
        assert found.shape == size[::-1]
        step = coarser * max((view.right_px - view.left_px) / 128, 1)
        assert np.abs(np.subtract(bounds(found > 0), mark)).max() <= step + 1


def test_what_a_crop_cuts_off_is_unseen() -> None:
    view = input_of("crop").view_of(640, 97)
    found = view.map_in_photo(np.ones((96, 128), np.uint8))
    assert set(found[:, :250].ravel()) == set(found[:, 390:].ravel()) == {UNSEEN}
    assert (found[:, 260:380] == 1).all()


@pytest.mark.parametrize("resize", ["letterbox", "pad"])
@pytest.mark.parametrize("size", SIZES)
def test_filling_is_around_the_whole_photo(size: tuple[int, int], resize: str) -> None:
    picture = PictureInput(resize=resize, height_px=96, width_px=128, fill=7)
    pixels = picture.pixels_of(Image.new("RGB", size, (200, 100, 50)))
    shown = (pixels == (200, 100, 50)).all(-1)
    assert (pixels[~shown] == 7).all()
    view = picture.view_of(*size)
    part = view.part_with_photo(shown)
    assert part.all()
    assert part.size == shown.sum()
    x0, y0, x1, y1 = bounds(shown)
    assert max(x1 - x0, y1 - y0) in (96, 128)  # as large as fits
    margins = (x0, y0, 128 - x1, 96 - y1)
    if resize == "pad":
        assert margins[:2] == (0, 0)
    else:
        assert abs(margins[0] - margins[2]) <= 1
        assert abs(margins[1] - margins[3]) <= 1


@pytest.mark.parametrize("size", [(3000, 2), (2, 3000), (500, 1)])
@pytest.mark.parametrize("coarser", [1, 4, 8])
def test_a_strip_of_a_photo_is_shown_by_some_cell(size: tuple[int, int], coarser: int) -> None:
    for resize in RESIZES:
        view = input_of(resize).view_of(*size)
        assert view.part_with_photo(np.zeros((96 // coarser, 128 // coarser))).size > 0


def test_boxes_stay_inside_of_the_photo() -> None:
    view = input_of("letterbox").view_of(300, 200)
    (found,) = view.boxes_in_photo(np.array([[-50.0, -50, 500, 500]], np.float32))
    assert found.tolist() == [0, 0, 300, 200]


def test_stretching_is_pillow_s() -> None:
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (77, 131, 3), np.uint8))
    expected = np.asarray(photo.resize((128, 96), Image.Resampling.BILINEAR))
    assert np.array_equal(input_of("stretch").pixels_of(photo), expected)


def test_a_crop_shows_the_middle() -> None:
    view = PictureInput(resize_px=256, height_px=224, width_px=224).view_of(512, 512)
    assert (view.left_px, view.top_px, view.right_px, view.bottom_px) == (32, 32, 480, 480)


@pytest.mark.parametrize("resize", RESIZES)
def test_what_a_manifest_says_is_read_again(resize: str) -> None:
    picture = PictureInput(resize=resize, height_px=96, width_px=128, fill=0)
    assert PictureInput.from_json(picture.to_json()) == picture


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"resize": "squeeze"}, "unknown resizing 'squeeze'"),
        ({"fill": 256}, "filled with 256"),
        ({"height_px": 0}, "an input of 0x128"),
        ({"width_px": 1 << 20}, "an input of 96x1048576"),
    ],
)
def test_what_cannot_be_is_refused(said: dict[str, object], why: str) -> None:
    with pytest.raises(PictureError, match=why):
        PictureInput(**{"height_px": 96, "width_px": 128, "resize": "pad", **said})  # type: ignore[arg-type]
