"""Files that hold a model's input: pictures, or numpy's arrays. Calibration and runs read the same.

An array file holds one sample, with or without the batch dimension, in the dtype of the model's
input: a `.npy` where the model has one input, a `.npz` with arrays by name where it has several.
Models of pictures take arrays too, of pixels that are to be left as they are.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
from numpy.lib import format as npy
from splitpoint.codec import Array, SpecError, TensorSpec

from ..errors import InputError
from ..picture import PictureInput
from .samples import PICTURE_SUFFIXES, files_in, find_pictures

ARRAY_SUFFIXES = frozenset((".npy", ".npz"))
_NPY, _ZIP = b"\x93NUMPY", b"PK"  # how their contents begin
# What somebody else sent may be of another dtype, which is to be said, and has headers.
_HEADROOM, _MOST_HEADERS = 8, 65536


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
    with _opened(path) as file:
        return _samples(file, str(path), specs)


def input_in(content: bytes, name: str, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """The same of the content of an array file that somebody sent, who is not trusted.

    What would take more memory than the model's inputs do is refused before it is decoded. `name`
    is for the message of the `InputError`.
    """
    most = [_HEADROOM * spec.nbytes_at(1) + _MOST_HEADERS for spec in specs]
    try:
        if len(content) > sum(most):
            raise ValueError(f"{len(content)} bytes are more than the model takes")
        if content.startswith(_ZIP):
            with zipfile.ZipFile(io.BytesIO(content)) as members:
                for member in members.infolist():
                    _check_size(member.file_size, max(most))
                    with members.open(member) as file:
                        _check_size(_claimed_bytes(file), max(most))
        else:
            _check_size(_claimed_bytes(io.BytesIO(content)), max(most))
    except Exception as error:  # numpy and zipfile raise whatever they meet
        raise _no_array(name, error) from error
    return _samples(io.BytesIO(content), name, specs)


def is_array_file(content: bytes) -> bool:
    """Whether it begins as a `.npy` or `.npz` file does."""
    return content.startswith((_NPY, _ZIP))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise _no_array(str(path), error) from error
    with file:
        yield file


def _samples(file: BinaryIO, name: str, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    given = _arrays(file, name, specs)
    missing = [spec.name for spec in specs if spec.name not in given]
    if missing:
        raise InputError(
            f"{name} lacks the input {missing[0]!r}", "write all inputs with numpy.savez, by name"
        )
    return {spec.name: _sample(name, given[spec.name], spec) for spec in specs}


def _arrays(file: BinaryIO, name: str, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {specs[0].name: loaded}
        with loaded:
            return dict(loaded)
    except Exception as error:  # numpy and zipfile raise whatever they meet, MemoryError among it
        raise _no_array(name, error) from error


def _no_array(name: str, error: Exception) -> InputError:
    reason = " ".join(f"{error}".split())[:100] or type(error).__name__
    return InputError(
        f"{name} holds no array ({reason})", "write it with numpy.save or numpy.savez"
    )


def _claimed_bytes(file: IO[bytes]) -> int:
    """What an array takes by its header, which numpy makes room for before it reads on."""
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    reader = readers.get(npy.read_magic(file))
    if reader is None:
        raise ValueError("a version of the format that is not known")
    shape, _, dtype = reader(file)
    return math.prod(shape) * dtype.itemsize


def _check_size(nbytes: int, most: int) -> None:
    if not 0 <= nbytes <= most:
        raise ValueError(f"{nbytes} bytes are more than the model takes")


def _sample(name: str, array: Array, spec: TensorSpec) -> Array:
    if array.shape == spec.shape_without_batch:
        array = array.reshape(spec.shape)
    try:
        if spec.check(array) != 1:
            raise SpecError(f"tensor {spec.name!r} holds several samples")
    except SpecError as error:
        shape = list(spec.shape_without_batch)
        raise InputError(
            f"{name}: {error}", f"write one sample a file, {spec.dtype} {shape}"
        ) from error
    return array
