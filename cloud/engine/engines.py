"""Several devices of one machine, with an engine each, as if they were one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from splitpoint.proto import splitpoint_pb2 as pb

from ..compute.loaded_model import LoadedModel
from ..compute.served_model import ServedModel
from ..schedule.job import Job
from .engine import Engine
from .request import Request


class Engines:
    """Gives each frame to the engine where it would wait least. Use it from one event loop.

    Every model is loaded for each device. The first of these copies is the one that streams and
    figures know.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = list(engines)
        self.copies: dict[ServedModel, list[LoadedModel]] = {}

    async def load_model(self, load: Callable[[int], LoadedModel]) -> LoadedModel:
        """`load(number)` for every device, on its engine's compute thread, one after the other."""
        copies = [
            await engine.on_compute_thread(load, number)
            for number, engine in enumerate(self.engines)
        ]
        self.copies[copies[0]] = copies
        return copies[0]

    def came_further(self, number: int, doing: str = "") -> None:
        """What is loaded on the device of that number does not hang: see `Engine`."""
        self.engines[number].came_further(doing)

    def compile_no_more(self) -> None:
        """From now on no compiler is tried: see `Engine`."""
        for engine in self.engines:
            engine.compile_no_more()

    def is_due(self, model: ServedModel) -> bool:
        """Whether a copy of the model is to be measured again."""
        return any(copy.measure_again is not None for copy in self.copies.get(model, ()))

    async def measure_again(self, model: ServedModel, is_wanted: Callable[[], bool]) -> bool:
        """Measures the model's copies where that is due; whether there is nothing left to do."""
        pairs = list(zip(self.engines, self.copies[model], strict=True))
        return all([await engine.measure_again(copy, is_wanted) for engine, copy in pairs])

    def start(self) -> None:
        """Begins to compute; answers are given on the running event loop."""
        for engine in self.engines:
            engine.start()

    async def stop(self) -> None:
        """Ends after the steps that are being computed; what waits gets STOPPING."""
        await asyncio.gather(*(engine.stop() for engine in self.engines))

    def submit(self, request: Request) -> None:
        """Takes a request; `FrameError` (OVERLOADED) at once when it could not be kept."""
        engine, request.model = self._idlest(request.model, request)
        engine.submit(request)

    def cancel(self, request: Request) -> None:
        """Nobody waits for that request any more; it is answered all the same."""
        request.cancelled = True

    def check(self, model: ServedModel, job: Job) -> None:
        """`FrameError` (OVERLOADED) for what `submit` would not take: decoding is in vain."""
        engine, job.model = self._idlest(model, job)
        engine.check(job)

    def alone_s(self, model: ServedModel, boundary: int, samples: int) -> float:
        """What a frame would take now, without any other, where that is least."""
        return min(
            engine.alone_s(copy, boundary, samples)
            for engine, copy in zip(self.engines, self.copies[model], strict=True)
        )

    def _idlest(self, model: ServedModel, job: Job) -> tuple[Engine, LoadedModel]:
        """Where the frame would wait least, and the model's copy there."""
        copies = self.copies[model]
        if len(copies) == 1:
            return self.engines[0], copies[0]
        waits = [  # one that cannot compute has an infinite wait
            (engine.wait_s(copy, job.boundary, job.client), engine.queued, number)
            for number, (engine, copy) in enumerate(zip(self.engines, copies, strict=True))
        ]
        number = min(waits)[2]
        return self.engines[number], copies[number]

    def load(self, model: ServedModel | None = None, client: str | None = None) -> pb.Load:
        """How busy the devices are now, and how long a frame of `model` would wait.

        That is one of `client`, or else of the one that took most of each device.
        Without waits where they cannot be said, as of a model that has just been forgotten.
        """
        copies: Sequence[LoadedModel | None] = [None] * len(self.engines)
        if model is not None:
            copies = self.copies.get(model, copies)
        loads = [
            engine.load(copy, client) for engine, copy in zip(self.engines, copies, strict=True)
        ]
        if len(loads) == 1:
            return loads[0]
        told = [load.wait_ms for load in loads if load.wait_ms]
        waits = [min(wait) for wait in zip(*told, strict=True)]
        return pb.Load(
            queued=sum(load.queued for load in loads),
            utilisation=sum(load.utilisation for load in loads) / len(loads),
            slowdown=sum(load.slowdown for load in loads) / len(loads),
            wait_ms=waits,
            queue_ms=max(waits, default=0.0),
        )

    @property
    def can_compute(self) -> bool:
        """Whether any model can be computed on any device; it may change at any time."""
        if self.lost:
            return False
        copies = list(self.copies.values())
        return not copies or any(
            engine.can_compute(copy)
            for own in copies
            for engine, copy in zip(self.engines, own, strict=True)
        )

    @property
    def lost(self) -> str:
        """Why this process has to end: one of its devices is lost to it. Empty while none is.

        The others go with it, as CUDA says that no work of a process is safe after such an error.
        """
        return next((engine.lost for engine in self.engines if engine.lost), "")

    @property
    def queued_bytes(self) -> int:
        """Of the tensors of all frames that were taken and are not answered."""
        return sum(engine.queued_bytes for engine in self.engines)

    @property
    def restarts(self) -> int:
        """Of compute threads: each after a step that did not come back, or when it had ended."""
        return sum(engine.restarts for engine in self.engines)

    @property
    def errors(self) -> int:
        """Exceptions in computing and planning that nobody thought of."""
        return sum(engine.errors for engine in self.engines)

    def forget(self, model: ServedModel) -> None:
        """The model is served no longer: nothing here keeps it in memory."""
        for engine, copy in zip(self.engines, self.copies.pop(model), strict=True):
            engine.forget(copy)
