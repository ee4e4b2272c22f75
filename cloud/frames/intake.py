"""Takes the messages of one stream, in their order.

Whatever goes wrong with one, thought of or not, becomes that one's error reply: the stream and
every other frame live on.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import CheckedFrame, FrameError, check_frame
from splitpoint.proto.limits import MAX_BATCH_PER_FRAME
from splitpoint.proto.session.worker_session import WorkerSession

from ..access.caller import Caller
from ..access.quotas import ClientUse, StreamUse
from ..compute.served_model import ServedModel
from ..unexpected import Stage
from .answers import Answers
from .arrival import Arrival
from .frame_work import FrameWork
from .services import StreamServices

# Checking a frame means to sum up its bytes, a millisecond for each million of them. That is as
# long as the event loop may be kept from everybody else; more is done in a thread, without Python's
# lock.
LARGE_BYTES = 1_000_000
# W3C's has 55 characters, those of later versions a few more.
_TRACEPARENT = 100
# Answers that are no fault of the frame's: it was taken, and its time or its sender's patience ran
# out while it waited.
_TAKEN = frozenset({pb.EXPIRED, pb.CANCELLED})


class Intake:
    """Of the messages after the handshake. `send` takes what is to be written."""

    def __init__(
        self,
        services: StreamServices,
        model: ServedModel,
        caller: Caller,
        use: ClientUse,
        session: WorkerSession,
        send: Callable[[pb.Reply | pb.ProbeReply], int],
    ) -> None:
        self._services, self._model, self._caller = services, model, caller
        self._session = session
        self._use, self._stream_use = use, StreamUse(use)
        self._figures = services.figures.of(model)
        self.cuts: Counter[int] = Counter()  # of the frames that were in order, by boundary
        self._answers = Answers(
            services.engine, services.figures, services.traces, model.times, caller.share, send
        )
        self.work = FrameWork(services, model, caller, use, session, self._answers, self._refuse)

    @property
    def pause_s(self) -> float:
        """Seconds in which nothing is to be read: too much of what came was in vain."""
        return self._stream_use.pause_s

    async def receive(self, data: bytes) -> None:
        """Takes the next message."""
        now_s = time.perf_counter()
        arrival = Arrival(
            index=self._session.came(now_s),
            arrived_s=now_s,
            model=self._model,
            at=self._figures.elsewhere,
        )
        try:
            await self._take(data, arrival)
        except Exception as error:  # noqa: BLE001 - each is answered
            self._refuse(arrival, error, Stage.RECEIVE)
        arrival.at.bytes_received += len(data)

    async def _take(self, data: bytes, arrival: Arrival) -> None:
        message = self._session.read(data)
        kind = message.WhichOneof("kind")
        if kind == "frame":
            frame = message.frame
            arrival.frame_id = frame.id
            arrival.at = self._figures.at(frame.boundary)
            if self._services.traces is not None and len(frame.traceparent) <= _TRACEPARENT:
                arrival.traceparent = frame.traceparent
            self._use.request()  # before anything that costs more than this
            checked = await self._checked(frame, len(data))
            self.cuts[frame.boundary] += 1
            self.work.take(checked, arrival)
        elif kind == "cancel":
            if self._session.cancel(message.cancel.id):
                self.work.cancel(message.cancel.id)
            else:
                self._stream_use.in_vain()
        else:
            self._stream_use.probe()
            self._answers.echo(self._model, message.probe.id)

    async def _checked(self, frame: pb.Frame, nbytes: int) -> CheckedFrame:
        model = self._model
        self._session.admit(time.perf_counter())
        given = (frame, model.boundaries, MAX_BATCH_PER_FRAME, model.codecs)
        if nbytes > LARGE_BYTES:
            return await asyncio.to_thread(check_frame, *given)
        return check_frame(*given)

    def _refuse(self, arrival: Arrival, error: Exception, stage: Stage) -> None:
        """Answers a message that was not taken, or did not get as far as an engine."""
        if not isinstance(error, FrameError):
            error = self._services.figures.unexpected.caught(
                stage, error, client=self._caller.share, frame=arrival.frame_id,
                model=self._model.bundle.manifest.name,
            )  # fmt: skip
        if error.status not in _TAKEN:
            self._stream_use.in_vain()
        self._answers.give(arrival, error)
