"""What a bundle is measured on: photos where there are some, otherwise synthetic inputs."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from splitpoint.codec import Array

from ..errors import InputError, PictureError
from ..picture import PictureInput
from .bundle import Manifest

PICTURE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
MAX_PHOTOS, SYNTHETIC = 20, 3
MAX_UPLOADS = 100  # photos whose size as an upload is measured: cheap, and sizes differ widely
FALL = 1.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Inputs of one sample each, tensors of boundary 0 by name, and where they come from.

    `uploads` are further ones, of which only the size after an input codec is measured.
    """

    description: str
    inputs: tuple[Mapping[str, Array], ...]
    are_photos: bool
    uploads: tuple[Mapping[str, Array], ...] = ()


def find_pictures(source: str) -> list[Path]:
    """The files that `source` names, sorted; `PictureError` when there are none.

    A file is itself whatever it is called; of a folder, the files with a picture's suffix.
    """
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = files_in(path, PICTURE_SUFFIXES)
    else:
        found = sorted(p for p in map(Path, glob.glob(source, recursive=True)) if p.is_file())
    if not found:
        kind = "holds no pictures" if path.is_dir() else "does not exist and matches no file"
        raise PictureError(f"the source {source} {kind}", "give an image file, a glob or a folder")
    return found


def files_in(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """Its files with such a suffix, sorted; `InputError` for a folder that cannot be read."""
    try:
        return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and p.is_file())
    except OSError as error:
        raise InputError(f"cannot look into {folder}: {error.strerror or error}") from error


def photo_samples(manifest: Manifest, paths: Sequence[Path], most: int = MAX_PHOTOS) -> Samples:
    """At most `most` of the photos, evenly chosen, and `uploads`; files that are none are left out.

    `PictureError` when none is left, or the model takes no pictures.
    """
    if manifest.picture is None:
        raise PictureError(
            f"{manifest.name} does not take pictures", "measure it without any, on synthetic inputs"
        )
    name = manifest.boundaries[0].tensors[0].name
    chosen = evenly(paths, most)
    others = set(evenly(paths, MAX_UPLOADS)).difference(chosen)
    found: dict[Path, Mapping[str, Array]] = {}
    for path in (*chosen, *sorted(others)):
        try:
            found[path] = {name: manifest.picture.read(path)[np.newaxis]}
        except PictureError as error:
            bad = error
    inputs = [found[path] for path in chosen if path in found]
    if not inputs:
        raise bad
    return Samples(
        description=f"{len(inputs)} photos",
        inputs=tuple(inputs),
        are_photos=True,
        uploads=tuple(found[path] for path in sorted(others) if path in found),
    )


def evenly(paths: Sequence[Path], most: int) -> list[Path]:
    """At most so many of the paths, in their order."""
    return [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, most).astype(int))]


def synthetic_samples(manifest: Manifest) -> Samples:
    """Inputs for want of photos; their sizes after a codec are no more than an estimate.

    Pictures get an amplitude spectrum that falls as in natural scenes (Field, J. Opt. Soc. Am. A 4,
    1987, finds about 1/f; a little steeper makes JPEGs as large as those of photos) and correlated
    colours. Other inputs are normal, and integers all the same.
    """
    rng = np.random.default_rng(0)
    specs = manifest.boundaries[0].tensors
    inputs = []
    for _ in range(SYNTHETIC):
        given: dict[str, Array] = {}
        for spec in specs:
            if manifest.picture is not None and spec.is_picture:
                given[spec.name] = _scene(manifest.picture, rng)[np.newaxis]
            elif np.issubdtype(spec.numpy_dtype, np.floating):
                given[spec.name] = rng.normal(size=spec.shape).astype(spec.numpy_dtype)
            else:
                number = manifest.stand_ins.get(spec.name, 0)
                given[spec.name] = np.full(spec.shape, number, spec.numpy_dtype)
        inputs.append(given)
    kind = "synthetic pictures" if manifest.picture is not None else "random inputs"
    return Samples(description=f"{SYNTHETIC} {kind}", inputs=tuple(inputs), are_photos=False)


def _scene(picture: PictureInput, rng: np.random.Generator) -> Array:
    height, width = picture.height_px, picture.width_px
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    radius[0, 0] = np.inf

    def layer() -> Array:
        phases = np.exp(2j * np.pi * rng.random(radius.shape))
        found = np.fft.irfft2(phases / radius**FALL, (height, width))
        return np.asarray(found / found.std())

    grey = layer()
    colours = [grey + 0.25 * layer() for _ in range(3)]
    return np.clip(127 + 50 * np.stack(colours, -1), 0, 255).astype(np.uint8)
