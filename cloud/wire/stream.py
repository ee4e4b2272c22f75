"""One client's `Infer` stream: its handshake, reading, writing and end."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import grpc
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.limits import MAX_CREDITS

from ..access.caller import Caller
from ..access.quotas import ClientUse
from ..access.refusals import Refusal
from ..compute.served_model import ServedModel
from ..frames.intake import Intake
from ..frames.lifetime import Ending, Lifetime
from ..frames.services import StreamServices
from .handshake import shake_hands

# Answers that a client has not read. A client with credits never gets near it; one that sends
# without reading is not read from any further.
_MAX_UNREAD = 4 * MAX_CREDITS


class InferStream:
    """The server's side of one stream. `serve` returns when the client has gone or is done.

    Nothing of it outlives that.
    """

    def __init__(self, context: Any, services: StreamServices, use: ClientUse) -> None:
        self._context, self._services, self._use = context, services, use
        self._caller = Caller(client=use.client, connection=context.peer())
        self.model: ServedModel | None = None  # once the client has named it
        self._intake: Intake | None = None  # once it was welcomed
        self._withdrawn = asyncio.Event()  # the model is served no longer
        self._outbox: deque[bytes] = deque()
        self._outbox_changed = asyncio.Event()
        self._space = asyncio.Event()
        self._closing = False
        self._lifetime = Lifetime(services.limits.spread())

    @property
    def unanswered(self) -> int:
        """Frames that the client still waits for."""
        return self._working_on + len(self._outbox)

    @property
    def computing(self) -> bool:
        """Whether frames are being worked on, so that the client is right to be silent."""
        return self._working_on > 0

    @property
    def _working_on(self) -> int:
        return 0 if self._intake is None else len(self._intake.work)

    def send_draining(self, grace_ms: int, *, reopen: bool = False) -> None:
        """Tells the client to take its frames elsewhere, or with `reopen` to another stream."""
        if self._intake is None:
            return
        draining = pb.Draining(grace_ms=grace_ms, reopen=reopen)
        self._send(pb.ServerMessage(draining=draining).SerializeToString())

    def end(self) -> None:
        """Ends the stream from here, whatever the client still waits for."""
        self._withdrawn.set()

    async def serve(self) -> tuple[grpc.StatusCode, str] | None:
        """Runs the stream to its end, and tells the status to end it with if it is not OK.

        It does not end it so by itself: that raises, and what is raised would keep the model in
        memory with all that is known here.
        """
        services = self._services
        model = self.model = await shake_hands(self._context, services, self._caller, self._use)
        if services.models.get(model.bundle.digest) is not model:
            return _gone(model)  # meanwhile; what is served by that digest now may be another copy
        intake = self._intake = Intake(
            services, model, self._caller, self._use, self._send, lambda: self._lifetime.is_over
        )
        figures = services.figures.of(model)
        figures.streams += 1
        self._lifetime.touch()
        work = asyncio.create_task(self._work(intake))
        ending = asyncio.create_task(self._lifetime.end(self))
        withdrawn = asyncio.create_task(self._withdrawn.wait())
        tasks = (work, ending, withdrawn)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            is_done, is_idle = work.done(), ending.done() and ending.result() is Ending.IDLE
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            figures.streams -= 1
        if is_done:
            work.result()
        elif self._withdrawn.is_set():
            return _gone(model)
        elif is_idle:
            self._use.count_refused(Refusal.IDLE)
            return (
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"the stream was idle for {services.limits.idle_s:g} s",
            )
        return None

    async def _work(self, intake: Intake) -> None:
        """Reads and answers, until the client has sent its last and has all its answers."""
        writer = asyncio.create_task(self._write())
        try:
            await self._read(intake)
            await intake.work.settled()
            self._closing = True
            self._outbox_changed.set()
            await writer
        finally:
            self._closing = True
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            await intake.work.close()
            self._services.unread.take(sum(map(len, self._outbox)))
            self._outbox.clear()

    async def _read(self, intake: Intake) -> None:
        index = 1  # Hello was the first message
        while (data := await self._context.read()) is not grpc.aio.EOF:
            index += 1
            self._lifetime.touch()
            await intake.receive(data, index)
            if (pause_s := intake.pause_s) > 0:
                await asyncio.sleep(pause_s)
            while self.unanswered > _MAX_UNREAD or (self._outbox and self._services.unread.is_full):
                self._space.clear()
                await self._space.wait()

    def _send(self, message: bytes) -> int:
        """The bytes that will be written: none once the stream has ended."""
        if self._closing:
            return 0
        self._outbox.append(message)
        self._services.unread.add(len(message))
        self._outbox_changed.set()
        return len(message)

    async def _write(self) -> None:
        while not self._closing or self._outbox:
            while self._outbox:
                await self._context.write(self._outbox[0])
                self._services.unread.take(len(self._outbox.popleft()))
                self._lifetime.touch()
                self._space.set()
            if not self._closing:
                self._outbox_changed.clear()
                await self._outbox_changed.wait()


def _gone(model: ServedModel) -> tuple[grpc.StatusCode, str]:
    return grpc.StatusCode.UNAVAILABLE, f"{model.bundle.manifest.name} is not served any more"
