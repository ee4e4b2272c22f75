"""One device for many clients: takes their requests, and tells how long others would wait.

Requests run together from where they meet (see `schedule`), in a thread of their own (see
`executor`). Every one that was taken is answered.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError

from ..compute.loaded_model import LoadedModel
from ..compute.served_model import ServedModel
from ..errors import Interrupted
from ..schedule.job import Job, Timed
from ..schedule.outlook import Batching, Refused
from ..schedule.schedule import Schedule
from .executor import HUNG_S, Executor
from .request import Request

_T = TypeVar("_T")
_J = TypeVar("_J", bound=Job)
_Told = dict[tuple[bool, bool], tuple[float, pb.Load]]  # when and what, by the client's rank

LOAD_EVERY_S = 0.003  # is what is said of the load worked out again


class Engine:
    """Runs requests until it is stopped. Use it from one event loop; `start` before `submit`.

    What hangs `on_gpu` hangs for every thread of the process. A compiler of a model that is being
    loaded there may be silent for `compiling_s`.
    """

    def __init__(
        self,
        *,
        max_batch: int,
        max_queued_bytes: int,
        batching: Batching = Batching.SUFFIX,
        hung_s: float = HUNG_S,
        on_gpu: bool = False,
        compiling_s: float = 0.0,
    ) -> None:
        self.schedule = Schedule[Request](max_batch, batching)
        self._max_queued_bytes = max_queued_bytes
        self.executor = Executor(self.schedule, hung_s, on_gpu, compiling_s)
        self._loads: WeakKeyDictionary[object, _Told] = WeakKeyDictionary()
        self._stopping = False

    async def on_compute_thread(self, function: Callable[..., _T], *args: Any) -> _T:
        """The result of `function`, from the thread that computes every batch.

        A model is loaded and timed there too: each thread that has run torch keeps helpers of its
        own, and with two sets on few cores every batch after a pause takes up to twice as long.
        `ServeError` where the engine is stopped before that.
        """
        future = self.executor.call(functools.partial(function, *args))
        return await asyncio.wrap_future(future)

    async def measure_again(self, model: LoadedModel, is_wanted: Callable[[], bool]) -> bool:
        """Measures a model that is served where that is due, and plans with that from then on.

        False, and all is as before, where a frame came meanwhile or it was not wanted any more.
        What the measurement raises is raised, and it is not due again.
        """
        measure = model.measure_again
        if measure is None:
            return True

        def check() -> None:
            if self.schedule.queued or self._stopping or not is_wanted():
                raise Interrupted("something else is to be done")
            self.executor.calls.goes_on(f"measuring {model.bundle.manifest.name} again")

        try:
            timing = await self.on_compute_thread(measure, check)
        except Interrupted:
            return False
        except Exception:
            model.measure_again = None
            raise
        with self.executor.lock:
            if timing is None or self.schedule.queued:  # frames were planned with the old times
                return False
            model.times, model.batch_times = timing.announced, timing.batches.times
            model.measure_again = None
            self.schedule.rates.slowdown = 1.0  # what was learned was of the old times
            self._loads.clear()
        return True

    def came_further(self, doing: str = "") -> None:
        """What runs on the compute thread, beside frames, does not hang, and what it is `doing`.

        Raises `Interrupted` where it was given up.
        """
        self.executor.calls.came_further(doing)

    def compile_no_more(self) -> None:
        """What is silent for longer than a segment takes without a compiler hangs from now on."""
        self.executor.compiling_s = 0.0

    def start(self) -> None:
        """Begins to compute; answers are given on the running event loop."""
        self.executor.start()

    async def stop(self) -> None:
        """Ends after the step that is being computed; what waits gets STOPPING."""
        self._stopping = True
        await self.executor.stop()

    def can_compute(self, model: Timed) -> bool:
        """Whether frames of `model` are taken: it could be computed when that was last tried."""
        return self.executor.can_compute(model)

    @property
    def lost(self) -> str:
        """Why this process computes nothing any more on this device; empty while it may."""
        return self.executor.lost

    @property
    def restarts(self) -> int:
        """Of the compute thread: each after a step that did not come back, or when it had ended."""
        return self.executor.restarts

    @property
    def errors(self) -> int:
        """Exceptions that nobody thought of. Each cost the frames that it befell."""
        return self.executor.errors

    def submit(self, request: Request) -> None:
        """Takes a request; `FrameError` (OVERLOADED) at once when it could not be kept."""
        self._plan(request, self.schedule.offer)
        self.executor.bell.ring_soon()

    def check(self, job: Job) -> None:
        """`FrameError` (OVERLOADED) for what `submit` would not take: decoding is in vain."""
        self._plan(job, self.schedule.check)

    def _plan(self, job: _J, plan: Callable[[float, _J], object]) -> None:
        if not self.can_compute(job.model):
            raise FrameError(pb.OVERLOADED, "nothing can be computed here at the moment")
        with self.executor.lock:
            if self.lost:  # it may be by now, and nobody would ever look at the plan again
                raise FrameError(pb.OVERLOADED, "nothing can be computed here at the moment")
            waiting = self.schedule.nbytes
            if waiting and waiting + job.nbytes > self._max_queued_bytes:
                raise FrameError(pb.OVERLOADED, f"{waiting / 1e6:.0f} MB wait already")
            try:
                plan(time.perf_counter(), job)
            except Refused as refused:
                raise FrameError(pb.OVERLOADED, str(refused)) from refused
            except Exception as error:
                raise self.executor.unexpected("planning a frame", error) from error

    def load(self, model: ServedModel | None = None, client: str | None = None) -> pb.Load:
        """How busy the device is now, and how long a frame of `model` would wait.

        The frame is one of `client` or, if None, of the client that took most of the device. What
        was told to a client of the same rank a moment ago is told again. There are no waits where
        they cannot be said, as when frames of `model` are not taken.
        """
        now_s = time.perf_counter()
        about = self if model is None else model
        with self.executor.lock:
            schedule = self.schedule
            client = schedule.greediest if client is None else client
            rank = schedule.rank(client)
            told = self._loads.setdefault(about, {})
            known = told.get(rank)
            if known is not None and now_s - known[0] < LOAD_EVERY_S:
                return known[1]
            found = pb.Load(
                queued=schedule.queued,
                utilisation=schedule.rates.busy(now_s),
                slowdown=schedule.rates.slowdown,
            )
            if model is not None and self.can_compute(model):
                try:
                    waits = [
                        1e3 * schedule.wait_s(now_s, model, boundary, client)
                        for boundary in range(len(model.boundaries) - 1)
                    ]
                except Exception as error:  # noqa: BLE001 - it is noted
                    self.executor.unexpected("telling the load", error)
                else:
                    found.wait_ms.extend(waits)
                    found.queue_ms = max(waits)
            told[rank] = now_s, found
        return found

    def alone_s(self, model: ServedModel, boundary: int, samples: int) -> float:
        """What a frame would take here now, without any other."""
        with self.executor.lock:
            return self.schedule.alone_s(model, boundary, samples)

    def wait_s(self, model: ServedModel, boundary: int, client: str) -> float:
        """How long one of `client` would wait now; infinite where it would not be computed."""
        if not self.can_compute(model):
            return math.inf
        with self.executor.lock:
            try:
                return self.schedule.wait_s(time.perf_counter(), model, boundary, client)
            except Exception as error:  # noqa: BLE001 - it is noted
                self.executor.unexpected("telling a wait", error)
                return math.inf

    @property
    def queued(self) -> int:
        """Frames that were taken and are not answered."""
        return self.schedule.queued

    @property
    def queued_bytes(self) -> int:
        """Of the tensors of all frames that were taken and are not answered."""
        return self.schedule.nbytes

    def forget(self, model: ServedModel) -> None:
        """The model is served no longer: nothing here keeps it in memory."""
        with self.executor.lock:
            self.schedule.forget(model)
            self.executor.forget(model)
            self._loads.pop(model, None)
