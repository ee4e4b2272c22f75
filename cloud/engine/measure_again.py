"""Measures models again whose times are old or were disturbed, while nothing else is to be done."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping

from ..compute.loaded_model import LoadedModel
from .engines import Engines

log = logging.getLogger("splitpoint.cloud")

LOOK_S = 1.0
QUIET_S = 5.0  # without a frame, until a measurement begins
TRIES = 5  # of a model: on a machine that others use, too, no measurement may ever be steady
_QUIET = 0.01  # share of the last second that was computed


async def measure_again(models: Mapping[str, LoadedModel], engine: Engines) -> None:
    """Runs until it is cancelled. A frame that comes while a model is measured ends that.

    It waits for no more than the segment or the codec that is being timed; the next try is made
    after a longer silence.
    """
    tried: Counter[str] = Counter()  # by digest: nothing here keeps a model in memory
    while True:
        due = [digest for digest, model in models.items() if engine.is_due(model)]
        due = sorted((digest for digest in due if tried[digest] < TRIES), key=tried.__getitem__)
        if not due:
            await asyncio.sleep(LOOK_S)
            continue
        await _quiet(engine, QUIET_S * 2 ** tried[due[0]])
        tried[due[0]] += 1
        if due[0] in models:
            await _try(models[due[0]], models, engine)


async def _try(model: LoadedModel, models: Mapping[str, LoadedModel], engine: Engines) -> None:
    name = model.bundle.manifest.name
    try:
        if await engine.measure_again(model, lambda: model in models.values()):
            log.info("%s was measured again", name)
    except Exception:
        log.exception("%s could not be measured again", name)


async def _quiet(engine: Engines, seconds: float) -> None:
    """Returns once no frame was computed for so long."""
    quiet_s = 0.0
    while quiet_s < seconds:
        await asyncio.sleep(LOOK_S)
        load = engine.load()
        quiet_s = quiet_s + LOOK_S if not load.queued and load.utilisation < _QUIET else 0.0
