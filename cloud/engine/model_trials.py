"""Models that may not be computable any more, until a trial shows that they are.

A kernel that does not come back may be one frame's fault, or the device is lost; the same with
steps that fail one after the other. A sample of zeros, or of the model's stand-ins for them, tells:
it is nobody's fault.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import cast
from weakref import WeakKeyDictionary

import numpy as np
from splitpoint.proto.backoff import Backoff

from ..compute.loaded_model import LoadedModel
from ..compute.served_model import ServedModel
from ..schedule.job import Timed

# Steps of a model that failed as a whole, without any between them that did not.
MOST_FAILED = 8
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0


@dataclass(slots=True)
class _Trial:
    due_s: float
    pauses: Backoff = field(default_factory=lambda: Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S))
    is_confirmed: bool = False


class ModelTrials:
    """Which models are to be tried, and when: at once, then after pauses that double.

    Not for several threads at a time.
    """

    def __init__(self) -> None:
        self._trials: WeakKeyDictionary[Timed, _Trial] = WeakKeyDictionary()
        self._failed: WeakKeyDictionary[Timed, int] = WeakKeyDictionary()

    def computed(self, model: Timed) -> None:
        """A step came back with something to go on with."""
        if self._failed:
            self._failed.pop(model, None)

    def failed(self, now_s: float, model: Timed) -> None:
        """A step failed as a whole."""
        count = self._failed[model] = self._failed.get(model, 0) + 1
        if count >= MOST_FAILED and model not in self._trials:
            self._trials[model] = _Trial(now_s)

    def hung(self, now_s: float, model: Timed) -> None:
        """A step, or a trial, did not come back."""
        if model in self._trials:
            self.confirm(now_s, model)
        else:
            self._trials[model] = _Trial(now_s)

    def confirm(self, now_s: float, model: Timed) -> None:
        """A trial failed."""
        trial = self._trials.get(model)
        if trial is not None:  # and not forgotten meanwhile
            trial.is_confirmed, trial.due_s = True, now_s + trial.pauses.next_s()

    def remove(self, model: Timed) -> None:
        """A trial succeeded, or the model is served no longer."""
        self._trials.pop(model, None)
        self._failed.pop(model, None)

    def __bool__(self) -> bool:
        """Whether any model is in doubt."""
        return bool(self._trials)

    def due(self, now_s: float) -> Timed | None:
        """A model that is to be tried now."""
        return next((m for m, trial in self._trials.items() if trial.due_s <= now_s), None)

    @property
    def next_due_s(self) -> float:
        """When the next trial is due; infinite without any."""
        return min((trial.due_s for trial in self._trials.values()), default=math.inf)

    def has_confirmed(self, model: Timed) -> bool:
        """Whether the model could not be computed when it was last tried."""
        trial = self._trials.get(model) if self._trials else None
        return trial is not None and trial.is_confirmed


def run_trial(model: ServedModel) -> None:
    """Computes one sample of zeros from the input to the end; raises what goes wrong."""
    runner, boundaries = cast(LoadedModel, model).runner, model.boundaries
    numbers = model.bundle.manifest.stand_ins
    values = {
        spec.name: np.full(spec.shape_at(1), numbers.get(spec.name, 0), spec.numpy_dtype)
        for spec in boundaries[0]
    }
    state = runner.enter(0, [values])
    for segment in range(len(boundaries) - 1):
        state = runner.step(segment, state, 1)
    runner.answers(state, [1])
