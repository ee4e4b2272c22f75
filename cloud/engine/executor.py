"""Runs what the schedule says, in a thread of its own. Every request is answered.

What one request breaks, it alone pays for: a batch that fails is run again in halves, a kernel that
does not come back is left behind with its thread, and what nobody thought of costs the batch that
it befell. The thread is watched from the event loop, and replaced when it is lost.

A GPU that hangs, or fails for good, is lost to this process: another thread would wait in the same
stream. All frames are told so, and the process has to leave.

Longer than others: what may befall the thread, and who is answered then, is to be seen together.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar, cast

from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError
from splitpoint.proto.tasks import cancel_and_wait

from ..compute.served_model import ServedModel
from ..errors import DeviceLost, ServeError
from ..gpu.device_errors import is_device_lost
from ..schedule.batch import Step
from ..schedule.job import Job, Timed
from ..schedule.schedule import Schedule
from .advance import RequestAnswer, advance
from .bell import Bell
from .call_queue import CallQueue
from .compute_thread import ComputeThread
from .model_trials import ModelTrials, run_trial
from .request import Request

log = logging.getLogger("splitpoint.cloud")
_T = TypeVar("_T")

# A step that takes longer than this, and so many times what it should, does not come back.
HUNG_S, HUNG_TIMES = 10.0, 20.0
WATCH_S, LAST_CALL_S = 0.25, 0.5  # the second is what a model being loaded holds up the end
# A call that came no further for so long hangs: to load a model may take long, but each segment and
# each measurement is a step of it. After the first of these times it is said what is waited for.
CALL_SLOW_S, CALL_HUNG_S = 60.0, 600.0
# A look that comes later than this was not the thread's fault: the process stood still (a signal,
# a container that is paused), and what the thread does stood still with it.
MOST_LATE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Running:
    """What the thread does now: a step, or without one a trial of `model`."""

    model: ServedModel
    step: Step[Request] | None
    began_s: float
    limit_s: float
    stood_still_s: float  # of the executor, when it began


class Executor:
    """The compute thread of one device. `lock` is to be held by who changes the schedule."""

    def __init__(
        self, schedule: Schedule[Request], hung_s: float, on_gpu: bool, compiling_s: float
    ) -> None:
        self._schedule, self.hung_s, self._on_gpu = schedule, hung_s, on_gpu
        self.compiling_s = compiling_s  # for so long a compiler may be silent
        self.lock = threading.Lock()
        self._trials = ModelTrials()
        self._running: _Running | None = None
        self.bell = Bell()
        self.calls = CallQueue()
        self._is_slow = False  # the call that runs, as was said
        self._stood_still_s = 0.0  # how long all of the process did, as far as was seen
        self.restarts = self.errors = 0
        self.lost = ""  # why nothing can be computed here until another process begins
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.Task[None] | None = None
        self.thread = self._new_thread()

    def start(self) -> None:
        """Begins with frames; answers are given on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._watching = asyncio.create_task(self._watch(), name="watchdog")
        self.notify()

    async def stop(self) -> None:
        """Ends after the step that is being computed; what waits gets STOPPING."""
        await cancel_and_wait(self._watching)
        with self.lock:
            self.thread.leave()
            most_s = LAST_CALL_S if self._running is None else self.hung_s
        self.notify()
        self.calls.close(ServeError("the worker is stopping", "start it again"))
        await asyncio.to_thread(self.thread.join, most_s)
        with self.lock:
            self._running = None
            left = self._schedule.clear()
        stopping = FrameError(pb.STOPPING, "the worker is stopping")
        self._tell([(request, stopping) for request in left])

    def call(self, function: Callable[[], _T]) -> Future[_T]:
        """Has `function` called between two steps; `ServeError` where that will not be."""

        def watched() -> _T:
            try:
                return function()
            except Exception as error:
                if is_device_lost(error):
                    self._lose(f"the device failed ({error!r})")
                raise

        future = self.calls.add(watched)
        self.notify()
        return future

    def notify(self) -> None:
        """There is something to do."""
        self.bell.ring()

    def can_compute(self, model: Timed) -> bool:
        """Whether the thread lives and is free, and `model` worked when it was last tried."""
        if self.lost:
            return False
        is_free = self.thread.is_alive and not self.calls.has_run_for(self.hung_s)
        return is_free and not self._trials.has_confirmed(model)

    def forget(self, model: ServedModel) -> None:
        """The model is served no longer. The lock is to be held."""
        self._trials.remove(model)

    def unexpected(self, what: str, error: BaseException) -> FrameError:
        """Notes an exception that nobody thought of, and gives what its frames are told."""
        self.errors += 1
        log.error("%s failed", what, exc_info=error)
        return FrameError(pb.INTERNAL, f"{what} failed ({type(error).__name__})")

    # In the thread. -------------------------------------------------------------------------

    def _new_thread(self) -> ComputeThread:
        thread = ComputeThread(self._round, self._recover)
        thread.start()
        return thread

    def _round(self, me: ComputeThread) -> None:
        """Does one thing, or waits until there is one to do."""
        self.bell.forget()
        if me.is_left:
            return
        if self.calls and self.calls.run_next():
            with self.lock:
                self._schedule.rest()  # that was nothing of the frames'
            return
        if self._loop is not None and ((self._trials and self._try_model(me)) or self._work(me)):
            return
        with self.lock:
            due_s = self._trials.next_due_s if self._trials else math.inf
        self.bell.wait(None if due_s == math.inf else max(due_s - time.perf_counter(), 0))

    def _work(self, me: ComputeThread) -> bool:
        """Runs one step of the plan; False where there is none."""
        with self.lock:
            if me.is_left:
                return False
            step, dropped = self._schedule.next(time.perf_counter())
            running = None if step is None else self._begin(step.batch.jobs[0].model, step)
        self._give([(request, _why_dropped(request)) for request in dropped])
        if step is None or running is None:
            return False
        after = advance(step, running.began_s)
        if after.lost is not None:
            self._lose(f"the device failed ({after.lost!r})", running, after.answers)
            return True
        now_s = time.perf_counter()
        with self.lock:
            if self._running is not running:
                return True  # it was given up: nobody waits for it any more
            if after.room < step.room:
                self._schedule.shrink(running.model, after.room)
            if after.is_lost:
                self._trials.failed(now_s, running.model)
            else:
                self._trials.computed(running.model)
            step.batch.progress = after.progress
            self._schedule.done(now_s, now_s - running.began_s, after.failed)
            self._running = None
        self._give(after.answers)
        return True

    def _try_model(self, me: ComputeThread) -> bool:
        """Tries a model that is in doubt; False where none is due."""
        with self.lock:
            model = None if me.is_left else self._trials.due(time.perf_counter())
            if model is None:
                return False
            running = self._begin(cast(ServedModel, model), None)
        failed: BaseException | None = None
        try:
            run_trial(running.model)
        except BaseException as error:  # noqa: BLE001 - it is what the trial is for
            failed = error
        if failed is not None and is_device_lost(failed):
            self._lose(f"the device failed ({failed!r})", running)
            return True
        with self.lock:
            if self._running is not running:
                return True
            self._running = None
            if failed is None:
                self._trials.remove(running.model)
                return True
            self._trials.confirm(time.perf_counter(), running.model)
            lost = self._schedule.clear(running.model)
        self._say_lost(running.model, lost, repr(failed))
        return True

    def _begin(self, model: ServedModel, step: Step[Request] | None) -> _Running:
        """From here on the watchdog looks at it. The lock is held."""
        planned_s = model.batch_times.suffix_s(0, 1) if step is None else step.planned_s
        limit_s = max(self.hung_s, HUNG_TIMES * planned_s)
        self._running = _Running(
            model=model,
            step=step,
            began_s=time.perf_counter(),
            limit_s=limit_s,
            stood_still_s=self._stood_still_s,
        )
        return self._running

    def _recover(self, me: ComputeThread, error: BaseException) -> None:
        """The batch that was worked on is answered, and the thread goes on without it."""
        why = self.unexpected("computing", error)
        if is_device_lost(error):
            self._lose(f"the device failed ({error!r})")
            return
        with self.lock:
            if me.is_left:
                return
            running, self._running = self._running, None
            step = running.step if running is not None else None
            jobs = self._schedule.abandon(step.batch if step is not None else None)
        if step is not None:  # some may have left the batch already
            jobs += [request for request in step.carried + step.joining if request not in jobs]
        self._give([(request, why) for request in jobs])
        if not jobs:
            time.sleep(WATCH_S)  # it may happen again at once

    # On the event loop. ---------------------------------------------------------------------

    async def _watch(self) -> None:
        """Replaces a thread that does not come back, or is gone."""
        looked_s = time.perf_counter()
        while not self.lost:
            await asyncio.sleep(WATCH_S)
            now_s = time.perf_counter()
            late_s, looked_s = now_s - looked_s - WATCH_S, now_s
            if late_s > MOST_LATE_S:
                self._stood_still_s += late_s
                self.calls.stood_still(late_s)
            try:
                running = self._running
                if running is not None and self._has_run_s(running, now_s) > running.limit_s:
                    self._leave_behind(running)
                if not (self.thread.is_alive or self.lost):
                    self._replace_thread()
                self._watch_calls()
            except Exception as error:  # noqa: BLE001 - noted, and it is tried again
                self.unexpected("watching the compute thread", error)

    def _has_run_s(self, running: _Running, now_s: float) -> float:
        return now_s - running.began_s - (self._stood_still_s - running.stood_still_s)

    def _leave_behind(self, running: _Running) -> None:
        """A kernel does not come back: its thread is left with it, a GPU by the whole process."""
        why = f"did not come back in {running.limit_s:.3g} s"
        if self._on_gpu:
            step = running.step
            hung = [] if step is None else step.carried + step.joining
            error = FrameError(pb.INTERNAL, f"computing {why}")
            self._lose(f"what it was given {why}", running, [(one, error) for one in hung])
            return
        with self.lock:
            if self._running is not running:
                return  # it has just ended
            self._running = None
            self.thread.leave()
            hung = self._schedule.give_up() if running.step is not None else []
            self._trials.hung(time.perf_counter(), running.model)
            is_lost = self._trials.has_confirmed(running.model)
            lost = self._schedule.clear(running.model) if is_lost else []
        log.error("%s %s", f"a batch of {len(hung)}" if hung else "a trial", why)
        for request in hung:
            request.broke()
        self._give([(request, FrameError(pb.INTERNAL, f"computing {why}")) for request in hung])
        if is_lost:
            self._say_lost(running.model, lost, why)

    def _lose(
        self, why: str, running: _Running | None = None, answers: Sequence[RequestAnswer] = ()
    ) -> None:
        """Nothing is computed on this device any more by this process; nobody is left waiting.

        `answers` are of those whose step it was, which is `running`; unless it has ended meanwhile.
        """
        with self.lock:
            if self.lost or (running is not None and self._running is not running):
                return
            self.lost, self._running = why, None
            self.thread.leave()
            waiting = self._schedule.clear()
        log.error("the device is lost to this process, which has to begin anew: %s", why)
        self.calls.close(DeviceLost(f"the device is lost: {why}", "start the worker again"))
        stopping = FrameError(pb.STOPPING, "the device is lost, the worker begins anew")
        self._give([*answers, *((request, stopping) for request in waiting)])

    def _watch_calls(self) -> None:
        """One that takes long keeps no frame waiting, and one that hangs is given up."""
        if self.calls.has_run_for(self.hung_s) and self._schedule.queued:
            self._send_away()
        is_slow = self.calls.hangs_for(CALL_SLOW_S)
        if is_slow and not self._is_slow:
            log.warning(
                "no step came to an end in %.3g s (%s); it is given up after %.3g s",
                CALL_SLOW_S, self.calls.doing, self._call_hung_s,
            )  # fmt: skip
        self._is_slow = is_slow
        if self.calls.hangs_for(self._call_hung_s):
            self._give_up_call(
                f"no step came to an end in {self._call_hung_s:.3g} s ({self.calls.doing})"
            )

    @property
    def _call_hung_s(self) -> float:
        return CALL_HUNG_S + self.compiling_s

    def _give_up_call(self, why: str) -> None:
        if self._on_gpu:
            self._lose(why)
            return
        error = DeviceLost(why, "look at what it may wait for, as a disk, or serve another model")
        with self.lock:
            if self._running is not None or not self.calls.give_up(self._call_hung_s, error):
                return  # it has just ended
            self.thread.leave()
        log.error("%s; it is left behind with its thread", why)

    def _send_away(self) -> None:
        """A model takes long to load, if it ever comes to an end: nobody waits for that."""
        with self.lock:
            if self._running is not None:
                return  # it has just ended
            waiting = self._schedule.clear()
        busy = FrameError(pb.OVERLOADED, "loading or measuring a model takes long")
        self._give([(request, busy) for request in waiting])

    def _replace_thread(self) -> None:
        if not self.thread.is_left:
            with self.lock:
                self.thread.leave()
                self._running = None
                lost = self._schedule.clear()
            log.error("the compute thread has ended, and %d frames with it", len(lost))
            error = FrameError(pb.INTERNAL, "the thread that computes has ended")
            self._give([(request, error) for request in lost])
        self.thread = self._new_thread()
        self.restarts += 1

    def _say_lost(self, model: ServedModel, lost: list[Request], why: str) -> None:
        name = model.bundle.manifest.name
        log.error("%s cannot be computed any more, it is tried again: %s", name, why)
        error = FrameError(pb.INTERNAL, "the model cannot be computed at the moment")
        self._give([(request, error) for request in lost])

    def _give(self, answers: list[RequestAnswer]) -> None:
        """On the event loop; one that has ended has no one who waits."""
        if not answers or self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._tell, answers)
        except RuntimeError:
            log.warning("%d answers come after the end", len(answers))

    def _tell(self, answers: list[RequestAnswer]) -> None:
        """One that cannot take its answer is no reason to stop for the others; each gets one."""
        for request, result in answers:
            if request.is_answered:
                continue
            request.is_answered = True
            try:
                request.answer(request, result)
            except Exception as error:  # noqa: BLE001 - noted
                self.unexpected("giving an answer", error)


def _why_dropped(job: Job) -> FrameError:
    if job.cancelled:
        return FrameError(pb.CANCELLED, "cancelled by its sender")
    return FrameError(pb.EXPIRED, "its budget would run out before it is done")
