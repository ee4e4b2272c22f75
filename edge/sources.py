"""Where frames come from: an image file, a glob, or a folder."""

from __future__ import annotations

import asyncio
import glob
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
from splitpoint.codec import Array
from splitpoint.partition.errors import PictureError
from splitpoint.partition.picture import PictureInput

from .agent import Given
from .errors import SourceError

PICTURE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))


def find_pictures(source: str) -> list[Path]:
    """The files that `source` names, sorted; `SourceError` when there are none.

    A file is itself whatever it is called; of a folder, the files with a picture's suffix.
    """
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [p for p in path.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file()]
    else:
        found = [p for p in map(Path, glob.glob(source, recursive=True)) if p.is_file()]
    if not found:
        kind = "holds no pictures" if path.is_dir() else "does not exist and matches no file"
        raise SourceError(f"the source {source} {kind}", "give an image file, a glob or a folder")
    return sorted(found)


async def pictures(paths: list[Path], picture: PictureInput, tensor: str) -> AsyncIterator[Given]:
    """Each file as a frame of one sample; a file that is no picture as a frame with an error."""

    def read(path: Path) -> Array | PictureError:
        try:
            return picture.read(path)
        except PictureError as error:
            return error

    for path in paths:
        pixels = await asyncio.to_thread(read, path)
        if isinstance(pixels, PictureError):
            yield Given(error=pixels, metadata=str(path))
        else:
            yield Given(inputs={tensor: pixels[np.newaxis]}, metadata=str(path))
