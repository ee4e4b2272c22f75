"""A line a result: JSON for scripts, or words; and the files with its outputs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from splitpoint.codec import Array
from splitpoint.edge import EdgeAgent, Outcome, Result
from splitpoint.proto.printable import printable

from ..shell.output import human_bytes, out, print_json, say
from .lost_frames import LostFrames

_TOP = 5
_NAMED = 3  # outputs that a line for people names


class JsonLines:
    """A sink that writes the JSON line of each frame to stdout."""

    def __init__(self, agent: EdgeAgent, *, emulated: bool) -> None:
        self._agent, self._emulated = agent, emulated

    def add(self, result: Result) -> None:
        """One line, at once."""
        line: dict[str, Any] = {
            "id": result.id,
            "source": result.metadata,
            "outcome": result.outcome.value,
            "split": result.boundary,
            "codec": result.codec,
            "bytes_up": result.bytes_up,
            "top": top_classes(self._agent, result.outputs),
            **outputs_of_no_classifier(self._agent, result.outputs),
            "stages_ms": result.stages_ms.to_json(),
            "total_ms": round(result.total_ms, 3),
        }
        if why := why_local(self._agent, result):
            line["why"] = why
        if result.error is not None:
            line["error"] = str(result.error)
        if self._emulated:
            line["emulated"] = True
        print_json(line)

    def close(self) -> None:
        """Each line is written already."""


class PlainLines:
    """A sink that writes a line for people: answers to stdout, all else to stderr.

    Of the frames that have no answer it writes as `LostFrames` does.
    """

    def __init__(self, agent: EdgeAgent) -> None:
        self._agent, self._lost = agent, LostFrames(say)

    def add(self, result: Result) -> None:
        """One line."""
        if result.error is not None:
            self._lost.add(result)
            return
        stages = "  ".join(
            f"{name} {ms:.1f}" for name, ms in result.stages_ms.to_json().items() if ms
        )
        out.print(
            f"{result.id:>4}  {best_answer(self._agent, result)}  "
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


def best_answer(agent: EdgeAgent, result: Result) -> str:
    """The frame's short name and its first class, or its outputs, or what became of it."""
    name = Path(str(result.metadata)).name
    if not result.outputs:
        return f"{name}  {result.outcome.value}: {result.why}"
    if agent.manifest.classifies:
        top = top_classes(agent, result.outputs)
        if not top:
            return f"{name}  no class: NaN or infinity among the outputs"
        label = printable(top[0]["label"])  # of a file that the worker sent
        return f"{name}  {label} {top[0]['score']:.3f}"
    named = [
        f"{printable(output)} {array.dtype} {list(array.shape)}"
        for output, array in result.outputs.items()
    ]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return f"{name}  {', '.join(named[:_NAMED])}{more}"


def top_classes(agent: EdgeAgent, outputs: Mapping[str, Array]) -> list[dict[str, Any]]:
    """The first classes with label, index and softmax score; none for other kinds of models.

    Nor where NaN or infinity among the outputs leaves no scores; `-inf` is a class that cannot be.
    """
    if not agent.manifest.classifies or not outputs:
        return []
    logits = next(iter(outputs.values()))[0].astype(np.float64)
    finite = np.isfinite(logits)
    if not (finite | np.isneginf(logits)).all() or not finite.any():
        return []
    scores = np.exp(logits - logits.max())
    scores /= scores.sum()
    labels = agent.labels
    return [
        {
            "label": labels[i] if i < len(labels) else str(i),
            "index": int(i),
            "score": round(float(scores[i]), 6),
        }
        for i in np.argsort(-scores, kind="stable")[:_TOP]
    ]


def outputs_of_no_classifier(agent: EdgeAgent, outputs: Mapping[str, Array]) -> dict[str, Any]:
    """What stands in the JSON beside an empty `top`: name, shape and dtype of each output."""
    if agent.manifest.classifies:
        return {}
    return {
        "outputs": [
            {"name": name, "shape": list(array.shape), "dtype": str(array.dtype)}
            for name, array in outputs.items()
        ]
    }
