"""The inputs that a user calibrates with: a folder of pictures or arrays, and perhaps labels."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from splitpoint.codec import Array, SpecError, TensorSpec

from .bundle import Manifest
from .calibrate import MAX_INPUTS
from .errors import CalibrationError, PictureError
from .samples import evenly, find_pictures

ARRAY_SUFFIXES = (".npy", ".npz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a user gave: a file, folder or glob of inputs, and a file with their right classes.

    `int8` asks for INT8 segments.
    """

    source: str
    labels: Path | None = None
    int8: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationInputs:
    """Inputs of one sample each, tensors of boundary 0 by name, and their classes if known."""

    inputs: tuple[Mapping[str, Array], ...]
    labels: tuple[int, ...]


def calibration_inputs(manifest: Manifest, calibration: Calibration) -> CalibrationInputs:
    """Reads at most `MAX_INPUTS`, evenly chosen. The first file that does not fit is an error.

    Pictures for a model that takes them; for any other, `.npy` files where it has one input and
    `.npz` with arrays by name where it has several, of one sample, with or without the batch
    dimension. Raises `CalibrationError` or `PictureError`.
    """
    picture = manifest.picture
    paths = evenly(
        find_pictures(calibration.source) if picture else _arrays(calibration.source), MAX_INPUTS
    )
    specs = manifest.boundaries[0].tensors
    inputs: list[Mapping[str, Array]] = []
    for path in paths:
        if picture is not None:
            try:
                inputs.append({specs[0].name: picture.read(path)[np.newaxis]})
            except PictureError as error:
                raise CalibrationError(
                    str(error), "remove it, or give a folder of good ones"
                ) from error
        else:
            inputs.append(_read_arrays(path, specs))
    labels: tuple[int, ...] = ()
    if calibration.labels is not None:
        labels = _labels(calibration.labels, paths, manifest)
    return CalibrationInputs(inputs=tuple(inputs), labels=labels)


def _arrays(source: str) -> list[Path]:
    folder = Path(source)
    found = (
        [path for path in folder.iterdir() if path.suffix.lower() in ARRAY_SUFFIXES]
        if folder.is_dir()
        else find_pictures(source)  # a file or a glob is whatever it names
    )
    if not found:
        raise CalibrationError(
            f"{source} holds no inputs", "this model takes arrays: give a folder of .npy or .npz"
        )
    return sorted(found)


def _read_arrays(path: Path, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """The tensors of one sample."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            given = {specs[0].name: loaded}
        else:
            with loaded:
                given = dict(loaded)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CalibrationError(
            f"{path} holds no array ({error})", "write it with numpy.save or numpy.savez"
        ) from error
    missing = [spec.name for spec in specs if spec.name not in given]
    if missing:
        raise CalibrationError(
            f"{path} lacks the input {missing[0]!r}", "write all inputs with numpy.savez, by name"
        )
    found = {}
    for spec in specs:
        array = given[spec.name]
        if array.shape == spec.shape_without_batch:
            array = array.reshape(spec.shape)
        try:
            if spec.check(array) != 1:
                raise SpecError(f"tensor {spec.name!r} holds several samples")
        except SpecError as error:
            shape = list(spec.shape_without_batch)
            raise CalibrationError(
                f"{path}: {error}", f"write one sample a file, {spec.dtype} {shape}"
            ) from error
        found[spec.name] = array
    return found


def _labels(file: Path, paths: Sequence[Path], manifest: Manifest) -> tuple[int, ...]:
    """The class of each path."""
    if not manifest.classifies:
        raise CalibrationError(f"{manifest.name} is no classifier", "leave --labels out")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise CalibrationError(f"cannot read {file} ({error})", "give a text file") from error
    classes = manifest.boundaries[-1].tensors[0].shape[-1]
    known: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        name, _, label = line.strip().rpartition(" ")
        if not line.strip():
            continue
        if not (
            label.isascii()
            and label.isdecimal()
            and len(label) < 8
            and int(label) < classes
            and name
        ):
            raise CalibrationError(
                f"line {number} of {file} is {line.strip()[:60]!r}",
                f"write FILE CLASS, the class being a number below {classes}",
            )
        known[name.strip()] = int(label)
    unknown = [path.name for path in paths if path.name not in known]
    if unknown:
        raise CalibrationError(
            f"{file} has no class for {unknown[0]}"
            + f" and {len(unknown) - 1} more" * (len(unknown) > 1),
            "give a line for every input, or leave --labels out",
        )
    return tuple(known[path.name] for path in paths)
