"""What a bundle is measured on."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from split_tables import manifest_of
from splitpoint.codec import TensorSpec
from splitpoint.partition.bundle.bundle import Boundary, Bundle
from splitpoint.partition.bundle.samples import (
    MAX_PHOTOS,
    SYNTHETIC,
    find_pictures,
    photo_samples,
    synthetic_samples,
)
from splitpoint.partition.errors import PictureError


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Thirty pictures; each is uniform and its shade tells its number."""
    for index in range(30):
        Image.new("RGB", (40, 30), (index, index, index)).save(tmp_path / f"{index:02}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "more.jpg").mkdir()
    return tmp_path


def test_a_folder_gives_its_pictures_sorted(album: Path) -> None:
    found = find_pictures(str(album))
    assert [path.name for path in found] == [f"{index:02}.png" for index in range(30)]


def test_suffixes_in_capitals(tmp_path: Path) -> None:
    (tmp_path / "A.JPG").write_bytes(b"")
    assert find_pictures(str(tmp_path)) == [tmp_path / "A.JPG"]


def test_a_file_is_itself(album: Path) -> None:
    assert find_pictures(str(album / "notes.txt")) == [album / "notes.txt"]
    odd = album / "a[1].png"
    odd.write_bytes(b"")
    assert find_pictures(str(odd)) == [odd]


def test_globs(album: Path) -> None:
    assert [path.name for path in find_pictures(str(album / "0[12].png"))] == ["01.png", "02.png"]
    (album / "deep" / "er").mkdir(parents=True)
    (album / "deep" / "er" / "x.gif").write_bytes(b"")
    assert find_pictures(str(album / "**" / "*.gif")) == [album / "deep" / "er" / "x.gif"]


def test_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="holds no pictures"):
        find_pictures(str(tmp_path))
    for source in ("nothing.png", "*.png"):
        with pytest.raises(PictureError, match="does not exist and matches no file"):
            find_pictures(str(tmp_path / source))


def shades(bundle: Bundle, paths: list[Path], most: int = MAX_PHOTOS) -> list[int]:
    samples = photo_samples(bundle.manifest, paths, most)
    assert samples.are_photos
    assert samples.description == f"{len(samples.inputs)} photos"
    found = []
    for given in samples.inputs:
        ((name, pixels),) = given.items()
        spec = bundle.manifest.boundaries[0].tensors[0]
        assert (name, pixels.shape, pixels.dtype) == (spec.name, spec.shape, spec.numpy_dtype)
        assert len(np.unique(pixels)) == 1
        found.append(int(pixels.flat[0]))
    return found


def test_photos_are_chosen_evenly(small_bundle: Bundle, album: Path) -> None:
    paths = find_pictures(str(album))
    assert shades(small_bundle, paths[:7]) == list(range(7))
    assert shades(small_bundle, paths[:1]) == [0]
    chosen = shades(small_bundle, paths, 10)
    assert len(chosen) == 10
    assert (chosen[0], chosen[-1]) == (0, 29)
    assert set(np.diff(chosen)) <= {3, 4}
    assert len(shades(small_bundle, paths)) == MAX_PHOTOS
    for most in range(1, 31):
        for count in range(1, 31):
            picked = photo_count(count, most)
            assert picked == min(count, most)


def photo_count(count: int, most: int) -> int:
    """How many of `count` files are read, without reading any."""

    class Read:
        @staticmethod
        def read(path: Path) -> np.ndarray:
            return np.zeros((1, 1, 3), np.uint8)

    manifest = dataclasses.replace(manifest_of(1), picture=Read())
    return len(photo_samples(manifest, [Path(str(i)) for i in range(count)], most).inputs)


def test_photos_that_cannot_be_decoded(small_bundle: Bundle, album: Path) -> None:
    with pytest.raises(PictureError, match=r"notes\.txt is no picture"):
        photo_samples(small_bundle.manifest, [album / "notes.txt"])


def test_a_model_without_pictures_takes_no_photos(album: Path) -> None:
    with pytest.raises(PictureError, match="does not take pictures"):
        photo_samples(manifest_of(2), find_pictures(str(album)))


def test_synthetic_pictures(small_bundle: Bundle) -> None:
    """The same every time, all different, and with something for JPEG to compress."""
    samples = synthetic_samples(small_bundle.manifest)
    assert not samples.are_photos
    assert "synthetic" in samples.description
    assert len(samples.inputs) == SYNTHETIC
    spec = small_bundle.manifest.boundaries[0].tensors[0]
    again = synthetic_samples(small_bundle.manifest)
    arrays = [given[spec.name] for given in samples.inputs]
    for array, same in zip(arrays, again.inputs, strict=True):
        assert (array.shape, array.dtype) == (spec.shape, np.uint8)
        assert np.array_equal(array, same[spec.name])
    assert not np.array_equal(arrays[0], arrays[1])


def test_synthetic_pictures_compress_better_than_noise(
    lite0_bundle: Bundle,
) -> None:
    def jpeg_bytes(pixels: np.ndarray) -> int:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=75)
        return stream.tell()

    (pixels,) = synthetic_samples(lite0_bundle.manifest).inputs[0].values()
    noise = np.random.default_rng(0).integers(0, 256, pixels[0].shape).astype(np.uint8)
    assert 3_000 < jpeg_bytes(pixels[0]) < 0.75 * jpeg_bytes(noise)


def test_other_inputs_are_random_numbers_of_their_kind() -> None:
    manifest = manifest_of(2)
    tensors = (
        TensorSpec(name="x", dtype="float16", shape=(1, 50), batch_dim=0),
        TensorSpec(name="ids", dtype="int64", shape=(1, 4), batch_dim=0),
    )
    first = Boundary(id=0, after=None, tensors=tensors)
    manifest = dataclasses.replace(manifest, boundaries=(first, *manifest.boundaries[1:]))
    samples = synthetic_samples(manifest)
    assert "random" in samples.description
    for given in samples.inputs:
        assert given["x"].dtype == np.float16
        assert 0.5 < float(given["x"].std()) < 1.5
        assert given["ids"].tolist() == [[0, 0, 0, 0]]
        assert given["ids"].dtype == np.int64
    (given, *_) = synthetic_samples(dataclasses.replace(manifest, stand_ins={"ids": 7})).inputs
    assert given["ids"].tolist() == [[7, 7, 7, 7]]
