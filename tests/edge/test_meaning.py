"""What outputs mean: boxes in the photo, areas of it, and pictures with both drawn on them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from splitpoint.codec import Array
from splitpoint.edge import Outcome, Result
from splitpoint.edge.errors import AgentError
from splitpoint.edge.meaning import areas_in, classes_in, things_in
from splitpoint.edge.sinks.annotated import COLOURS, AnnotatedPictures
from splitpoint.edge.sources.source import InputFeed, Origin, every_picture
from splitpoint.partition.picture import PictureInput

LABELS = ["cat", "dog"]
PICTURE = PictureInput(resize="letterbox", height_px=64, width_px=64)
FEED = InputFeed(model="m", specs=(PICTURE.spec,), picture=PICTURE, keeps=every_picture)
PHOTO = np.full((100, 200, 3), 90, np.uint8)  # in the input: rows 16 to 48


def result_of(output: Array, origin: Origin | None = None) -> Result:
    return Result(
        id=7, outcome=Outcome.LOCAL, boundary=3, codec="none", metadata=origin, labels=LABELS,
        outputs={"answer": output[np.newaxis]},
    )  # fmt: skip


def origin_of(photo: Array = PHOTO) -> Origin:
    given = FEED.of_array(photo, "front door.jpg")
    assert given.error is None
    assert isinstance(given.metadata, Origin)
    return given.metadata


def detections(*rows: tuple[float, ...]) -> Array:
    found = np.zeros((10, 6), np.float32)
    for place, row in enumerate(rows):
        found[place] = row
    return found


FOUND = detections((16, 24, 32, 40, 0.9, 1), (0, 16, 64, 48, 0.5, 5), (0, 0, 8, 8, 0.2, 0))


def test_things_are_in_the_photo_s_pixels_with_their_names() -> None:
    origin = origin_of()
    dog, other = things_in(result_of(FOUND, origin), origin.view)
    assert (dog.label, dog.index, dog.score) == ("dog", 1, pytest.approx(0.9))
    assert dog.box == pytest.approx((50, 25, 100, 75))
    assert (other.label, other.box) == ("5", pytest.approx((0, 0, 200, 100)))
    assert len(things_in(result_of(FOUND), None, min_score=0.1)) == 3
    assert things_in(result_of(FOUND), None)[0].box == (16, 24, 32, 40)


def test_areas_leave_the_filling_out() -> None:
    classes = np.full((64, 64), 9, np.uint8)
    classes[16:48, :16], classes[16:48, 16:] = 1, 0
    origin = origin_of()
    found = areas_in(result_of(classes, origin), origin.view)
    assert [(area.label, area.share) for area in found] == [("cat", 0.75), ("dog", 0.25)]


def test_a_frame_without_an_answer_shows_nothing() -> None:
    failed = Result(id=1, outcome=Outcome.FAILED, boundary=0, codec="raw")
    assert classes_in(failed) == things_in(failed, None) == []
    assert areas_in(failed, None) == []


def drawn_by(folder: Path, task: str, output: Array, origin: Origin) -> Array:
    AnnotatedPictures(folder, task).add(result_of(output, origin))
    (path,) = folder.iterdir()
    assert path.name == "000007-front door.jpg"
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


def test_boxes_are_drawn_where_things_are(tmp_path: Path) -> None:
    drawn = drawn_by(tmp_path, "detect", FOUND, origin_of())
    assert drawn.shape == PHOTO.shape
    assert np.abs(drawn[50, 50] - COLOURS[1]).max() < 60  # the dog's left side,
    assert np.abs(drawn[60, 75] - 90).max() < 12  # and its middle


def test_areas_are_coloured(tmp_path: Path) -> None:
    classes = np.zeros((64, 64), np.uint8)
    classes[:, 32:] = 1
    drawn = drawn_by(tmp_path, "segment", classes, origin_of())
    assert np.abs(drawn[90, 40] - 90).max() < 12  # the background stays,
    assert np.abs(drawn[90, 160] - (0.55 * 90 + 0.45 * np.array(COLOURS[1]))).max() < 12


def test_areas_of_a_large_photo_take_no_multiple_of_it(tmp_path: Path) -> None:
    """A device with a gigabyte draws on twelve megapixels; here it is one."""
    photo = np.full((1000, 1000, 3), 90, np.uint8)
    sink = AnnotatedPictures(tmp_path, "segment")
    result = result_of(np.ones((64, 64), np.uint8), origin_of(photo))
    tracemalloc.start()
    try:
        sink.add(result)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 6 * photo.nbytes


def test_a_class_is_written_on_the_photo(tmp_path: Path) -> None:
    drawn = drawn_by(tmp_path, "classify", np.array([0, 9], np.float32), origin_of())
    assert np.abs(drawn[:12, :60] - 90).max() > 60
    assert np.abs(drawn[50:, 100:] - 90).max() < 12


def test_frames_that_were_no_photos_are_left_out(tmp_path: Path) -> None:
    sink = AnnotatedPictures(tmp_path, "detect")
    sink.add(result_of(FOUND, Origin(name="a.npy")))
    sink.add(Result(id=1, outcome=Outcome.FAILED, boundary=0, codec="raw", metadata=origin_of()))
    assert not list(tmp_path.iterdir())


def test_what_nobody_can_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="nothing says what the outputs of this model mean"):
        AnnotatedPictures(tmp_path, "raw")
