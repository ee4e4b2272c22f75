"""One client's `Infer` stream: checks, limits, answers, and nothing that outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
from splitpoint.codec import Array, SplitpointError, codec_named
from splitpoint.codec.video import FktVideo, VideoStream
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import (
    CheckedFrame,
    FrameError,
    build_reply,
    check_frame,
    encode_tensors,
    parse_client,
)
from splitpoint.proto.limits import MAX_BATCH_PER_FRAME, MAX_CREDITS

from .arrival import Arrival
from .client_use import ClientUse
from .engines import Engines
from .figures import Figures, ModelFigures
from .handshake import shake_hands
from .job import Job
from .lifetime import Ending, Lifetime, StreamLimits
from .quarantine import Quarantine
from .refusals import Refusal
from .request import Request, ServedModel
from .unpack import Values

if TYPE_CHECKING:
    from .tracing import FrameTraces

log = logging.getLogger("splitpoint.cloud")

_RAW = codec_named("raw")
# Answers that a client has not read. A client with credits never gets near it; one that sends
# without reading is not read from any further.
_MAX_UNREAD = 4 * MAX_CREDITS
# What a frame is to blame for itself, whoever else is busy.
_FAULTS = frozenset({
    pb.MALFORMED, pb.CORRUPT, pb.OUT_OF_RANGE, pb.MISMATCH, pb.TOO_LARGE, pb.UNKNOWN_CODEC,
    pb.UNDECODABLE,
})  # fmt: skip


class InferStream:
    """The server's side of one stream. `serve` returns when the client has gone or is done."""

    def __init__(
        self,
        context: Any,
        models: Mapping[str, ServedModel],
        engine: Engines,
        decoders: Executor,
        quarantine: Quarantine,
        figures: Figures,
        traces: FrameTraces | None,
        is_draining: Callable[[ServedModel], bool],
        use: ClientUse,
        limits: StreamLimits,
    ) -> None:
        self._context, self._models, self._engine = context, models, engine
        self._decoders, self._is_draining = decoders, is_draining
        self._quarantine, self._use, self._limits = quarantine, use, limits
        # Who shares an address need not share a client's part of the engine.
        self._client = context.peer() if use.client.is_address else use.client.name
        self._figures, self._traces = figures, traces
        self.model: ServedModel | None = None  # once the client has named it
        self._withdrawn = asyncio.Event()  # the model is served no longer
        self._outbox: deque[bytes] = deque()
        self._outbox_changed = asyncio.Event()
        self._space = asyncio.Event()
        self._jobs: dict[int, Request | None] = {}  # by frame id; None while it is decoded
        self._held: dict[int, int] = {}  # bytes by frame id
        self._cancelled_early: set[int] = set()  # while they were being decoded
        self._tasks: set[asyncio.Task[None]] = set()
        self._video: tuple[tuple[int, str], VideoStream] | None = None
        self._turn = asyncio.Lock()  # video frames are decoded in the order in which they came
        self._welcomed = False
        self._closing = False
        self._settled = asyncio.Event()
        self._settled.set()
        self._lifetime = Lifetime(limits.spread())

    @property
    def unanswered(self) -> int:
        """Frames that the client still waits for."""
        return len(self._jobs) + len(self._outbox)

    @property
    def computing(self) -> bool:
        """Whether frames are being worked on, so that the client is right to be silent."""
        return bool(self._jobs)

    def send_draining(self, grace_ms: int, *, reopen: bool = False) -> None:
        """Tells the client to take its frames elsewhere, or with `reopen` to another stream."""
        if not self._welcomed:
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
        model = self.model = await shake_hands(self._context, self._models, self._engine, self._use)
        self._welcomed = True
        if model.bundle.digest not in self._models:
            self.end()
        figures = self._figures.of(model)
        figures.streams += 1
        self._lifetime.touch()
        work = asyncio.create_task(self._work(model, figures))
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
            name = model.bundle.manifest.name
            return grpc.StatusCode.UNAVAILABLE, f"{name} is not served any more"
        elif is_idle:
            self._use.count_refused(Refusal.IDLE)
            return (
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"the stream was idle for {self._limits.idle_s:g} s",
            )
        return None

    async def _work(self, model: ServedModel, figures: ModelFigures) -> None:
        """Reads and answers, until the client has sent its last and has all its answers."""
        writer = asyncio.create_task(self._write())
        try:
            await self._read(model, figures)
            await self._settled.wait()
            self._closing = True
            self._outbox_changed.set()
            await writer
        finally:
            self._closing = True
            for job in self._jobs.values():
                if job is not None:
                    job.cancelled = True
            for task in (writer, *self._tasks):
                task.cancel()
            await asyncio.gather(writer, *self._tasks, return_exceptions=True)
            self._use.release(sum(self._held.values()))
            self._held.clear()

    async def _read(self, model: ServedModel, figures: ModelFigures) -> None:
        index = 1  # Hello was the first message
        while (data := await self._context.read()) is not grpc.aio.EOF:
            index += 1
            self._lifetime.touch()
            self._receive(data, index, model, figures)
            if (pause_s := self._use.pause_s) > 0:
                await asyncio.sleep(pause_s)
            while self.unanswered > _MAX_UNREAD:
                self._space.clear()
                await self._space.wait()

    def _receive(self, data: bytes, index: int, model: ServedModel, figures: ModelFigures) -> None:
        """Takes one message; whatever is wrong with it becomes its own error reply."""
        arrival = Arrival(
            index=index, arrived_s=time.perf_counter(), model=model, at=figures.elsewhere
        )
        try:
            message = parse_client(data)
            kind = message.WhichOneof("kind")
            if kind == "frame":
                arrival.frame_id = message.frame.id
                arrival.at = figures.at(message.frame.boundary)
                if self._traces is not None:
                    arrival.traceparent = message.frame.traceparent
                self._use.request()  # before anything that costs more than this
                self._accept(message.frame, arrival)
            elif kind == "cancel":
                self._cancel(message.cancel.id)
            elif kind == "probe":
                reply = pb.ProbeReply(id=message.probe.id, load=self._engine.load(model))
                self._send(pb.ServerMessage(probe=reply).SerializeToString())
            else:
                raise FrameError(pb.MALFORMED, "Hello may be said once")
        except FrameError as error:
            self._reply_error(arrival, error)
        arrival.at.bytes_received += len(data)

    def _accept(self, frame: pb.Frame, arrival: Arrival) -> None:
        model = arrival.model
        if self._is_draining(model):
            raise FrameError(pb.STOPPING, "the worker is stopping")
        if self._lifetime.is_over:
            raise FrameError(pb.STOPPING, "this stream is as old as it may be; open another")
        checked = check_frame(frame, model.boundaries, MAX_BATCH_PER_FRAME, model.codecs)
        if checked.id in self._jobs:
            raise FrameError(pb.MALFORMED, f"frame id {checked.id} is still unanswered")
        if len(self._jobs) >= MAX_CREDITS:
            raise FrameError(pb.OVERLOADED, f"{MAX_CREDITS} frames of this stream are unanswered")
        if self._quarantine.holds(model.bundle.digest, checked.boundary, checked.payloads):
            raise FrameError(pb.INTERNAL, "the same frame broke a batch a moment ago")
        in_order = isinstance(checked.codec, FktVideo)
        if isinstance(checked.codec, FktVideo):
            checked = replace(checked, codec=self._video_stream(checked.boundary, checked.codec))
        if checked.codec is not _RAW:
            self._engine.check(model, Job(
                model=model, boundary=checked.boundary, samples=checked.batch,
                nbytes=checked.nbytes, deadline_s=_deadline_s(arrival, checked),
                client=self._client,
            ))  # fmt: skip
        self._use.hold(checked.nbytes)
        self._held[checked.id] = checked.nbytes
        self._track(checked.id, None)
        if checked.codec is _RAW:
            arrival.decode_began_s = time.perf_counter()
            try:
                self._submit(checked, checked.decode(), arrival)
            except FrameError:
                self._untrack(checked.id)
                raise
            return
        # Everything else takes long enough to be worth another thread.
        task = asyncio.create_task(self._decode(checked, arrival, in_order))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _video_stream(self, boundary: int, codec: FktVideo) -> VideoStream:
        """The memory of the boundary and codec that this stream uses now; it has one at a time."""
        if self._video is None or self._video[0] != (boundary, codec.name):
            self._video = ((boundary, codec.name), codec.new_stream())
        return self._video[1]

    async def _decode(self, frame: CheckedFrame, arrival: Arrival, in_order: bool) -> None:
        arrival.decode_began_s = time.perf_counter()
        decode = frame.packed if arrival.model.runner.unpacks else frame.decode
        try:
            loop = asyncio.get_running_loop()
            async with self._turn if in_order else contextlib.nullcontext():
                values: Values = await loop.run_in_executor(self._decoders, decode)
            self._submit(frame, values, arrival)
        except FrameError as error:
            self._untrack(frame.id)
            self._reply_error(arrival, error)
        except Exception as error:
            name = arrival.model.bundle.manifest.name
            about = {"client": self._client, "model": name, "frame": frame.id}
            log.exception("decoding failed", extra=about)
            self._untrack(frame.id)
            self._reply_error(
                arrival, FrameError(pb.INTERNAL, f"decoding failed ({type(error).__name__})")
            )

    def _submit(self, frame: CheckedFrame, values: Values, arrival: Arrival) -> None:
        arrival.decoded_s = time.perf_counter()

        def answer(job: Request, result: dict[str, Array] | FrameError) -> None:
            self._untrack(frame.id)
            try:
                if not isinstance(result, FrameError):
                    self._reply_ok(arrival, job, result)
                    return
            except SplitpointError as misfit:
                result = FrameError(pb.INTERNAL, f"the outputs do not fit the bundle ({misfit})")
            self._reply_error(arrival, result, job)

        job = Request(
            model=arrival.model,
            boundary=frame.boundary,
            samples=frame.batch,
            deadline_s=_deadline_s(arrival, frame),
            client=self._client,
            nbytes=frame.nbytes,
            values=values,
            answer=answer,
            broke=lambda: self._quarantine.add(
                arrival.model.bundle.digest, frame.boundary, frame.payloads
            ),
        )
        job.cancelled = frame.id in self._cancelled_early
        self._engine.submit(job)
        self._track(frame.id, job)

    def _cancel(self, frame_id: int) -> None:
        if frame_id not in self._jobs:
            return
        job = self._jobs[frame_id]
        if job is None:
            self._cancelled_early.add(frame_id)
        else:
            job.cancelled = True

    def _track(self, frame_id: int, job: Request | None) -> None:
        self._jobs[frame_id] = job
        self._settled.clear()

    def _untrack(self, frame_id: int) -> None:
        self._jobs.pop(frame_id, None)
        self._cancelled_early.discard(frame_id)
        self._use.release(self._held.pop(frame_id, 0))
        if not self._jobs:
            self._settled.set()

    def _reply_ok(self, arrival: Arrival, job: Request, outputs: dict[str, Array]) -> None:
        times = pb.Times(
            queue_us=int(1e6 * (job.started_s - job.queued_s)),
            decode_us=int(1e6 * (arrival.decoded_s - arrival.decode_began_s)),
            compute_us=int(1e6 * (job.finished_s - job.started_s)),
            total_us=int(1e6 * (time.perf_counter() - arrival.arrived_s)),
            batch=job.batch_computed,
        )
        reply = pb.Reply(
            id=arrival.frame_id,
            message_index=arrival.index,
            status=pb.OK,
            outputs=encode_tensors(outputs, job.model.boundaries[-1], _RAW),
            times=times,
            load=self._engine.load(arrival.model),
        )
        arrival.at.answered(times.queue_us, times.decode_us, times.compute_us, times.batch)
        arrival.at.bytes_sent += self._send(build_reply(reply))
        if self._traces is not None:
            self._traces.answered(arrival, job, pb.OK)

    def _reply_error(self, arrival: Arrival, error: FrameError, job: Request | None = None) -> None:
        reply = pb.Reply(
            id=arrival.frame_id,
            message_index=arrival.index,
            status=error.status,
            reason=str(error)[:500],
            times=pb.Times(total_us=int(1e6 * (time.perf_counter() - arrival.arrived_s))),
            load=self._engine.load(),
        )
        if error.status in _FAULTS:
            self._use.fault()
        arrival.at.statuses[error.status] += 1
        arrival.at.bytes_sent += self._send(build_reply(reply))
        if self._traces is not None and arrival.frame_id:
            self._traces.answered(arrival, job, error.status, str(error))

    def _send(self, message: bytes) -> int:
        """The bytes that will be written: none once the stream has ended."""
        if self._closing:
            return 0
        self._outbox.append(message)
        self._outbox_changed.set()
        return len(message)

    async def _write(self) -> None:
        while not self._closing or self._outbox:
            while self._outbox:
                await self._context.write(self._outbox[0])
                self._outbox.popleft()
                self._lifetime.touch()
                self._space.set()
            if not self._closing:
                self._outbox_changed.clear()
                await self._outbox_changed.wait()


def _deadline_s(arrival: Arrival, frame: CheckedFrame) -> float:
    """When the frame's budget ends; infinite without one."""
    return arrival.arrived_s + frame.budget_ms / 1e3 if frame.budget_ms else float("inf")
