"""Frames from the files of a folder, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from splitpoint.partition.bundle.input_files import ARRAY_SUFFIXES
from splitpoint.partition.bundle.samples import PICTURE_SUFFIXES, files_in

from ..errors import SourceError
from ..given import Given
from .source import InputFeed


class FolderSource:
    """A folder's pictures, or its arrays, whichever the model takes, in order, `repeat` times.

    It waits for its reader and loses nothing. Raises `SourceError` for a folder that holds
    neither, `InputError` for one that cannot be read.
    """

    live = False

    def __init__(self, folder: Path, repeat: int = 1) -> None:
        self._folder, self._repeat = folder, repeat
        self._paths = files_in(folder, PICTURE_SUFFIXES | ARRAY_SUFFIXES)
        if not self._paths:
            raise SourceError(
                f"the source {folder} holds no pictures, .npy or .npz files", "give another folder"
            )
        self.examples = tuple(p for p in self._paths if p.suffix.lower() in PICTURE_SUFFIXES)

    async def open(self) -> None:
        """It was looked into already."""

    async def close(self) -> None:
        """There is nothing left open."""

    async def frames(self, feed: InputFeed) -> AsyncGenerator[Given, None]:
        """A frame a file; one that holds no input for the model is a failed frame."""
        paths = [path for path in self._paths if path.suffix.lower() in feed.suffixes]
        if not paths:
            raise SourceError(
                f"{self._folder} holds nothing that {feed.model} takes",
                f"give a folder of {' '.join(sorted(feed.suffixes))} files",
            )
        for _ in range(self._repeat):
            for path in paths:
                yield await asyncio.to_thread(feed.of_file, path)
