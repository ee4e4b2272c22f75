"""One client's `Infer` stream: a `WorkerSession` with a call, reading, writing and ending it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.session.worker_session import Ending, WorkerSession
from splitpoint.proto.tasks import cancel_and_wait

from ..access.caller import Caller
from ..access.quotas import ClientUse
from ..access.refusals import Refusal
from ..compute.served_model import ServedModel
from ..frames.intake import Intake
from ..frames.services import StreamServices
from .handshake import shake_hands

_POLL_S = 0.05

End = tuple[grpc.StatusCode, str]


async def serve_stream(
    context: Any, services: StreamServices, use: ClientUse, streams: set[InferStream]
) -> End | None:
    """Runs a stream to its end, and tells the status to end it with if it is not OK.

    It is one of `streams` once the client was welcomed. It does not end it so by itself: that
    raises, and what is raised would keep the model in memory with all that is known here.
    """
    caller = Caller(client=use.client, connection=context.peer())
    model = await shake_hands(context, services, caller, use)
    if services.models.get(model.bundle.digest) is not model:
        return _gone(model)  # meanwhile; what is served by that digest now may be another copy
    stream = InferStream(context, services, use, caller, model)
    streams.add(stream)
    try:
        return await stream.serve()
    finally:
        streams.discard(stream)


class InferStream:
    """The server's side of one stream after its handshake. Nothing of it outlives `serve`."""

    def __init__(
        self,
        context: Any,
        services: StreamServices,
        use: ClientUse,
        caller: Caller,
        model: ServedModel,
    ) -> None:
        self._context, self._services, self._use = context, services, use
        self.caller, self.model = caller, model
        limits = services.limits.spread()
        self.session = WorkerSession(
            services.unread,
            idle_s=limits.idle_s,
            max_age_s=limits.max_age_s,
            move_s=limits.move_s,
            now_s=time.perf_counter(),
        )
        self.session.stopping = services.draining.concerns(model)
        self.intake = Intake(services, model, caller, use, self.session, self._send)
        self._withdrawn = asyncio.Event()  # the model is served no longer
        self._to_write, self._taken = asyncio.Event(), asyncio.Event()

    def send_draining(self, grace_ms: int, *, reopen: bool = False) -> None:
        """Tells the client to take its frames elsewhere, or with `reopen` to another stream."""
        self.session.drain(grace_ms, reopen=reopen)
        self._to_write.set()

    def end(self) -> None:
        """Ends the stream from here, whatever the client still waits for."""
        self._withdrawn.set()

    async def serve(self) -> End | None:
        """See `serve_stream`."""
        figures = self._services.figures.of(self.model)
        figures.streams += 1
        work = asyncio.create_task(self._work())
        ending = asyncio.create_task(self._ending())
        withdrawn = asyncio.create_task(self._withdrawn.wait())
        tasks = (work, ending, withdrawn)
        try:
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await cancel_and_wait(*tasks)
        finally:
            figures.streams -= 1
        if work in done:
            work.result()
        elif self._withdrawn.is_set():
            return _gone(self.model)
        elif ending.result() is Ending.IDLE:
            self._use.count_refused(Refusal.IDLE)
            idle_s = self._services.limits.idle_s
            return grpc.StatusCode.DEADLINE_EXCEEDED, f"the stream was idle for {idle_s:g} s"
        return None

    async def _work(self) -> None:
        """Reads and answers, until the client has sent its last and has all its answers."""
        writer = asyncio.create_task(self._write())
        try:
            await self._read()
            self.session.finishing = True
            self._to_write.set()
            await writer
        finally:
            try:
                await cancel_and_wait(writer)
            finally:
                self.session.end()
                await self.intake.work.close()

    async def _read(self) -> None:
        while (data := await self._context.read()) is not grpc.aio.EOF:
            await self.intake.receive(data)
            if (pause_s := self.intake.pause_s) > 0:
                await asyncio.sleep(pause_s)
            while not self.session.may_read:
                self._taken.clear()
                await self._taken.wait()

    def _send(self, message: pb.Reply | pb.ProbeReply) -> int:
        nbytes = self.session.say(message)
        self._to_write.set()
        return nbytes

    async def _write(self) -> None:
        session = self.session
        while True:
            while (message := session.next_message()) is not None:
                await self._context.write(message)
                session.written(time.perf_counter())
                self._taken.set()
            if session.is_done:
                return
            self._to_write.clear()
            await self._to_write.wait()

    async def _ending(self) -> Ending:
        """Returns when the worker is to end the stream, and why."""
        while (ending := self.session.tick(time.perf_counter())) is None:
            self._to_write.set()  # the client may be told that the stream grows old
            await asyncio.sleep(max(self.session.due_s - time.perf_counter(), _POLL_S))
        return ending


def _gone(model: ServedModel) -> End:
    return grpc.StatusCode.UNAVAILABLE, f"{model.bundle.manifest.name} is not served any more"
