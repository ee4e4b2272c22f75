"""Detections in the form of DeepStack's API, which Frigate and others ask for.

Frigate's detector `deepstack` posts a form with `api_key` and then `image`, a JPEG. It stops at the
first prediction below 0.4, and breaks at the twenty-first.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

from splitpoint.edge import EdgeAgent, Result
from splitpoint.edge.meaning import things_in
from splitpoint.edge.sources.source import Origin
from splitpoint.proto.printable import printable

from .turned_down import TurnedDown

IMAGE, KEY, CONFIDENCE = "image", "api_key", "min_confidence"  # fields of the form
SIDES = ("x_min", "y_min", "x_max", "y_max")
# Where no `min_confidence` is asked for, which Frigate does not: it has room for so many.
MOST_PREDICTIONS = 20


def check_task(agent: EdgeAgent) -> None:
    """Raises `TurnedDown` for a model that detects nothing."""
    task = agent.manifest.task.kind
    if task != "detect":
        raise TurnedDown(
            HTTPStatus.BAD_REQUEST,
            f"the task of {agent.manifest.name} is {task}: ask POST /infer, or run a detector",
        )


def confidence_of(field: bytes | None) -> float | None:
    """A number from 0 to 1; None where the form has none, `TurnedDown` for anything else."""
    if field is None or not field.strip():
        return None
    try:
        found = float(field)
    except ValueError:
        found = math.nan
    if not 0 <= found <= 1:
        raise TurnedDown(HTTPStatus.BAD_REQUEST, f"{CONFIDENCE} is no number from 0 to 1")
    return found


def predictions_json(result: Result, confidence: float | None, min_score: float) -> dict[str, Any]:
    """DeepStack's reply, the best prediction first; sides are whole pixels of the photo.

    Without `confidence`, predictions from `min_score` on, and only the best of them.
    """
    view = result.metadata.view if isinstance(result.metadata, Origin) else None
    least = min_score if confidence is None else confidence
    things = things_in(result, view, least)
    if confidence is None:
        things = things[:MOST_PREDICTIONS]
    return {
        "success": True,
        "predictions": [
            {
                "label": printable(thing.label),
                "confidence": round(thing.score, 4),
                **dict(zip(SIDES, map(round, thing.box), strict=True)),
            }
            for thing in things
        ],
        "duration": round(result.total_ms / 1e3, 4),
    }
