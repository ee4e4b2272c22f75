"""Takes frames in: each gets a number and, at its end, is counted under its one outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from splitpoint.codec import SplitpointError
from splitpoint.proto.status import FrameExpiredError

from ..given import Given, batch_of
from ..result import Outcome, Result
from ..store.prepare import Prepared
from .arrivals import Arrivals
from .frame import Frame
from .frame_count import FrameCount
from .local_finish import LocalFinish
from .only_this_frame import only_this_frame
from .order import Newest, in_order
from .path import FramePath
from .present_plan import PresentPlan


class Intake:
    """Frames of one agent, each with the plan that is the `present` one when it begins."""

    def __init__(
        self,
        prepared: Prepared,
        path: FramePath,
        present: PresentPlan,
        *,
        local: LocalFinish,
        budget_ms: float,
        count: FrameCount,
    ) -> None:
        self._tensors, self._labels = prepared.manifest.boundaries[0].tensors, prepared.labels
        self._path, self._present = path, present
        self._local, self._budget_ms = local, budget_ms
        self._count = count

    async def infer(
        self,
        given: Given,
        taken_s: float | None = None,
        computed: Callable[[], None] | None = None,
    ) -> Result:
        """The frame's result; `SpecError` for inputs that do not fit.

        A live source's was taken at `taken_s`; `computed` is called when the compute thread is done
        with it.
        """
        batch = batch_of(given.inputs, self._tensors)
        number, observer = self._count.next_number(), self._present.observer
        way = observer.way(number, live=taken_s is not None, samples=batch)
        if observer.let_go(number):
            if computed is not None:
                computed()
            late = FrameExpiredError("let go: it would not have been in time")
            return self._never_began(given, taken_s, Outcome.EXPIRED, number).failed(
                late, Outcome.EXPIRED
            )
        frame = Frame(
            id=number,
            plan=way or self._present.plan,
            inputs=given.inputs,
            batch=batch,
            budget_ms=self._budget_ms,
            labels=self._labels,
            metadata=given.metadata,
            traceparent=given.traceparent,
            may_expire=taken_s is not None,
            computed=computed or _nothing,
            start_s=time.perf_counter() if taken_s is None else taken_s,
        )
        try:
            result = await self._path.run(frame)
        finally:
            observer.frame_ended(number)
        self._count.outcomes[result.outcome] += 1
        observer.device_can_finish(self._local.predicted_ms if self._local.ready else None)
        return result

    async def take(
        self,
        given: Given,
        taken_s: float | None = None,
        computed: Callable[[], None] | None = None,
    ) -> Result:
        """The same, with a failed result for a frame without inputs that fit."""
        error = given.error
        if given.still:
            if computed is not None:
                computed()
            return self._skip(given)
        if error is None:
            try:
                with only_this_frame("taking in"):
                    return await self.infer(given, taken_s, computed)
            except SplitpointError as misfit:
                error = misfit
        if computed is not None:
            computed()
        return self._never_began(given, taken_s, Outcome.FAILED).failed(error)

    async def results(
        self, frames: Arrivals, window: int, leave: asyncio.Future[None], *, live: bool
    ) -> AsyncGenerator[Result, None]:
        """A result for each of `frames`, of which at most `window` are under way.

        Once it is time to `leave`, the others stay with `frames`, and those that were taken end.
        See `EdgeAgent.stream` for their order, and for what `live` means.
        """
        if live:
            results = Newest(
                self.take,
                self.expire,
                window,
                busy=self.finishing,
                at_once=self.decided_at_once,
            ).run(frames, leave)
        else:
            results = in_order(frames, self.take, window, leave)
        # A caller that stops early ends, by closing this, all that is under way.
        async with aclosing(results):
            try:
                async for result in results:
                    yield result
            finally:
                self._present.observer.stream_ended()

    def expire(self, given: Given, taken_s: float) -> Result:
        """The result of a frame that a newer one has overtaken, or that shows nothing new."""
        if given.still:
            return self._skip(given)
        late = FrameExpiredError("a newer frame came before this one could begin")
        frame = self._never_began(given, taken_s, Outcome.EXPIRED)
        return frame.failed(late, Outcome.EXPIRED)

    def decided_at_once(self) -> bool:
        """Whether it is decided of each frame when it comes, instead of when the device is free."""
        return self._present.observer.decides

    def finishing(self) -> bool:
        """Whether the device finishes a frame that the cloud did not answer."""
        return self._local.busy

    def _skip(self, given: Given) -> Result:
        return self._never_began(given, None, Outcome.SKIPPED).skipped()

    def _never_began(
        self, given: Given, taken_s: float | None, outcome: Outcome, number: int | None = None
    ) -> Frame:
        if number is None:
            number = self._count.next_number()
        self._count.outcomes[outcome] += 1
        return Frame(
            id=number,
            plan=self._present.plan,
            inputs={},
            batch=0,
            budget_ms=self._budget_ms,
            metadata=given.metadata,
            start_s=time.perf_counter() if taken_s is None else taken_s,
        )


def _nothing() -> None:
    pass
