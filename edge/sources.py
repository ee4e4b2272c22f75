"""Where frames come from: image files, one frame each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
from splitpoint.codec import Array
from splitpoint.partition.errors import PictureError
from splitpoint.partition.picture import PictureInput

from .given import Given


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
