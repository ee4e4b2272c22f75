"""What an exporter wrote beside the graph: Ultralytics' files say what they detect, and how large.

Those of YOLOv5's own exporter, which came before, say the names of their classes alone. Anybody may
have written it, so that nothing of it is evaluated, and all is checked.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from splitpoint.codec import DTYPES, Array, TensorSpec

from ..errors import TaskError
from ..picture import MAX_SIDE_PX
from ..tasks.task import Task

_AUTHOR = "Ultralytics"
_TASKS = ("detect", "segment", "classify", "pose", "obb")
# Heads that may read what they detect, the first that fits: no picture has as few as six cells, and
# so six values in the last dimension are a box.
_HEADS, _HEADS_V5, _HEADS_V10 = ("boxes", "yolo"), ("yolov5",), ("boxes", "yolo_corners")
_MOST_CHARACTERS = 1 << 18  # of a text that is parsed; 1,000 names have a twentieth of it
_MOST_LABELS = 1 << 16
_LONGEST_LABEL = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownExport:
    """What the model does, the names of its classes, and the (height, width) of its pictures.

    What the file does not say properly is nothing, or None. `heads` are those that may read a
    detector's outputs. One that `chooses` ends with a choice of the best boxes, by their scores.
    """

    task: str
    labels: tuple[str, ...]
    size_px: tuple[int, int] | None
    heads: tuple[str, ...] = _HEADS
    chooses: bool = False

    @property
    def resize(self) -> str:
        """How a photo becomes its picture (see `PictureInput`)."""
        return "crop" if self.task == "classify" else "letterbox"

    def task_for(self, outputs: Mapping[str, Array], size_px: tuple[int, int]) -> Task | None:
        """The task of a model with these outputs for a picture; None for one without a head."""
        if self.task == "classify":
            return Task(kind="classify")
        if self.task != "detect":
            return None
        specs = {
            name: TensorSpec(name=name, dtype=str(array.dtype), shape=array.shape, batch_dim=0)
            for name, array in outputs.items()
            if str(array.dtype) in DTYPES and array.ndim
        }
        for head in self.heads:
            task = Task.of_head(head)
            try:
                task.open(specs, size_px)
            except TaskError:
                continue
            return task
        return None


def known_export(model: Any) -> KnownExport | None:
    """What a file of Ultralytics says of itself; None for any other."""
    said = {entry.key: entry.value for entry in model.metadata_props}
    if said.keys() == {"stride", "names"}:
        labels = _labels(_literal(said["names"]))
        return KnownExport(task="detect", labels=labels, size_px=None, heads=_HEADS_V5)
    if said.get("author") != _AUTHOR or said.get("task") not in _TASKS:
        return None
    chooses = said["task"] == "detect" and said.get("end2end") == "True"
    return KnownExport(
        task=said["task"],
        labels=_labels(_literal(said.get("names", ""))),
        size_px=_size(_literal(said.get("imgsz", ""))),
        heads=_HEADS_V10 if chooses else _HEADS,
        chooses=chooses,
    )


def _literal(text: str) -> Any:
    if len(text) > _MOST_CHARACTERS:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _labels(found: Any) -> tuple[str, ...]:
    """Names by number, from 0 on; a line each."""
    if not isinstance(found, dict) or not 0 < len(found) <= _MOST_LABELS:
        return ()
    if any(type(number) is not int for number in found):
        return ()
    if sorted(found) != list(range(len(found))):
        return ()
    names = [found[number] for number in range(len(found))]
    if not all(isinstance(name, str) and 0 < len(name) <= _LONGEST_LABEL for name in names):
        return ()
    return tuple(" ".join(name.split()) or "?" for name in names)


def _size(found: Any) -> tuple[int, int] | None:
    if not isinstance(found, list) or len(found) != 2:
        return None
    if not all(type(side) is int and 1 <= side <= MAX_SIDE_PX for side in found):
        return None
    return found[0], found[1]
