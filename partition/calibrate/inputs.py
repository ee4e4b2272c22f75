"""The inputs that a user calibrates with: a folder of pictures or arrays, and perhaps labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from splitpoint.codec import Array

from ..bundle.bundle import Manifest
from ..bundle.input_files import find_inputs, read_input
from ..bundle.samples import evenly
from ..errors import CalibrationError, InputError, PictureError
from ..look import UsualLook
from .calibrate import MAX_INPUTS


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

    def usual_look(self, manifest: Manifest) -> UsualLook | None:
        """How they look, where they are pictures."""
        name = manifest.picture_tensor
        if name is None:
            return None
        return UsualLook.of([pixels for given in self.inputs for pixels in given[name]])


def calibration_inputs(manifest: Manifest, calibration: Calibration) -> CalibrationInputs:
    """Reads at most `MAX_INPUTS`, evenly chosen. The first file that does not fit is an error.

    What they may be is in input_files.py. Raises `CalibrationError`, or `PictureError` where there
    are no pictures.
    """
    specs, picture = manifest.boundaries[0].tensors, manifest.picture
    try:
        paths = evenly(find_inputs(calibration.source, picture), MAX_INPUTS)
    except InputError as error:
        raise CalibrationError(error.what, error.remedy) from error
    inputs: list[Mapping[str, Array]] = []
    for path in paths:
        try:
            inputs.append(read_input(path, specs, picture))
        except InputError as error:
            raise CalibrationError(error.what, error.remedy) from error
        except PictureError as error:
            raise CalibrationError(
                str(error), "remove it, or give a folder of good ones"
            ) from error
    labels: tuple[int, ...] = ()
    if calibration.labels is not None:
        labels = _labels(calibration.labels, paths, manifest)
    return CalibrationInputs(inputs=tuple(inputs), labels=labels)


def _labels(file: Path, paths: Sequence[Path], manifest: Manifest) -> tuple[int, ...]:
    """The class of each path."""
    if not manifest.classifies:
        raise CalibrationError(f"{manifest.name} is no classifier", "leave --truth out")
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
            "give a line for every input, or leave --truth out",
        )
    return tuple(known[path.name] for path in paths)
