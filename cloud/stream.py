"""One client's `Infer` stream: handshake, checks, answers, and nothing that outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

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
from splitpoint.proto.limits import MAX_BATCH_PER_FRAME, MAX_CREDITS, PROTOCOL, max_frame_bytes

from .engine import Engine
from .quarantine import Quarantine
from .request import Request, ServedModel

log = logging.getLogger("splitpoint.cloud")

_RAW = codec_named("raw")
# Answers that a client has not read. A client with credits never gets near it; one that sends
# without reading is not read from any further.
_MAX_UNREAD = 4 * MAX_CREDITS
HANDSHAKE_TIMEOUT_S = 10.0


class InferStream:
    """The server's side of one stream. `serve` returns when the client has gone or is done."""

    def __init__(
        self,
        context: Any,
        models: Mapping[str, ServedModel],
        engine: Engine,
        decoders: Executor,
        quarantine: Quarantine,
        is_draining: Callable[[], bool],
    ) -> None:
        self._context, self._models, self._engine = context, models, engine
        self._decoders, self._is_draining = decoders, is_draining
        self._quarantine, self._client = quarantine, context.peer()
        self._outbox: deque[bytes] = deque()
        self._outbox_changed = asyncio.Event()
        self._space = asyncio.Event()
        self._jobs: dict[int, Request | None] = {}  # by frame id; None while it is decoded
        self._cancelled_early: set[int] = set()  # while they were being decoded
        self._tasks: set[asyncio.Task[None]] = set()
        self._video: tuple[tuple[int, str], VideoStream] | None = None
        self._turn = asyncio.Lock()  # video frames are decoded in the order in which they came
        self._welcomed = False
        self._closing = False
        self._settled = asyncio.Event()
        self._settled.set()

    @property
    def unanswered(self) -> int:
        """Frames that the client still waits for."""
        return len(self._jobs) + len(self._outbox)

    def send_draining(self, grace_ms: int) -> None:
        """Tells the client to take its frames elsewhere."""
        if not self._welcomed:
            return
        self._send(pb.ServerMessage(draining=pb.Draining(grace_ms=grace_ms)).SerializeToString())

    async def serve(self) -> None:
        """Runs the stream to its end; a refused handshake ends it with a status."""
        model = await self._handshake()
        self._welcomed = True
        writer = asyncio.create_task(self._write())
        try:
            await self._read(model)
            await self._settled.wait()  # the client has sent its last, and still reads
        finally:
            for job in self._jobs.values():
                if job is not None:
                    job.cancelled = True
            for task in self._tasks:
                task.cancel()
            self._closing = True
            self._outbox_changed.set()
            if self._context.cancelled() or self._context.done():
                writer.cancel()
            await asyncio.gather(writer, *self._tasks, return_exceptions=True)

    async def _handshake(self) -> ServedModel:
        abort = self._context.abort
        try:
            data = await asyncio.wait_for(self._context.read(), HANDSHAKE_TIMEOUT_S)
        except asyncio.TimeoutError:
            await abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no Hello came")
            raise AssertionError from None  # abort does not return
        try:
            message = parse_client(b"" if data is grpc.aio.EOF else data)
        except FrameError as error:
            await abort(grpc.StatusCode.INVALID_ARGUMENT, f"{error}; say Hello first")
        if message.WhichOneof("kind") != "hello":
            await abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must be Hello")
        hello = message.hello
        if hello.protocol != PROTOCOL:
            await abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"this worker speaks protocol {PROTOCOL}, the client {hello.protocol}: "
                "install the same version of splitpoint at both ends",
            )
        model = self._models.get(hello.digest)
        if model is None:
            known = ", ".join(
                f"{m.bundle.manifest.name} ({digest[:12]})" for digest, m in self._models.items()
            )
            name = f"{hello.model[:80]!r} " if hello.model else ""
            await abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"the model {name}with digest {hello.digest[:12]} is not served here; "
                f"served: {known}; give both ends the same bundle",
            )
            raise AssertionError  # abort does not return
        log.info("%s uses %s", hello.client[:80] or "a client", model.bundle.manifest.name)
        welcome = pb.Welcome(
            protocol=PROTOCOL,
            credits=MAX_CREDITS,
            max_batch=MAX_BATCH_PER_FRAME,
            max_frame_bytes=max_frame_bytes(model.boundaries, MAX_BATCH_PER_FRAME),
            segment_ms=model.times.segment_ms,
            load=self._engine.load(model),
        )
        await self._context.write(pb.ServerMessage(welcome=welcome).SerializeToString())
        return model

    async def _read(self, model: ServedModel) -> None:
        index = 1  # Hello was the first message
        while (data := await self._context.read()) is not grpc.aio.EOF:
            index += 1
            self._receive(data, index, model)
            while self.unanswered > _MAX_UNREAD:
                self._space.clear()
                await self._space.wait()

    def _receive(self, data: bytes, index: int, model: ServedModel) -> None:
        """Takes one message; whatever is wrong with it becomes its own error reply."""
        arrived = time.perf_counter()
        frame_id = 0
        try:
            message = parse_client(data)
            kind = message.WhichOneof("kind")
            if kind == "frame":
                frame_id = message.frame.id
                self._accept(message.frame, index, arrived, model)
            elif kind == "cancel":
                self._cancel(message.cancel.id)
            elif kind == "probe":
                reply = pb.ProbeReply(id=message.probe.id, load=self._engine.load(model))
                self._send(pb.ServerMessage(probe=reply).SerializeToString())
            else:
                raise FrameError(pb.MALFORMED, "Hello may be said once")
        except FrameError as error:
            self._reply_error(frame_id, index, error, arrived)

    def _accept(self, frame: pb.Frame, index: int, arrived: float, model: ServedModel) -> None:
        if self._is_draining():
            raise FrameError(pb.STOPPING, "the worker is stopping")
        checked = check_frame(frame, model.boundaries, MAX_BATCH_PER_FRAME, model.codecs)
        if checked.id in self._jobs:
            raise FrameError(pb.MALFORMED, f"frame id {checked.id} is still unanswered")
        if len(self._jobs) >= MAX_CREDITS:
            raise FrameError(pb.OVERLOADED, f"{MAX_CREDITS} frames of this stream are unanswered")
        if self._quarantine.holds(checked.boundary, checked.payloads):
            raise FrameError(pb.INTERNAL, "the same frame broke a batch a moment ago")
        in_order = isinstance(checked.codec, FktVideo)
        if isinstance(checked.codec, FktVideo):
            checked = replace(checked, codec=self._video_stream(checked.boundary, checked.codec))
        if checked.codec is _RAW:
            self._submit(checked, checked.decode(), index, arrived, arrived, model)
            return
        # Everything else takes long enough to be worth another thread.
        self._track(checked.id, None)
        task = asyncio.create_task(self._decode(checked, index, arrived, model, in_order))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _video_stream(self, boundary: int, codec: FktVideo) -> VideoStream:
        """The memory of the boundary and codec that this stream uses now; it has one at a time."""
        if self._video is None or self._video[0] != (boundary, codec.name):
            self._video = ((boundary, codec.name), codec.new_stream())
        return self._video[1]

    async def _decode(
        self, frame: CheckedFrame, index: int, arrived: float, model: ServedModel, in_order: bool
    ) -> None:
        started = time.perf_counter()
        try:
            loop = asyncio.get_running_loop()
            async with self._turn if in_order else contextlib.nullcontext():
                values = await loop.run_in_executor(self._decoders, frame.decode)
            self._submit(frame, values, index, arrived, started, model)
        except FrameError as error:
            self._untrack(frame.id)
            self._reply_error(frame.id, index, error, arrived)
        except Exception as error:
            log.exception("decoding failed")
            self._untrack(frame.id)
            failed = FrameError(pb.INTERNAL, f"decoding failed ({type(error).__name__})")
            self._reply_error(frame.id, index, failed, arrived)

    def _submit(
        self,
        frame: CheckedFrame,
        values: dict[str, Array],
        index: int,
        arrived: float,
        decode_started: float,
        model: ServedModel,
    ) -> None:
        decode_us = int(1e6 * (time.perf_counter() - decode_started))

        def answer(job: Request, result: dict[str, Array] | FrameError) -> None:
            self._untrack(frame.id)
            try:
                if not isinstance(result, FrameError):
                    self._reply_ok(frame.id, index, job, result, arrived, decode_us)
                    return
            except SplitpointError as misfit:
                result = FrameError(pb.INTERNAL, f"the outputs do not fit the bundle ({misfit})")
            self._reply_error(frame.id, index, result, arrived)

        job = Request(
            model=model,
            boundary=frame.boundary,
            samples=frame.batch,
            deadline_s=arrived + frame.budget_ms / 1e3 if frame.budget_ms else float("inf"),
            client=self._client,
            nbytes=sum(array.nbytes for array in values.values()),
            values=values,
            answer=answer,
            broke=lambda: self._quarantine.add(frame.boundary, frame.payloads),
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
        if not self._jobs:
            self._settled.set()

    def _reply_ok(
        self,
        frame_id: int,
        index: int,
        job: Request,
        outputs: dict[str, Array],
        arrived: float,
        decode_us: int,
    ) -> None:
        reply = pb.Reply(
            id=frame_id,
            message_index=index,
            status=pb.OK,
            outputs=encode_tensors(outputs, job.model.boundaries[-1], _RAW),
            times=pb.Times(
                queue_us=int(1e6 * (job.started_s - job.queued_s)),
                decode_us=decode_us,
                compute_us=int(1e6 * (job.finished_s - job.started_s)),
                total_us=int(1e6 * (time.perf_counter() - arrived)),
                batch=job.batch_computed,
            ),
            load=self._engine.load(job.model),
        )
        self._send(build_reply(reply))

    def _reply_error(self, frame_id: int, index: int, error: FrameError, arrived: float) -> None:
        reply = pb.Reply(
            id=frame_id,
            message_index=index,
            status=error.status,
            reason=str(error)[:500],
            times=pb.Times(total_us=int(1e6 * (time.perf_counter() - arrived))),
            load=self._engine.load(),
        )
        self._send(build_reply(reply))

    def _send(self, message: bytes) -> None:
        if not self._closing:
            self._outbox.append(message)
            self._outbox_changed.set()

    async def _write(self) -> None:
        while not self._closing or self._outbox:
            while self._outbox:
                await self._context.write(self._outbox[0])
                self._outbox.popleft()
                self._space.set()
            if not self._closing:
                self._outbox_changed.clear()
                await self._outbox_changed.wait()
