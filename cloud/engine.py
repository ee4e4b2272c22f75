"""Runs what the schedule says on one device, in a thread of its own. Every request is answered.

Requests of many clients run together from where they meet (see `schedule`). What one request
breaks, it alone pays for: a batch that fails is run again in halves, and a kernel that does not
come back is left behind with its thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from splitpoint.codec import Array
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError

from .batch import Batch
from .errors import Interrupted
from .flight import Flight, reunited
from .isolate import run_isolated
from .job import Job
from .memory import is_out_of_memory
from .request import Request, ServedModel
from .schedule import Batching, Refused, Schedule, Step

log = logging.getLogger("splitpoint.cloud")
_T = TypeVar("_T")
_J = TypeVar("_J", bound=Job)

# The way to the compute thread and back takes longer than this: shorter work is done in place.
INLINE_S = 3e-4
# A step that takes longer than this, and so many times what it should, does not come back.
HUNG_S, HUNG_TIMES = 10.0, 20.0
WATCH_S = 0.25
# A model that is being loaded or measured is broken off between two segments. What takes longer
# than this is left behind, with its thread.
BROKEN_OFF_S = 0.5
LOAD_EVERY_S = 0.003  # is what is said of the load worked out again


class Engine:
    """Runs requests until it is stopped. Use it from one event loop; `start` before `submit`."""

    def __init__(
        self,
        *,
        max_batch: int,
        max_queued_bytes: int,
        batching: Batching = Batching.SUFFIX,
        hung_s: float = HUNG_S,
    ) -> None:
        self._schedule = Schedule[Request](max_batch, batching)
        self._max_queued_bytes, self._hung_s = max_queued_bytes, hung_s
        self._lock = threading.Lock()  # of the schedule
        self._computing = threading.Lock()
        self._wake = threading.Condition()
        self._calls: deque[Callable[[], None]] = deque()
        self._loads: dict[ServedModel | None, tuple[float, pb.Load]] = {}
        self._flights: dict[Batch[Request], Flight] = {}
        self._began_s: float | None = None  # the step that runs now, and what it should take
        self._planned_s = 0.0
        self.restarts = 0  # of the compute thread, each after a step that did not come back
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch: asyncio.Task[None] | None = None
        self._thread = self._new_thread()

    async def on_compute_thread(self, function: Callable[..., _T], *args: Any) -> _T:
        """The result of `function`, from the thread that computes every batch.

        A model is loaded and timed there too: each thread that has run torch keeps helpers of its
        own, and with two sets on few cores every batch after a pause takes up to twice as long.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()

        def call() -> None:
            try:
                result = function(*args)
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                loop.call_soon_threadsafe(_settle, future, None, error)
            else:
                loop.call_soon_threadsafe(_settle, future, result, None)

        self._calls.append(call)
        self._notify()
        return await future

    async def measure_again(self, model: ServedModel, is_wanted: Callable[[], bool]) -> bool:
        """Measures a model that is served where that is due, and plans with that from then on.

        False, and all is as before, where a frame came meanwhile or it was not wanted any more.
        """
        measure = model.measure_again
        if measure is None:
            return True

        def check() -> None:
            if self._schedule.queued or self._stopping or not is_wanted():
                raise Interrupted("something else is to be done")

        try:
            timing = await self.on_compute_thread(measure, check)
        except Interrupted:
            return False
        with self._lock:
            if timing is None or self._schedule.queued:  # frames were planned with the old times
                return False
            model.times, model.batch_times = timing.announced, timing.batches.times
            model.measure_again = None
            self._loads.clear()
        return True

    def start(self) -> None:
        """Begins to compute; answers are given on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._watch = asyncio.create_task(self._watchdog(), name="watchdog")

    async def stop(self) -> None:
        """Ends after the step that is being computed; what waits gets STOPPING.

        A model that is being loaded is not waited for.
        """
        self._stopping = True
        patience_s = self._hung_s if self._began_s is not None else BROKEN_OFF_S
        self._notify()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await asyncio.to_thread(self._thread.join, patience_s)
        with self._lock:
            left = self._schedule.clear()
        stopping = FrameError(pb.STOPPING, "the worker is stopping")
        _tell([(request, stopping) for request in left])

    def submit(self, request: Request) -> None:
        """Takes a request; `FrameError` (OVERLOADED) at once when it could not be kept."""
        self._plan(request, self._schedule.offer)
        alone = self._schedule.queued == 1
        short = request.model.batch_times.suffix_s(request.boundary, request.samples) < INLINE_S
        if alone and short and self._computing.acquire(blocking=False):
            try:
                while self._work():
                    pass
            finally:
                self._computing.release()
        else:
            self._notify()

    def check(self, job: Job) -> None:
        """`FrameError` (OVERLOADED) for what `submit` would not take: decoding is in vain."""
        self._plan(job, self._schedule.check)

    def _plan(self, job: _J, plan: Callable[[float, _J], object]) -> None:
        with self._lock:
            waiting = self._schedule.nbytes
            if waiting and waiting + job.nbytes > self._max_queued_bytes:
                raise FrameError(pb.OVERLOADED, f"{waiting / 1e6:.0f} MB wait already")
            try:
                plan(time.perf_counter(), job)
            except Refused as refused:
                raise FrameError(pb.OVERLOADED, str(refused)) from refused

    def load(self, model: ServedModel | None = None) -> pb.Load:
        """How busy the device is now, and how long a frame of `model` would wait."""
        now_s = time.perf_counter()
        known = self._loads.get(model)
        if known is not None and now_s - known[0] < LOAD_EVERY_S:
            return known[1]
        with self._lock:
            schedule = self._schedule
            found = pb.Load(
                queued=schedule.queued,
                utilisation=schedule.rates.busy(now_s),
                slowdown=schedule.rates.slowdown,
            )
            if model is not None:
                waits = [
                    1e3 * schedule.wait_s(now_s, model, boundary)
                    for boundary in range(len(model.boundaries) - 1)
                ]
                found.wait_ms.extend(waits)
                found.queue_ms = max(waits)
        self._loads[model] = now_s, found
        return found

    def wait_s(self, model: ServedModel, boundary: int) -> float:
        """How long a frame that came now would wait."""
        with self._lock:
            return self._schedule.wait_s(time.perf_counter(), model, boundary)

    @property
    def queued(self) -> int:
        """Frames that were taken and are not answered."""
        return self._schedule.queued

    @property
    def queued_bytes(self) -> int:
        """Of the tensors of all frames that were taken and are not answered."""
        return self._schedule.nbytes

    def forget(self, model: ServedModel) -> None:
        """The model is served no longer: nothing here keeps it in memory."""
        with self._lock:
            self._schedule.forget(model)
            self._loads.pop(model, None)

    # The compute thread. --------------------------------------------------------------------

    def _new_thread(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name="splitpoint-compute", daemon=True)
        thread.start()
        return thread

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify_all()

    def _run(self) -> None:
        computing = self._computing
        while not self._stopping and computing is self._computing:
            worked = False
            with computing:
                if self._calls:
                    self._calls.popleft()()
                    worked = True
                elif self._loop is not None:
                    worked = self._work()
            if not worked:
                with self._wake:
                    is_left_behind = computing is not self._computing
                    to_do = self._calls or self._schedule.queued
                    if not (to_do or self._stopping or is_left_behind):
                        self._wake.wait()

    def _work(self) -> bool:
        """Runs one step of the plan; False where there is none."""
        computing = self._computing
        with self._lock:
            step, dropped = self._schedule.next(time.perf_counter())
        self._give([(job, _why_dropped(job)) for job in dropped])
        if step is None:
            return False
        self._planned_s, self._began_s = step.planned_s, time.perf_counter()
        began_s = self._began_s
        flight, failed, too_many = self._advance(step)
        now_s = time.perf_counter()
        with self._lock:
            if computing is not self._computing:
                return False  # it was given up while it ran: nobody waits for it any more
            self._began_s = None
            if too_many:
                self._schedule.shrink(step.batch.model, too_many // 2)
            ended = self._schedule.done(now_s, now_s - began_s, list(failed))
        self._give(list(failed.items()))
        if ended:
            self._answer(flight, now_s)
        elif flight.aboard:
            self._flights[step.batch] = flight
        return True

    def _advance(self, step: Step[Request]) -> tuple[Flight, dict[Request, FrameError], int]:
        """A batch after one segment, who failed in it, and how many samples were too many."""
        model = step.batch.jobs[0].model
        runner, segment = model.runner, step.segment
        flight = self._flights.pop(step.batch, None) or Flight()
        flight.joining = step.joining
        for request in flight.joining:
            request.started_s = self._began_s or 0.0
        too_many = 0

        def run(part: Flight) -> Flight:
            nonlocal too_many
            try:
                return part.run(runner, segment)
            except Exception as error:
                if is_out_of_memory(error):
                    too_many = max(too_many, part.samples)
                raise

        flights, failures = run_isolated(run, lambda part: part.halves(runner, segment), flight)
        try:
            after = reunited(runner, segment + 1, flights)
        except Exception as error:  # noqa: BLE001 - they fit alone, but not together
            failures += [(part, error) for part in flights]
            after = Flight()
        failed = {
            request: _why_failed(model, error)
            for part, error in failures
            for request in part.requests
        }
        if len(failed) < len(flight.requests) or len(failed) == 1:
            for part, cause in failures:
                if not is_out_of_memory(cause):
                    for request in part.requests:
                        request.broke()
        return after, failed, too_many

    def _answer(self, flight: Flight, now_s: float) -> None:
        """The batch is at the end: to each its own."""
        requests, runner = flight.aboard, flight.aboard[0].model.runner
        for request in requests:
            request.finished_s, request.batch_computed = now_s, flight.samples
        try:
            results: list[Any] = runner.answers(flight.state, [r.samples for r in requests])
        except Exception as error:  # noqa: BLE001 - a device can fail here too
            results = [_why_failed(requests[0].model, error)] * len(requests)
        self._give(list(zip(requests, results, strict=True)))

    def _give(self, answers: list[tuple[Request, dict[str, Array] | FrameError]]) -> None:
        """On the event loop; one that has ended has no one who waits."""
        if answers and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_tell, answers)

    async def _watchdog(self) -> None:
        """Leaves a kernel that does not come back behind, with its thread."""
        while True:
            await asyncio.sleep(WATCH_S)
            began_s, limit_s = self._began_s, max(self._hung_s, HUNG_TIMES * self._planned_s)
            if began_s is None or time.perf_counter() - began_s < limit_s:
                continue
            with self._lock:
                hung = self._schedule.give_up()
                self._computing, self._began_s = threading.Lock(), None
            self.restarts += 1
            log.error("a batch of %d did not come back in %.0f s", len(hung), limit_s)
            for request in hung:
                request.broke()
            error = FrameError(pb.INTERNAL, f"computing did not come back in {limit_s:.0f} s")
            self._give([(request, error) for request in hung])
            self._thread = self._new_thread()


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # its caller did not wait
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _why_dropped(job: Job) -> FrameError:
    if job.cancelled:
        return FrameError(pb.CANCELLED, "cancelled by its sender")
    return FrameError(pb.EXPIRED, "its budget would run out before it is done")


def _why_failed(model: ServedModel, error: Exception) -> FrameError:
    name = model.bundle.manifest.name
    log.warning("%s: a frame failed: %r", name, error, extra={"model": name})
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return FrameError(pb.INTERNAL, f"computing failed ({reason})")


def _tell(answers: list[tuple[Request, dict[str, Array] | FrameError]]) -> None:
    """Answers requests; one that cannot take its answer is no reason to stop for the others."""
    for request, result in answers:
        try:
            request.answer(request, result)
        except Exception:
            log.exception("an answer could not be given")
