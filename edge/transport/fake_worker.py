"""A worker in memory, for tests and simulations: no sockets, no waiting for real faults."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

import grpc
from splitpoint.codec import Array, StreamCodec, StreamEnd
from splitpoint.partition.bundle.answer_form import AnswerForm
from splitpoint.partition.bundle.bundle import MANIFEST, Bundle
from splitpoint.partition.run.codecs import codecs_of
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import (
    CheckedFrame,
    FrameError,
    build_reply,
    check_frame,
    encode_tensors,
    parse_client,
)
from splitpoint.proto.limits import (
    CHUNK_BYTES,
    MAX_BATCH_PER_FRAME,
    MAX_CREDITS,
    PROTOCOL,
    max_frame_bytes,
)
from splitpoint.proto.tasks import cancel_and_wait

from .fake_call import DONE, FakeCall, FakeLink, FakeTransport, Status

Script = Callable[[CheckedFrame], Awaitable["pb.Status | None"]]

_GONE: Status = (grpc.StatusCode.UNAVAILABLE, "the fake worker is not there")
_OTHER = "the digest {} is not served here; give both ends the same bundle"


async def answers(frame: CheckedFrame) -> pb.Status | None:
    """The script of a worker that answers every frame."""
    return pb.OK


class FakeWorker:
    """Takes frames as a real worker does, and finishes them in onnxruntime.

        worker = FakeWorker(open_bundle(Path("lite0.split")))
        async with EdgeAgent(worker.address, connect=worker.connect, split="3") as agent:
            await agent.settled()  # from here on the device can finish frames
            worker.cut()
            assert (await agent.infer(inputs)).outcome is Outcome.LOCAL

    `open_bundle` is in `splitpoint.partition.bundle.bundle`.

    What happens is the test's to say, at any time: `script` decides how each frame ends, and may
    wait before it does (with a status other than OK it is refused, with None never answered);
    `link` is the network; `load` what the worker says of its queue. A frame may have `max_batch`
    samples, as many as a real worker takes where that is not given. `frames` are those that came,
    `cancelled` the numbers of those that nobody waits for any more, `streams` how many are open.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        address: str = "fake:7070",
        script: Script = answers,
        credits: int = MAX_CREDITS,
        max_batch: int | None = None,
        segment_ms: Sequence[float] = (),
    ) -> None:
        manifest = bundle.manifest
        self.bundle, self.address, self.script, self.credits = bundle, address, script, credits
        most = 1 if manifest.boundaries[0].one_sample else MAX_BATCH_PER_FRAME
        self.max_batch = most if max_batch is None else max_batch
        self.segment_ms = tuple(segment_ms) or (1.0,) * len(manifest.segments)
        self.link = FakeLink()
        self.load = pb.Load(wait_ms=[0.0] * len(manifest.segments), slowdown=1.0)
        self.times: pb.Times | None = None  # what it says in place of the frame's own
        self.frames: list[CheckedFrame] = []
        self.cancelled: list[int] = []
        self.streams = 0
        self._refusal: Status | None = None
        self._calls: set[FakeCall] = set()
        self._streaming: set[FakeCall] = set()
        self._draining = False
        self._boundaries = [boundary.tensors for boundary in manifest.boundaries]
        self._form = AnswerForm.of(manifest)
        self._codecs = codecs_of(manifest, bundle.folder)
        self._chain = OnnxChain(bundle, threads=1)

    # What a test does. -----------------------------------------------------------------------

    def connect(self, server: str, max_message_bytes: int) -> FakeTransport:
        """For `EdgeAgent(connect=…)`."""
        return FakeTransport(self.open)

    def cut(self, code: grpc.StatusCode = _GONE[0], details: str = _GONE[1]) -> None:
        """Ends all calls, and refuses those that come, until it is mended."""
        self._refusal = code, details
        for call in tuple(self._calls):
            call.end(self._refusal)

    def mend(self) -> None:
        """Takes calls again."""
        self._refusal = None

    def drain(self, *, reopen: bool = False) -> None:
        """Says on every stream that it stops, or with `reopen` that the stream is about to end."""
        self._draining = self._draining or not reopen
        draining = pb.ServerMessage(draining=pb.Draining(reopen=reopen)).SerializeToString()
        for call in self._streaming:
            call.send(draining)

    # What a worker does. ---------------------------------------------------------------------

    def open(self, method: str, request: bytes | None) -> FakeCall:
        """Begins a call."""
        serve = {"Describe": self._describe, "Fetch": self._fetch, "Infer": self._infer}[method]
        call = FakeCall(self.link, partial(self._serve, serve, request or b""))
        self._calls.add(call)
        return call

    async def _serve(
        self, serve: Callable[[FakeCall, bytes], Awaitable[Status]], request: bytes, call: FakeCall
    ) -> Status:
        try:
            return self._refusal or await serve(call, request)
        finally:
            self._calls.discard(call)

    async def _describe(self, call: FakeCall, request: bytes) -> Status:
        manifest = self.bundle.manifest
        info = pb.ModelInfo(
            name=manifest.name,
            digest=self.bundle.digest,
            manifest_bytes=self.bundle.path(MANIFEST).stat().st_size,
            segment_ms=self.segment_ms,
            segment_p95_ms=self.segment_ms,
            device="fake",
            load=self.load,
        )
        reply = pb.DescribeReply(protocol=PROTOCOL, server="fake", models=[info], load=self.load)
        call.send(reply.SerializeToString())
        return DONE

    async def _fetch(self, call: FakeCall, request: bytes) -> Status:
        asked = pb.FetchRequest.FromString(request)
        paths = {file.sha256: path for path, file in self.bundle.manifest.files.items()}
        paths[self.bundle.digest] = MANIFEST
        if asked.digest != self.bundle.digest or asked.sha256 not in paths:
            return grpc.StatusCode.NOT_FOUND, "no such file here"
        data = self.bundle.path(paths[asked.sha256]).read_bytes()
        for at in range(asked.offset, len(data), CHUNK_BYTES):
            chunk = pb.Chunk(offset=at, total=len(data), data=data[at : at + CHUNK_BYTES])
            call.send(chunk.SerializeToString())
        return DONE

    async def _infer(self, call: FakeCall, request: bytes) -> Status:
        hello = parse_client(await call.arrived()).hello
        if hello.digest != self.bundle.digest:
            return grpc.StatusCode.FAILED_PRECONDITION, _OTHER.format(hello.digest[:12])
        welcome = pb.Welcome(
            protocol=PROTOCOL,
            credits=self.credits,
            max_batch=self.max_batch,
            max_frame_bytes=max_frame_bytes(self._boundaries, self.max_batch),
            segment_ms=self.segment_ms,
            load=self.load,
        )
        call.send(pb.ServerMessage(welcome=welcome).SerializeToString())
        stream = _Stream(self, call)
        self._streaming.add(call)
        self.streams += 1
        try:
            return await stream.serve()
        finally:
            self.streams -= 1
            self._streaming.discard(call)
            await stream.close()

    def check(self, frame: pb.Frame) -> CheckedFrame:
        """The frame, if it may be answered; else `FrameError`."""
        if self._draining:
            raise FrameError(pb.STOPPING, "the worker is stopping")
        checked = check_frame(frame, self._boundaries, self.max_batch, self._codecs)
        self.frames.append(checked)
        return checked

    def finish(self, frame: CheckedFrame) -> list[pb.Tensor]:
        """The model's outputs for it."""
        state: dict[str, Array] = self._chain.place(frame.decode())
        for index in range(frame.boundary, len(self._chain)):
            self._chain.load(index)
            state.update(self._chain.step(index, state))
        return encode_tensors(self._form.made(state), self._form.specs, self._form.codec)


class _Stream:
    """One `Infer` call after its handshake."""

    def __init__(self, worker: FakeWorker, call: FakeCall) -> None:
        self._worker, self._call = worker, call
        self._frames: dict[int, tuple[asyncio.Task[None], pb.Reply, float]] = {}
        self._video: tuple[tuple[int, str], StreamEnd] | None = None

    async def serve(self) -> Status:
        """Until the client leaves, which cancels it."""
        index = 1  # Hello was the first message
        while True:
            message = parse_client(await self._call.arrived())
            index += 1
            kind = message.WhichOneof("kind")
            if kind == "probe":
                echo = pb.ProbeReply(id=message.probe.id, load=self._worker.load)
                self._call.send(pb.ServerMessage(probe=echo).SerializeToString())
            elif kind == "cancel":
                self._cancel(message.cancel.id)
            else:
                self._take(message.frame, index)

    async def close(self) -> None:
        """Nobody waits any more."""
        await cancel_and_wait(*(task for task, _, _ in self._frames.values()))

    def _take(self, frame: pb.Frame, index: int) -> None:
        reply = pb.Reply(id=frame.id, message_index=index)
        try:
            checked = self._with_memory(self._worker.check(frame))
        except FrameError as error:
            self._refuse(reply, error)
            return
        answering = asyncio.create_task(self._answer(checked, reply))
        self._frames[frame.id] = answering, reply, time.perf_counter()

    def _with_memory(self, frame: CheckedFrame) -> CheckedFrame:
        """A frame of a codec for streams builds on those before it."""
        if not isinstance(frame.codec, StreamCodec):
            return frame
        key = (frame.boundary, frame.codec.name)
        if self._video is None or self._video[0] != key:
            self._video = key, frame.codec.new_stream()
        return replace(frame, codec=self._video[1])

    async def _answer(self, frame: CheckedFrame, reply: pb.Reply) -> None:
        begun_s = time.perf_counter()
        try:
            status = await self._worker.script(frame)
            if status is None:
                return
            if status != pb.OK:
                raise FrameError(status, "as the script says")
            reply.outputs.extend(self._worker.finish(frame))
        except FrameError as error:
            self._refuse(reply, error)
            return
        except Exception as error:  # noqa: BLE001 - whatever the test did wrong
            self._call.end((grpc.StatusCode.UNKNOWN, f"the script failed: {error!r}"))
            return
        took_us = int(1e6 * (time.perf_counter() - begun_s))
        self._send(reply, pb.OK, pb.Times(compute_us=took_us, total_us=took_us, batch=frame.batch))

    def _cancel(self, frame_id: int) -> None:
        self._worker.cancelled.append(frame_id)
        if frame_id in self._frames:
            task, reply, came_s = self._frames[frame_id]
            task.cancel()
            had_us = int(1e6 * (time.perf_counter() - came_s))
            self._send(reply, pb.CANCELLED, pb.Times(total_us=had_us))

    def _refuse(self, reply: pb.Reply, error: FrameError) -> None:
        reply.reason = str(error)
        self._send(reply, error.status, pb.Times())

    def _send(self, reply: pb.Reply, status: pb.Status, times: pb.Times) -> None:
        self._frames.pop(reply.id, None)
        reply.status = status
        reply.times.CopyFrom(self._worker.times or times)
        reply.load.CopyFrom(self._worker.load)
        self._call.send(build_reply(reply))
