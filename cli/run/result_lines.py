"""A line a result: JSON for scripts, or words; and the files with its outputs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from splitpoint.edge import EdgeAgent, Outcome, Result
from splitpoint.edge.meaning import MIN_SCORE, areas_in, classes_in, things_in
from splitpoint.edge.sources.source import Origin
from splitpoint.partition.view import View
from splitpoint.proto.printable import printable

from ..shell.output import human_bytes, out, print_json, say
from .lost_frames import LostFrames

_NAMED = 3  # things that a line for people names


class JsonLines:
    """A sink that writes the document of each frame to stdout, a line each."""

    def __init__(self, document: FrameDocument) -> None:
        self._document = document

    def add(self, result: Result) -> None:
        """One line, at once."""
        print_json(self._document(result))

    def close(self) -> None:
        """Each line is written already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameDocument:
    """Makes the JSON document of a frame, the same wherever it goes."""

    agent: EdgeAgent
    emulated: bool = False
    min_score: float = MIN_SCORE

    def __call__(self, result: Result) -> dict[str, Any]:
        """`time` is when the frame ended, by this device's clock."""
        document: dict[str, Any] = {
            "id": result.id,
            "time": _utc(result.ended_s),
            "source": str(result.metadata),
            **({"source_name": source} if (source := source_of(result)) else {}),
            "outcome": result.outcome.value,
            "split": result.boundary,
            "codec": result.codec,
            "bytes_up": result.bytes_up,
            **_answer_json(self.agent, result, self.min_score),
            "stages_ms": result.stages_ms.to_json(),
            "total_ms": round(result.total_ms, 3),
        }
        if why := why_local(self.agent, result):
            document["why"] = why
        if result.error is not None:
            document["error"] = str(result.error)
        if self.emulated:
            document["emulated"] = True
        return document


class PlainLines:
    """A sink that writes a line for people: answers to stdout, all else to stderr.

    Of the frames that have no answer it writes as `LostFrames` does.
    """

    def __init__(self, agent: EdgeAgent, min_score: float = MIN_SCORE) -> None:
        self._agent, self._min_score, self._lost = agent, min_score, LostFrames(say)

    def add(self, result: Result) -> None:
        """One line."""
        if result.error is not None:
            self._lost.add(result)
            return
        if result.outcome is Outcome.SKIPPED:
            return  # the summary counts them
        stages = "  ".join(
            f"{name} {ms:.1f}" for name, ms in result.stages_ms.to_json().items() if ms
        )
        out.print(
            f"{result.id:>4}  {best_answer(self._agent, result, self._min_score)}  "
            f"{result.total_ms:.1f} ms ({stages})  {human_bytes(result.bytes_up)} up"
            + (f"  {why}" if (why := why_local(self._agent, result)) else ""),
            soft_wrap=True,
            markup=False,
        )

    def close(self) -> None:
        """Says how many frames it has not named."""
        self._lost.close()


class OutputFiles:
    """A sink that writes every output as DIR/ID-NAME.npy (see `file_names`)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, result: Result) -> None:
        """A file for each output."""
        names = file_names(result.outputs)
        for name, array in result.outputs.items():
            np.save(self._folder / f"{result.id:06}-{names[name]}.npy", array)

    def close(self) -> None:
        """Each file is written already."""


def file_names(outputs: Iterable[str]) -> dict[str, str]:
    """A file's name for each output: odd characters become `_`.

    Where several outputs would share one name, their odd characters are written as in a URL.
    """
    plain = {name: re.sub(r"[^A-Za-z0-9_.-]", "_", name) for name in outputs}
    shared = Counter(plain.values())
    return {
        name: quote(name, safe="") if shared[safe] > 1 else safe for name, safe in plain.items()
    }


def why_local(agent: EdgeAgent, result: Result) -> str:
    """Why the device finished a frame that was cut for the cloud; "" for all others."""
    cut = result.boundary < len(agent.manifest.segments)
    return printable(result.why) if cut and result.outcome is Outcome.LOCAL else ""


def best_answer(agent: EdgeAgent, result: Result, min_score: float = MIN_SCORE) -> str:
    """The frame's short name and what it shows, or its outputs, or what became of it."""
    name = Path(str(result.metadata)).name
    if source := source_of(result):
        name = f"{source}  {name}"
    if not result.outputs:
        return f"{name}  {result.outcome.value}: {result.why}"
    # Labels are of a file that the worker sent.
    return f"{name}  {printable(_in_words(agent, result, min_score))}"


def _in_words(agent: EdgeAgent, result: Result, min_score: float) -> str:
    task, view = agent.manifest.task.kind, _view_of(result)
    if task == "classify":
        best = classes_in(result, 1)
        if not best:
            return "no class: NaN or infinity among the outputs"
        return f"{best[0].label} {best[0].score:.3f}"
    if task == "detect":
        things = Counter(thing.label for thing in things_in(result, view, min_score))
        words = [f"{count} {label}" for label, count in things.most_common()]
        return _first(words) or "nothing found"
    if task == "segment":
        areas = areas_in(result, view)
        return _first([f"{area.label} {100 * area.share:.0f} %" for area in areas])
    return _first([
        f"{output} {array.dtype} {list(array.shape)}" for output, array in result.outputs.items()
    ])  # fmt: skip


def _first(words: list[str]) -> str:
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return f"{', '.join(words[:_NAMED])}{more}"


def _answer_json(agent: EdgeAgent, result: Result, min_score: float) -> dict[str, Any]:
    """The keys of a frame's answer: `top`, which only a classifier fills, and those of its task."""
    task, view = agent.manifest.task.kind, _view_of(result)
    if task == "classify":
        return {"top": [each.to_json() for each in classes_in(result)]}
    if task == "detect":
        things = things_in(result, view, min_score)
        return {"top": [], "detections": [thing.to_json() for thing in things]}
    if task == "segment":
        return {"top": [], "areas": [area.to_json() for area in areas_in(result, view)]}
    outputs = [
        {"name": name, "shape": list(array.shape), "dtype": str(array.dtype)}
        for name, array in result.outputs.items()
    ]
    return {"top": [], "outputs": outputs}


def source_of(result: Result) -> str:
    """What the user calls the source of its frame; "" where there is one only."""
    return result.metadata.source if isinstance(result.metadata, Origin) else ""


def _view_of(result: Result) -> View | None:
    return result.metadata.view if isinstance(result.metadata, Origin) else None


def _utc(seconds: float) -> str:
    """As RFC 3339 writes it, to the millisecond."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
