"""Files that hold a model's input: pictures, or numpy's arrays. Calibration and runs read the same.

An array file holds one sample, with or without the batch dimension, in the dtype of the model's
input: a `.npy` where the model has one input, a `.npz` with arrays by name where it has several.
Models of pictures take arrays too, of pixels that are to be left as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from splitpoint.codec import Array, SpecError, TensorSpec

from ..errors import InputError
from ..picture import PictureInput
from .samples import PICTURE_SUFFIXES, files_in, find_pictures

ARRAY_SUFFIXES = frozenset((".npy", ".npz"))


def suffixes_for(picture: PictureInput | None) -> frozenset[str]:
    """Of the files in a folder that are a model's inputs; `picture` is None for one of arrays."""
    return ARRAY_SUFFIXES if picture is None else PICTURE_SUFFIXES


def find_inputs(source: str, picture: PictureInput | None) -> list[Path]:
    """The files that `source` names, sorted; of a folder, those that the model takes.

    Raises `InputError` or `PictureError` where there are none.
    """
    folder = Path(source)
    if picture is not None or not folder.is_dir():
        return find_pictures(source)  # a file or a glob is whatever it names
    found = files_in(folder, ARRAY_SUFFIXES)
    if not found:
        raise InputError(
            f"{source} holds no inputs", "this model takes arrays: give a folder of .npy or .npz"
        )
    return found


def read_input(
    path: Path, specs: Sequence[TensorSpec], picture: PictureInput | None
) -> dict[str, Array]:
    """The tensors of one sample by name, with a batch dimension of 1.

    Raises `InputError` or `PictureError` for a file that holds none for the model.
    """
    if picture is not None and path.suffix.lower() not in ARRAY_SUFFIXES:
        return {specs[0].name: picture.read(path)[np.newaxis]}
    given = _arrays(path, specs)
    missing = [spec.name for spec in specs if spec.name not in given]
    if missing:
        raise InputError(
            f"{path} lacks the input {missing[0]!r}", "write all inputs with numpy.savez, by name"
        )
    return {spec.name: _sample(path, given[spec.name], spec) for spec in specs}


def _arrays(path: Path, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {specs[0].name: loaded}
        with loaded:
            return dict(loaded)
    except Exception as error:  # numpy and zipfile raise whatever they meet, MemoryError among it
        reason = " ".join(f"{error}".split())[:100] or type(error).__name__
        raise InputError(
            f"{path} holds no array ({reason})", "write it with numpy.save or numpy.savez"
        ) from error


def _sample(path: Path, array: Array, spec: TensorSpec) -> Array:
    if array.shape == spec.shape_without_batch:
        array = array.reshape(spec.shape)
    try:
        if spec.check(array) != 1:
            raise SpecError(f"tensor {spec.name!r} holds several samples")
    except SpecError as error:
        shape = list(spec.shape_without_batch)
        raise InputError(
            f"{path}: {error}", f"write one sample a file, {spec.dtype} {shape}"
        ) from error
    return array
