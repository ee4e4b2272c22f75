"""What a source of frames is, and how its pictures become the model's input."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from splitpoint.codec import Array
from splitpoint.partition.bundle import Manifest
from splitpoint.partition.errors import PictureError
from splitpoint.partition.picture import PictureInput

from .given import Given


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFeed:
    """Makes frames of one sample out of pictures, for the model's one input `tensor`."""

    picture: PictureInput
    tensor: str

    @classmethod
    def of(cls, manifest: Manifest) -> PictureFeed:
        """That of a model; `PictureError` for one that does not take pictures."""
        if manifest.picture is None:
            raise PictureError(
                f"{manifest.name} does not take pictures",
                "feed it from Python with splitpoint.edge.EdgeAgent",
            )
        return cls(picture=manifest.picture, tensor=manifest.boundaries[0].tensors[0].name)

    def of_file(self, path: Path) -> Given:
        """An image file; one that is none becomes a frame that has failed."""
        try:
            pixels = self.picture.read(path)
        except PictureError as error:
            return Given(error=error, metadata=str(path))
        return Given(inputs={self.tensor: pixels[np.newaxis]}, metadata=str(path))

    def of_array(self, rgb: Array | None, name: str) -> Given:
        """RGB uint8 `[height, width, 3]` of any size; None is a frame that could not be decoded."""
        if rgb is None:
            error = PictureError(f"{name} cannot be decoded")
            return Given(error=error, metadata=name)
        try:
            pixels = self.picture.pixels_of_array(rgb)
        except PictureError as error:
            return Given(error=error, metadata=name)
        return Given(inputs={self.tensor: pixels[np.newaxis]}, metadata=name)


class Source(Protocol):
    """Where frames come from.

    A `live` source goes on whether or not anybody looks: only its newest frame matters. Any other
    one waits for its reader, gives every frame, in order, and ends.
    """

    @property
    def live(self) -> bool:
        """Whether frames become stale."""

    @property
    def examples(self) -> Sequence[Path]:
        """Image files that are typical of its frames; there may be none."""

    async def open(self) -> None:
        """Gets it ready; `SourceError` where it is not there. Called once, first."""

    def frames(self, feed: PictureFeed) -> AsyncGenerator[Given, None]:
        """The frames, each once. Close the generator (`aclosing`) when done with it."""

    async def close(self) -> None:
        """Gives back what `open` took, whether or not that went well."""
