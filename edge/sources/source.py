"""What a source of frames is, and how its files and pictures become the model's inputs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from splitpoint.codec import Array, TensorSpec
from splitpoint.partition.bundle.bundle import Manifest
from splitpoint.partition.bundle.input_files import read_input, suffixes_for
from splitpoint.partition.errors import InputError, PictureError
from splitpoint.partition.picture import PictureInput

from ..given import Given


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFeed:
    """Makes frames of one sample for a model out of files and pictures.

    `specs` are its inputs, and `picture` how photos become the one of a model that takes them.
    """

    model: str
    specs: tuple[TensorSpec, ...]
    picture: PictureInput | None

    @classmethod
    def of(cls, manifest: Manifest) -> InputFeed:
        """That of a model."""
        return cls(
            model=manifest.name, specs=manifest.boundaries[0].tensors, picture=manifest.picture
        )

    @property
    def suffixes(self) -> frozenset[str]:
        """Of the files in a folder that are inputs."""
        return suffixes_for(self.picture)

    def need_pictures(self) -> PictureInput:
        """How photos become the input; `PictureError` for a model that takes none."""
        if self.picture is None:
            raise PictureError(
                f"{self.model} does not take pictures", "give it .npy or .npz files as --source"
            )
        return self.picture

    def of_file(self, path: Path) -> Given:
        """A file; one that holds no input for the model becomes a frame that has failed."""
        try:
            inputs = read_input(path, self.specs, self.picture)
        except (InputError, PictureError) as error:
            return Given(error=error, metadata=str(path))
        return Given(inputs=inputs, metadata=str(path))

    def of_array(self, rgb: Array | None, name: str) -> Given:
        """RGB uint8 `[height, width, 3]` of any size; None is a frame that could not be decoded."""
        if rgb is None:
            error = PictureError(f"{name} cannot be decoded")
            return Given(error=error, metadata=name)
        try:
            pixels = self.need_pictures().pixels_of_array(rgb)
        except PictureError as error:
            return Given(error=error, metadata=name)
        return Given(inputs={self.specs[0].name: pixels[np.newaxis]}, metadata=name)


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

    def frames(self, feed: InputFeed) -> AsyncGenerator[Given, None]:
        """The frames, each once. Close the generator (`aclosing`) when done with it.

        `SourceError` or `PictureError` where there is nothing in it that the model takes.
        """

    async def close(self) -> None:
        """Gives back what `open` took, whether or not that went well."""
