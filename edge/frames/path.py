"""The way of a frame: computed, encoded, answered by a worker or finished here."""

from __future__ import annotations

import math
import time

from splitpoint.codec import SplitpointError
from splitpoint.partition.bundle.answer_form import AnswerForm
from splitpoint.partition.bundle.bundle import Manifest
from splitpoint.proto.frames import build_frame, decode_reply
from splitpoint.proto.status import (
    FrameExpiredError,
    KeyFrameNeededError,
    OverloadedError,
    UnreachableError,
    WireError,
)

from ..dispatch.dispatcher import LOOKS_S
from ..link.frame_stream import FrameStream
from ..link.workers import WorkerLink, Workers
from ..result import Outcome, Result
from .edge_half import EdgePart
from .frame import Frame
from .half_in_threads import HalfInThreads
from .hedge import Race, UsualTime
from .local_finish import LocalFinish
from .only_this_frame import only_this_frame
from .present_plan import PresentPlan


class FramePath:
    """Takes frames, each to its one outcome.

    With `hedge`, the device begins to finish a frame when 95 of 100 answers would have come, and
    the first to be done counts. What frames see goes to the observer of `present`.
    """

    def __init__(
        self,
        manifest: Manifest,
        half: HalfInThreads,
        *,
        workers: Workers,
        local: LocalFinish,
        present: PresentPlan,
        hedge: bool,
    ) -> None:
        self._form, self._half = AnswerForm.of(manifest), half
        self._workers, self._local, self._present = workers, local, present
        self._hedge = hedge
        self._last = len(manifest.segments)
        self._asking = 0  # frames that wait for an answer
        self.usual = UsualTime()

    async def run(self, frame: Frame) -> Result:
        """The frame's end, whatever goes wrong with it."""
        try:
            with only_this_frame("handling"):
                return await self._run(frame)
        except FrameExpiredError as error:
            return frame.failed(error, Outcome.EXPIRED)
        except SplitpointError as error:
            return frame.failed(error)

    async def _run(self, frame: Frame) -> Result:
        sends, observer = frame.plan.boundary < self._last, self._present.observer
        link = None
        if sends:
            link = self._workers.pick(needed=not self._local.ready)
        try:
            with only_this_frame("computing"):
                part = await self._half.compute(frame, encode=link is not None)
            observer.device_done(frame.id)
            if sends and link is None and self._local.ready:
                # No other frame begins in between: the compute thread would only be late for both.
                away = UnreachableError("the worker has not answered lately")
                return await self._finish(frame, part, away)
        finally:
            observer.device_done(frame.id)
            frame.computed()
        if not sends:
            self._saw_compute(frame, part)
            outputs = self._form.named(part.values)
            return frame.finished_here(part, outputs, 0.0, frame.plan.why)
        link = link or self._workers.current  # there is nothing else to wait for
        try:
            with only_this_frame("encoding"):
                part = await self._half.encode(frame, part)
        except SplitpointError as error:  # the device needs no codec
            return await self._finish(frame, part, error)
        self._saw_compute(frame, part)
        if (frame.may_expire or self._local.ready) and not observer.worth_sending(frame.id):
            late = FrameExpiredError("the link is full of earlier frames, or stands still")
            if frame.may_expire and not observer.worth_finishing(frame.id):
                return frame.failed(late, Outcome.EXPIRED)
            return await self._finish(frame, part, late)
        race = self._race(frame, part) if self._local.ready else None
        try:
            with only_this_frame("sending"):
                return await self._ask(frame, part, link, race)
        except SplitpointError as error:
            if race is None or not race.begun:
                return await self._finish(frame, part, error)
            return await race.result()
        finally:
            if race is not None:
                await race.end()

    async def _ask(
        self, frame: Frame, part: EdgePart, link: WorkerLink, race: Race | None
    ) -> Result:
        """The worker's answer, or another's where that one is lost and there is another."""
        why, asked = frame.plan.why, [link]
        self._asking += 1
        try:
            while True:
                try:
                    return await self._ask_one(frame, part, link, race, why)
                except (UnreachableError, OverloadedError) as error:
                    other = self._workers.pick(besides=asked, needed=not self._local.ready)
                    if other is None:
                        raise
                    why, link = f"sent to {other.server} after: {error}", other
                    asked.append(link)
        finally:
            self._asking -= 1

    async def _ask_one(
        self, frame: Frame, part: EdgePart, link: WorkerLink, race: Race | None, why: str
    ) -> Result:
        def build(frame_id: int, budget_ms: int) -> bytes:
            message = build_frame(
                id=frame_id,
                boundary=frame.plan.boundary,
                codec=part.codec,
                tensors=part.tensors,
                budget_ms=budget_ms,
                traceparent=frame.traceparent,
            )
            frame.bytes_up += len(message)
            assert stream is not None
            self._present.observer.frame_sent(frame.id, len(message), stream, frame_id)
            if race is not None:
                race.sent = True
            return message

        against = None if race is None else race.against
        stream: FrameStream | None = None
        if frame.left_ms < 1:
            # No worker is to blame for that, and none is asked.
            raise FrameExpiredError("the budget ran out on the device")
        asked = time.perf_counter()
        try:
            stream = await link.connection.live(max(frame.left_ms, 0.0) / 1e3)
            asked = time.perf_counter()
            try:
                answer = await stream.ask(build, frame.left_ms, asked=against)
            except KeyFrameNeededError:
                part = await self._half.as_key_frame(frame, part)
                answer = await stream.ask(build, frame.left_ms, asked=against)
            queued_here_ms = 1e3 * (time.perf_counter() - asked) - answer.answer_ms
            values = decode_reply(answer.reply, self._form.specs, frame.batch, self._form.codec)
        except SplitpointError as error:
            if race is not None and race.won and race.hedged:
                link.breaker.doubted()  # nobody else finds out that a worker is gone
            elif _is_no_help(error):
                link.breaker.failed()
            elif stream is not None:
                link.breaker.answered()
            if stream is not None and stream.session.heard_s > asked:  # or it says what once was
                self._present.observer.load_told(stream.session.load)
            raise
        link.breaker.answered()
        self.usual.answered(answer.answer_ms)
        self._present.observer.frame_answered(
            frame.id, frame.plan, part.codec, answer, stream, frame.batch
        )
        return frame.answered(
            part,
            answer,
            self._form.named(values),
            round_trip_ms=stream.session.round_trip_ms,
            queued_here_ms=queued_here_ms,
            why=why,
        )

    def _race(self, frame: Frame, part: EdgePart) -> Race:
        """The device's finish, to begin so early that it is in time, or when most answers came."""
        observer, boundary, left_ms = self._present.observer, frame.plan.boundary, frame.left_ms
        if observer.decides:
            # A look early enough to let others pass, and a last one.
            latest_ms = left_ms - self._local.expected_ms(boundary)
            begins = [latest_ms - 1e3 * s for s in LOOKS_S if latest_ms > 1e3 * s]
        else:
            kept_ms = self._local.reserve_ms(boundary, self._asking + 1)
            # Where a finish could not be in time any more, the cloud is given all that is left.
            begins = [left_ms - kept_ms if left_ms > kept_ms else left_ms]
        hedged, usual_ms, first_ms = False, self.usual.ms, min(begins, default=left_ms)
        if self._hedge and usual_ms is not None and usual_ms < first_ms:
            begins, hedged = [usual_ms], True
        within_ms = max(begins[-1], 0.0) if begins else left_ms
        slow = FrameExpiredError(f"no answer within {within_ms:.0f} ms")
        return Race(
            begins,
            lambda: self._finish(frame, part, slow),
            worth=lambda: hedged or observer.worth_finishing(frame.id),
            hedged=hedged,
        )

    async def _finish(self, frame: Frame, part: EdgePart, error: SplitpointError) -> Result:
        """What becomes of a frame that the cloud did not answer or was not asked, and why."""
        lost = Outcome.EXPIRED if isinstance(error, FrameExpiredError) else Outcome.FAILED
        # One of the first frames, perhaps: what is being loaded is there in a moment.
        left_s = max(frame.left_ms, 0.0) / 1e3 if frame.may_expire else math.inf
        if not await self._local.ready_within(left_s):
            return frame.failed(error, lost)
        boundary, observer = frame.plan.boundary, self._present.observer
        busy_ms = self._local.backlog_ms
        if observer.decides:
            busy_ms += self._local.expected_ms(boundary)
        if frame.may_expire and busy_ms > max(frame.left_ms, 0.0):
            late = FrameExpiredError(f"too late for the device to finish it ({error})")
            return frame.failed(late, Outcome.EXPIRED)
        observer.finish_begins(frame.id)
        try:
            with only_this_frame("finishing"):
                values, here_ms = await self._local.run(part.values, boundary)
        except SplitpointError as second:
            return frame.failed(second)
        finally:
            observer.device_done(frame.id)
        outputs = self._form.named(values)
        return frame.finished_here(part, outputs, here_ms, f"finished on the device: {error}")

    def _saw_compute(self, frame: Frame, part: EdgePart) -> None:
        here_ms = part.edge_ms + part.encode_ms
        self._present.observer.frame_computed(frame.plan, here_ms / frame.batch)


def _is_no_help(error: SplitpointError) -> bool:
    """Of a worker that ends frames like that. Others may help, and the device does."""
    return isinstance(error, WireError) and not isinstance(error, OverloadedError)
