"""What an exporter wrote beside the graph: Ultralytics' files say what they detect, and how large.

Anybody may have written it, so that nothing of it is evaluated, and all is checked.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from ..picture import MAX_SIDE_PX

_AUTHOR = "Ultralytics"
_TASKS = ("detect", "segment", "classify", "pose", "obb")
_MOST_CHARACTERS = 1 << 18  # of a text that is parsed; 1,000 names have a twentieth of it
_MOST_LABELS = 1 << 16
_LONGEST_LABEL = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownExport:
    """What the model does, the names of its classes, and the (height, width) of its pictures.

    What the file does not say properly is "", nothing, or None.
    """

    task: str
    labels: tuple[str, ...]
    size_px: tuple[int, int] | None


def known_export(model: Any) -> KnownExport | None:
    """What a file of Ultralytics says of itself; None for any other."""
    said = {entry.key: entry.value for entry in model.metadata_props}
    if said.get("author") != _AUTHOR or said.get("task") not in _TASKS:
        return None
    return KnownExport(
        task=said["task"],
        labels=_labels(_literal(said.get("names", ""))),
        size_px=_size(_literal(said.get("imgsz", ""))),
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
