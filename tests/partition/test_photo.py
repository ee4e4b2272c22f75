"""Every kind of picture that a user may have: what it shows is what the model sees."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibrated import album
from PIL import ExifTags, Image, ImageOps
from splitpoint.codec import Array
from splitpoint.partition import photo as photo_module
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.bundle.samples import photo_samples
from splitpoint.partition.calibrate.inputs import Calibration, calibration_inputs
from splitpoint.partition.errors import PictureError
from splitpoint.partition.photo import MAX_PIXELS, is_picture, open_photo, rgb_of

# Corners of different colours, so that no turn looks like another.
SIDE = 8
CORNERS = np.zeros((2 * SIDE, 3 * SIDE, 3), np.uint8)
CORNERS[:SIDE, :SIDE] = (250, 10, 10)
CORNERS[:SIDE, -SIDE:] = (10, 250, 10)
CORNERS[-SIDE:, :SIDE] = (10, 10, 250)
ORIENTATIONS = range(1, 9)


def saved(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def opened(image: Image.Image, file_format: str = "PNG", **options: Any) -> Array:
    return np.asarray(open_photo(saved(image, file_format, **options), "x"))


def turned(orientation: int, file_format: str) -> bytes:
    """A picture that EXIF says is to be turned: upright it has the corners of `CORNERS`."""
    undo = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = undo
    stored = Image.fromarray(CORNERS)
    stored.getexif()[ExifTags.Base.Orientation] = undo
    stored = ImageOps.exif_transpose(stored)
    exif[ExifTags.Base.Orientation] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    return saved(stored, file_format, exif=exif, **options.get(file_format, {}))


# Orientation


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(orientation: int, file_format: str) -> None:
    found = np.asarray(open_photo(turned(orientation, file_format), "x"))
    assert found.shape == CORNERS.shape
    assert np.abs(found.astype(int) - CORNERS).max() <= 4  # JPEG's


def test_it_is_applied_wherever_photos_are_read(small_bundle: Bundle, tmp_path: Path) -> None:
    """Calibration, the device's profile, and `PictureInput` itself, which runs use."""
    folder = album(tmp_path / "album", 7)
    for path in folder.iterdir():
        path.unlink()
    for orientation in ORIENTATIONS:
        (folder / f"{orientation}.png").write_bytes(turned(orientation, "PNG"))
    manifest = small_bundle.manifest
    assert manifest.picture is not None
    upright = manifest.picture.read(folder / "1.png")
    paths = sorted(folder.iterdir())
    samples = photo_samples(manifest, paths).inputs
    calibrated = calibration_inputs(manifest, Calibration(source=str(folder))).inputs
    for path, one, other in zip(paths, samples, calibrated, strict=True):
        assert np.array_equal(manifest.picture.read(path), upright)
        assert np.array_equal(one["pixels"][0], upright)
        assert np.array_equal(other["pixels"][0], upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_leaves_the_picture_as_it_is() -> None:
    plain = Image.fromarray(CORNERS)
    for exif in (b"Exif\0\0nonsense", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0"):
        found = opened(plain, "JPEG", exif=exif, quality=100, subsampling=0)
        assert found.shape == CORNERS.shape
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 77
    assert opened(plain, exif=exif).shape == CORNERS.shape


# Modes


RAMP = np.linspace(0, 255, 256).round().astype(np.uint8).reshape(16, 16)


def grey(values: Array) -> Array:
    return np.repeat(values[..., None], 3, -1).astype(np.uint8)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_grey_of_16_bits_is_scaled(file_format: str) -> None:
    values = RAMP.astype(np.uint16) * 257
    found = opened(Image.fromarray(values), file_format)
    assert np.array_equal(found, grey(RAMP))
    dark = np.arange(256, dtype=np.uint16).reshape(16, 16)
    assert np.array_equal(opened(Image.fromarray(dark), file_format), grey(dark >= 129))


def test_older_releases_of_pillow_open_it_as_32_bits() -> None:
    image = Image.fromarray(RAMP.astype(np.int32) * 257)
    with pytest.raises(PictureError, match="mode I"):
        rgb_of(image)
    image.format = "PNG"
    assert np.array_equal(np.asarray(rgb_of(image)), grey(RAMP))


def test_big_endian_grey() -> None:
    image = Image.frombytes("I;16B", (16, 16), (RAMP.astype(">u2") * 257).tobytes())
    assert np.array_equal(np.asarray(rgb_of(image)), grey(RAMP))


def test_colour_of_16_bits_keeps_the_upper_8() -> None:
    """Pillow cannot write such a file."""
    values = np.full((4, 6, 3), 0x80FF, ">u2")
    values[..., 1] = 0xFFFF
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 6, 4, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    file = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    assert (np.asarray(open_photo(file, "x")) == (0x80, 0xFF, 0x80)).all()


def test_modes_that_show_what_they_are() -> None:
    image = Image.fromarray(CORNERS)
    assert np.array_equal(opened(Image.fromarray(RAMP)), grey(RAMP))
    black_and_white = Image.fromarray(RAMP > 127)
    assert np.array_equal(opened(black_and_white), grey((RAMP > 127) * 255))
    palette = image.convert("P", palette=Image.Palette.ADAPTIVE)
    for file_format in ("PNG", "GIF", "BMP"):
        assert np.abs(opened(palette, file_format).astype(int) - CORNERS).max() <= 2
    ink = opened(image.convert("CMYK"), "TIFF")
    assert np.abs(ink.astype(int) - CORNERS).max() <= 2
    ink = opened(image.convert("CMYK"), "JPEG", quality=100)
    assert np.abs(ink[4, 4].astype(int) - CORNERS[4, 4]).max() <= 10


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_values_without_a_meaning_are_refused(mode: str) -> None:
    with pytest.raises(PictureError, match=f"x.tif: nothing says .* mode {mode}: convert it"):
        open_photo(saved(Image.new(mode, (8, 8)), "TIFF"), "x.tif")


def test_the_first_of_several_frames() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for file_format in ("GIF", "TIFF", "WEBP", "PNG", "MPO"):
        options = {"save_all": True, "append_images": frames[1:]}
        found = opened(frames[0], file_format, **options)
        assert np.abs(found.astype(int) - (255, 0, 0)).max() <= 4


# Transparency


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    photo_module._say_once.cache_clear()
    caplog.set_level(logging.WARNING)
    return caplog


def clear_half(mode: str) -> Image.Image:
    """Black; its left half is clear."""
    alpha = np.zeros((8, 8), np.uint8)
    alpha[:, 4:] = 255
    return Image.merge("LA", [Image.new("L", (8, 8)), Image.fromarray(alpha)]).convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pictures_lie_on_white(mode: str, told: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        found = opened(clear_half(mode))
        assert (found[:, :4] == 255).all()
        assert (found[:, 4:] == 0).all()
    assert [record.getMessage() for record in told.records] == [
        "transparent pictures are laid on white"
    ]


def test_half_transparent() -> None:
    found = opened(Image.new("RGBA", (8, 8), (200, 0, 100, 51)))
    assert np.abs(found.astype(int) - (244, 204, 224)).max() <= 1


def test_a_transparent_colour(told: pytest.LogCaptureFixture) -> None:
    """Of a palette, of grey and of RGB."""
    for image, transparent in (
        (Image.fromarray(CORNERS).convert("P", palette=Image.Palette.ADAPTIVE), None),
        (Image.new("L", (8, 8), 7), 7),
        (Image.new("RGB", (8, 8), (7, 8, 9)), (7, 8, 9)),
    ):
        index = image.getpixel((0, 0)) if transparent is None else transparent
        found = opened(image, transparency=index)
        assert (found[0, 0] == 255).all()
    assert len(told.records) == 1


def test_an_alpha_channel_that_hides_nothing(told: pytest.LogCaptureFixture) -> None:
    image = Image.fromarray(CORNERS).convert("RGBA")
    assert np.array_equal(opened(image), CORNERS)
    assert not told.records


# Files that are refused


def test_more_pixels_than_are_decoded(tmp_path: Path) -> None:
    """By their header: these would not fit a file of a kilobyte."""
    for side in (9_460, 13_000, 30_000):  # Pillow warns, warns, refuses
        file = bytearray(saved(Image.new("RGB", (8, 8)), "PNG"))
        file[16:24] = struct.pack(">II", side, side)
        file[29:33] = struct.pack(">I", zlib.crc32(file[12:29]))
        with pytest.raises(PictureError, match=r"huge\.png has more than 89 million pixels"):
            open_photo(bytes(file), "huge.png")
        (tmp_path / "huge").write_bytes(file)
        assert is_picture(tmp_path / "huge")
    assert MAX_PIXELS == Image.MAX_IMAGE_PIXELS


def test_what_is_no_picture() -> None:
    whole = saved(Image.fromarray(CORNERS), "PNG")
    for file in (b"", b"text", whole[:60], whole[:-30]):
        with pytest.raises(PictureError, match=r"x\.png is no picture that can be decoded"):
            open_photo(file, "x.png")


def test_formats_that_run_other_programs_are_none() -> None:
    """Pillow hands PostScript to Ghostscript."""
    file = saved(Image.fromarray(CORNERS), "EPS")
    with Image.open(io.BytesIO(file)) as image:
        assert image.format == "EPS"
    with pytest.raises(PictureError, match="no picture"):
        open_photo(file, "x.jpg")
