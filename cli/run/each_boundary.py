"""The same photos through a model that is cut at one boundary after the other."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from splitpoint.edge import EdgeAgent, Given, Outcome, Result
from splitpoint.edge.meaning import ClassScore, classes_in
from splitpoint.partition.bundle.bundle import Bundle, Manifest

from .background import DemoError

_IN_TIME_MS = 60_000.0  # a demo shows what a slow link does; it does not give up


@dataclass(frozen=True, slots=True)
class AtBoundary:
    """The results of all photos, in their order, at one boundary."""

    boundary: int
    photos: Sequence[Path]
    results: Sequence[Result]

    def best(self) -> list[ClassScore]:
        """The first class of each photo."""
        return [classes_in(result, 1)[0] for result in self.results]

    def row(self, manifest: Manifest, truth: dict[str, Any]) -> dict[str, Any]:
        """Medians of the stages, and how many photos have the unsplit model's first class."""
        same = sum(
            best.index == int(truth[path.name].argmax())
            for best, path in zip(self.best(), self.photos, strict=True)
        )
        stages = [result.stages_ms.to_json() for result in self.results]
        return {
            "boundary": self.boundary,
            "after": manifest.boundaries[self.boundary].after or "(the input)",
            "codec": self.results[0].codec,
            "bytes_up": round(statistics.mean(result.bytes_up for result in self.results)),
            "stages_ms": {
                name: round(statistics.median(stage[name] for stage in stages), 2)
                for name in stages[0]
            },
            "total_ms": round(statistics.median(r.total_ms for r in self.results), 2),
            "same_top1": f"{same}/{len(self.results)}",
        }


async def run_boundary(
    boundary: int, server: str, bundle: Bundle, photos: Sequence[Path]
) -> AtBoundary:
    """One photo at a time, after a pass that warms both ends up; `DemoError` for a lost frame."""
    manifest = bundle.manifest
    picture, tensor = manifest.picture, manifest.boundaries[0].tensors[0].name
    assert picture is not None
    given = [
        Given(inputs={tensor: picture.read(path)[np.newaxis]}, metadata=path) for path in photos
    ]
    local = boundary == len(manifest.segments)
    async with EdgeAgent(
        server,
        bundle=bundle.folder,
        split="local" if local else str(boundary),
        codec="auto" if local else "png" if boundary == 0 else "q8",
        budget_ms=_IN_TIME_MS,
        finish_locally=False,
    ) as agent:
        results = [result async for result in agent.stream([*given, *given], 1)]
    for result in results:
        if result.outcome not in (Outcome.ANSWERED, Outcome.LOCAL):
            raise DemoError(
                f"a frame was {result.outcome.value} ({result.error})", "choose a faster --link"
            )
    return AtBoundary(boundary, photos, results[len(given) :])
