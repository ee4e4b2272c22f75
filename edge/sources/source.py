"""What a source of frames is, and how its files and pictures become the model's inputs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL.Image import Image
from splitpoint.codec import Array, TensorSpec
from splitpoint.partition.bundle.bundle import Manifest
from splitpoint.partition.bundle.input_files import (
    ARRAY_SUFFIXES,
    input_in,
    is_array_file,
    read_input,
    suffixes_for,
)
from splitpoint.partition.errors import InputError, PictureError
from splitpoint.partition.photo import open_photo, photo_of, read_photo
from splitpoint.partition.picture import PictureInput
from splitpoint.partition.view import View

from ..given import Given
from .lens import Lens


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a frame of a source was made of: the `metadata` of its result.

    `source` is what the user calls its source, "" where there is one only. `view` is what the input
    shows of the photo, None for arrays. `picture`, RGB uint8 `[height, width, 3]`, is there where
    somebody draws on it.
    """

    name: str
    source: str = ""
    view: View | None = None
    picture: Array | None = None

    def __str__(self) -> str:
        """The file's path, or the source's name and the frame's number."""
        return self.name


def no_picture(pixels: int) -> bool:
    """That no photo stays at its frame."""
    return False


def every_picture(pixels: int) -> bool:
    """That every photo does."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFeed:
    """Makes frames of one sample for a model out of files and pictures.

    `specs` are its inputs, and `picture` how photos become the one of a model that takes them.
    `keeps` says of a photo of so many pixels whether it stays at its frame until that has ended.
    `source` and `lens` are those of the source that it feeds from.
    """

    model: str
    specs: tuple[TensorSpec, ...]
    picture: PictureInput | None
    keeps: Callable[[int], bool] = no_picture
    source: str = ""
    lens: Lens = field(default_factory=Lens)

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        keeps: Callable[[int], bool] = no_picture,
        *,
        source: str = "",
        lens: Lens | None = None,
    ) -> InputFeed:
        """That of a model."""
        return cls(
            model=manifest.name,
            specs=manifest.boundaries[0].tensors,
            picture=manifest.picture,
            keeps=keeps,
            source=source,
            lens=Lens() if lens is None else lens,
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
        name = str(path)
        try:
            if self.picture is None or path.suffix.lower() in ARRAY_SUFFIXES:
                inputs = read_input(path, self.specs, self.picture)
                return Given(inputs=inputs, metadata=self._origin(name))
            return self._of_photo(read_photo(path), name)
        except (InputError, PictureError) as error:
            return Given(error=error, metadata=self._origin(name))

    def of_content(self, content: bytes, name: str) -> Given:
        """What a file holds that somebody sent, who is not trusted: a picture or arrays.

        Which of them is said by its first bytes.
        """
        try:
            if is_array_file(content):
                inputs = input_in(content, name, self.specs)
                return Given(inputs=inputs, metadata=self._origin(name))
            if self.picture is None:
                raise InputError(f"{self.model} does not take pictures", "send a .npy or .npz file")
            return self._of_photo(open_photo(content, name), name)
        except (InputError, PictureError) as error:
            return Given(error=error, metadata=self._origin(name))

    def of_array(self, rgb: Array | None, name: str) -> Given:
        """RGB uint8 `[height, width, 3]` of any size; None is a frame that could not be decoded."""
        try:
            if rgb is None:
                raise PictureError(f"{name} cannot be decoded")
            return self._of_photo(photo_of(rgb), name)
        except PictureError as error:
            return Given(error=error, metadata=self._origin(name))

    def _of_photo(self, photo: Image, name: str) -> Given:
        picture, part = self.need_pictures(), self.lens.part_of(photo)
        if self.lens.still(part):
            return Given(still=True, metadata=self._origin(name))
        view = picture.view_of(*part.size)
        if part.size != photo.size:
            view = view.within(photo.size, self.lens.corner_px)
        origin = Origin(
            name=name,
            source=self.source,
            view=view,
            picture=np.asarray(photo) if self.keeps(photo.width * photo.height) else None,
        )
        inputs = {self.specs[0].name: picture.pixels_of(part)[np.newaxis]}
        return Given(inputs=inputs, metadata=origin)

    def _origin(self, name: str) -> Origin:
        return Origin(name=name, source=self.source)


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
