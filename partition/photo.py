"""A user's picture file as an upright RGB photo: what becomes of every kind of picture.

| picture | rule |
| --- | --- |
| rotated or mirrored by EXIF | turned upright, as viewers show it |
| palette, CMYK, black and white | RGB as Pillow converts it, without colour profiles |
| grey of 16 bits | scaled to 8 bits: 65535 becomes 255 |
| colour of 16 bits a channel | Pillow keeps the upper 8 |
| grey of 32 bits, floats, Lab | refused: nothing says which of its values are black and white |
| transparent | laid on white, as on a page, and said once: below clear pixels lies any colour |
| several frames or pages | the first |
| more than `MAX_PIXELS` | refused before it is decoded |

The formats are those of cameras and browsers. Pillow knows more, and some start other programs.
"""

from __future__ import annotations

import io
import logging
import struct
from functools import cache
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from splitpoint.codec import Array

from .errors import PictureError

log = logging.getLogger("splitpoint.partition")

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# Where Pillow begins to warn of decompression bombs; a decoded photo of so many takes 0.4 GB.
MAX_PIXELS = 89_478_485
BACKGROUND = (255, 255, 255)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def open_photo(file: bytes, name: str) -> Image.Image:
    """The photo in an encoded picture; `name` is for the message of the `PictureError`."""
    try:
        with Image.open(io.BytesIO(file), formats=FORMATS) as photo:
            if photo.width * photo.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            photo.load()
            turn = _UPRIGHT.get(_orientation(photo))
            found = rgb_of(photo)
            return found if turn is None else found.transpose(turn)
    except PictureError as error:
        raise PictureError(f"{name}: {error.what}", error.remedy) from error
    except _BOMBS as error:
        raise PictureError(
            f"{name} has more than {MAX_PIXELS / 1e6:.0f} million pixels", "make it smaller first"
        ) from error
    except UnidentifiedImageError as error:
        raise PictureError(
            f"{name} is no picture that can be decoded", "give a JPEG, PNG or WebP file"
        ) from error
    except Exception as error:  # Pillow's decoders raise whatever they meet
        raise PictureError(
            f"{name} is no picture that can be decoded ({str(error)[:100]})",
            "give a whole JPEG, PNG or WebP file",
        ) from error


def read_photo(path: Path) -> Image.Image:
    """The photo in an image file; `PictureError` for a file that is none."""
    try:
        return open_photo(path.read_bytes(), str(path))
    except OSError as error:
        raise PictureError(f"cannot read {path}: {error.strerror or error}") from error


def photo_of(rgb: Array) -> Image.Image:
    """A decoded picture, RGB uint8 `[height, width, 3]`; `PictureError` for any other array."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
        raise PictureError(
            f"an array {rgb.dtype} {list(rgb.shape)} is no picture",
            "give RGB uint8 [height, width, 3]",
        )
    return Image.fromarray(np.ascontiguousarray(rgb))


def is_picture(path: Path) -> bool:
    """Whether the file begins as a picture does, by its content."""
    try:
        with Image.open(path, formats=FORMATS):
            return True
    except _BOMBS:
        return True
    except (UnidentifiedImageError, OSError):
        return False


def rgb_of(photo: Image.Image) -> Image.Image:
    """The photo in RGB, of the same size; `PictureError` where no rule says what its values mean.

    See the table above.
    """
    if photo.mode.startswith("I;16") or (photo.mode == "I" and photo.format in ("PNG", "PPM")):
        values = np.asarray(photo).astype(np.uint32)  # 0 to 65535, whatever holds them
        grey = (np.minimum(values, 65535) * 255 + 32767) // 65535
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if photo.mode in ("I", "F", "LAB", "HSV"):
        raise PictureError(
            f"nothing says what is white in a picture of mode {photo.mode}",
            "convert it to RGB, or to grey of 8 or 16 bits",
        )
    if photo.has_transparency_data:
        return _on_background(photo.convert("RGBA"))
    return photo if photo.mode == "RGB" else photo.convert("RGB")


def _on_background(photo: Image.Image) -> Image.Image:
    alpha = photo.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return photo.convert("RGB")
    _say_once("transparent pictures are laid on white")
    found = Image.new("RGB", photo.size, BACKGROUND)
    found.paste(photo, mask=alpha)
    return found


def _orientation(photo: Image.Image) -> int:
    """EXIF's; 1, which is upright, where metadata are damaged, as viewers take it."""
    try:
        return int(photo.getexif().get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, struct.error, OSError, LookupError, TypeError, ValueError) as error:
        log.info("EXIF data cannot be read (%s)", str(error)[:100])
        return 1


@cache
def _say_once(what: str) -> None:
    log.warning(what)
