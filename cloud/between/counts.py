"""What an ingest process counted since it last told, to be added to the worker's figures."""

from __future__ import annotations

from typing import Any

from ..access.refusals import Refusal
from ..figures import BoundaryFigures, Figures, ModelFigures, Spread
from ..unexpected import Stage

_SPREADS = ("queue_s", "decode_s", "compute_s", "batches")
ELSEWHERE = -1


class ToldCounts:
    """Remembers what was told of some figures, so that nothing is told twice."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._told: dict[tuple[str, int], list[float]] = {}
        self._reasons: dict[str, int] = {}

    def news(self) -> dict[str, Any]:
        """What was counted since the last call, and how many streams there are now."""
        models = {}
        for digest, model in self._figures.models.items():
            places = {}
            for number, at in _places(model):
                now = _flat(at)
                before = self._told.get((digest, number), [0] * len(now))
                if now != before:
                    places[str(number)] = [a - b for a, b in zip(now, before, strict=True)]
                    self._told[digest, number] = now
            models[digest] = {"streams": model.streams, "places": places}
        for key in [key for key in self._told if key[0] not in models]:
            del self._told[key]
        unexpected = {stage.value: n for stage, n in self._figures.unexpected.counts.items()}
        refusals = {reason.value: n for reason, n in self._figures.refusals.counts.items()}
        return {"models": models, "reasons": self._new(refusals | unexpected)}

    def _new(self, counts: dict[str, int]) -> dict[str, int]:
        found = {name: n - self._reasons.get(name, 0) for name, n in counts.items()}
        self._reasons = counts
        return {name: n for name, n in found.items() if n}


class HeardCounts:
    """Adds what one ingest process tells to the worker's figures."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._streams: dict[str, int] = {}

    def add(self, news: dict[str, Any]) -> None:
        """What it told just now. Of a model that is not served any more nothing is added."""
        for digest, told in news["models"].items():
            model = self._figures.models.get(digest)
            if model is None:
                self._streams.pop(digest, None)
                continue
            model.streams += told["streams"] - self._streams.get(digest, 0)
            self._streams[digest] = told["streams"]
            known = dict(_places(model))
            for number, counts in told["places"].items():
                _add(known[int(number)], counts)
        for name, count in news["reasons"].items():
            if name in _REFUSALS:
                self._figures.refusals.counts[_REFUSALS[name]] += count
            else:
                self._figures.unexpected.counts[Stage(name)] += count

    def forget_streams(self) -> None:
        """It has ended, and its streams with it."""
        for digest, count in self._streams.items():
            if (model := self._figures.models.get(digest)) is not None:
                model.streams -= count
        self._streams.clear()


_REFUSALS = {reason.value: reason for reason in Refusal}


def _places(model: ModelFigures) -> list[tuple[int, BoundaryFigures]]:
    return [*enumerate(model.boundaries), (ELSEWHERE, model.elsewhere)]


def _flat(at: BoundaryFigures) -> list[float]:
    found: list[float] = [*at.statuses, at.bytes_received, at.bytes_sent]
    for name in _SPREADS:
        spread: Spread = getattr(at, name)
        found += [*spread.counts, spread.total]
    return found


def _add(at: BoundaryFigures, counts: list[float]) -> None:
    found = iter(counts)
    at.statuses[:] = [n + int(next(found)) for n in at.statuses]
    at.bytes_received += int(next(found))
    at.bytes_sent += int(next(found))
    for name in _SPREADS:
        spread: Spread = getattr(at, name)
        spread.counts[:] = [n + int(next(found)) for n in spread.counts]
        spread.total += next(found)
