"""A stream's frames from when they were found good to their answers: decoded, then computed."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from splitpoint.codec import RAW, Array, SpecError, StreamCodec, StreamEnd
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import CheckedFrame, FrameError
from splitpoint.proto.session.worker_session import WorkerSession
from splitpoint.proto.tasks import cancel_and_wait

from ..access.caller import Caller
from ..access.quotas import ClientUse
from ..compute.served_model import ServedModel
from ..compute.values import Values, whole
from ..engine.request import NotTaken, Request
from ..schedule.job import Job
from ..unexpected import Stage
from .answers import LARGE_BYTES, Answers, encoded
from .arrival import Arrival
from .decoders import DecoderDied, Decoding
from .in_place import is_in_place
from .pending import PendingFrames
from .services import StreamServices


class FrameWork:
    """Has each frame answered once; `refused` is told of what fails before an engine has it."""

    def __init__(
        self,
        services: StreamServices,
        model: ServedModel,
        caller: Caller,
        use: ClientUse,
        session: WorkerSession,
        answers: Answers,
        refused: Callable[[Arrival, Exception, Stage], None],
    ) -> None:
        self._services, self._model, self._caller, self._use = services, model, caller, use
        self._session, self._answers, self._refused = session, answers, refused
        self._pending = PendingFrames(services.engine)
        self._tasks: set[asyncio.Task[None]] = set()
        self._video: tuple[tuple[int, str], StreamEnd] | None = None
        self._turn = asyncio.Lock()  # video frames are decoded in the order in which they came

    def cancel(self, frame_id: int) -> None:
        """Nobody waits for that frame any more."""
        self._pending.cancel(frame_id)

    async def close(self) -> None:
        """Nobody waits for anything any more."""
        try:
            await cancel_and_wait(*self._tasks)
        finally:
            self._use.release(self._pending.drop_all())

    def take(self, frame: CheckedFrame, arrival: Arrival) -> None:
        """Begins with a frame; raises `FrameError`, or whatever goes wrong, for one not taken."""
        self._session.take(arrival.index, frame.id)
        digest = self._model.bundle.digest
        if self._services.quarantine.holds(digest, frame.boundary, frame.payloads):
            raise FrameError(pb.INTERNAL, "the same frame broke a batch a moment ago")
        if in_order := isinstance(frame.codec, StreamCodec):
            frame = replace(frame, codec=self._video_stream(frame.boundary, frame.codec))
        if frame.codec is not RAW:
            self._check_room(frame, arrival)
        self._use.hold(frame.nbytes)
        self._pending.add(frame.id, frame.nbytes)
        arrival.read_s = arrival.decode_began_s = time.perf_counter()
        if is_in_place(frame, self._model):
            self._decode_here(frame, arrival)
        else:
            self._begin(self._decode(frame, arrival, in_order))

    def _check_room(self, frame: CheckedFrame, arrival: Arrival) -> None:
        """`FrameError` (OVERLOADED) where decoding would be in vain, or take others' room."""
        decoders = self._services.decoders
        decoders.check(self._caller, _bytes_of(frame))
        self._services.engine.check(self._model, Job(
            model=self._model, boundary=frame.boundary, samples=frame.batch, nbytes=frame.nbytes,
            deadline_s=_deadline_s(arrival, frame), client=self._caller.share,
            decoding_s=decoders.device_s(self._caller), enter_s=self._enter_s(frame),
        ))  # fmt: skip

    def _enter_s(self, frame: CheckedFrame) -> float:
        return self._model.enter_s(frame.boundary, frame.codec.name, frame.batch)

    def _video_stream(self, boundary: int, codec: StreamCodec) -> StreamEnd:
        """The memory of the boundary and codec that this stream uses now; it has one at a time."""
        if self._video is None or self._video[0] != (boundary, codec.name):
            self._video = ((boundary, codec.name), codec.new_stream())
        return self._video[1]

    def _decode_here(self, frame: CheckedFrame, arrival: Arrival) -> None:
        try:
            self._submit(frame, self._read(frame)(), arrival)
        except Exception as error:  # noqa: BLE001 - each is answered
            self._drop(frame.id)
            self._refused(arrival, error, Stage.DECODE)
        except SystemExit as error:
            self._drop(frame.id)
            self._refused(arrival, DecoderDied(repr(error)[:100]), Stage.DECODE)

    def _read(
        self, frame: CheckedFrame, in_vain: Callable[[], FrameError | None] | None = None
    ) -> Callable[[], Values]:
        """Decodes it; `FrameError` also for an index that is out of range: see `Indexes`.

        With `in_vain` it goes as far as later frames need it, and on only where that says nothing.
        """
        model = self._model

        def read() -> Values:
            values: Values = frame.packed() if model.unpacks or in_vain else frame.decode()
            if in_vain is not None:
                if (why := in_vain()) is not None:
                    raise why
                if not model.unpacks:
                    values = {name: whole(value) for name, value in values.items()}
            try:
                model.indexes.check(frame.boundary, values)
            except SpecError as error:
                raise FrameError(pb.MISMATCH, str(error)) from error
            return values

        return read

    async def _decode(self, frame: CheckedFrame, arrival: Arrival, in_order: bool) -> None:
        try:
            decoding = self._decoding(frame, arrival, in_order)
            async with self._turn if in_order else contextlib.nullcontext():
                values = await self._services.decoders.run(decoding)
            self._submit(frame, values, arrival)
        except Exception as error:  # noqa: BLE001 - each is answered
            self._drop(frame.id)
            self._refused(arrival, error, Stage.DECODE)

    def _decoding(self, frame: CheckedFrame, arrival: Arrival, in_order: bool) -> Decoding:
        device_s = self._services.engine.alone_s(self._model, frame.boundary, frame.batch)
        device_s += self._enter_s(frame)
        deadline_s = _deadline_s(arrival, frame)
        decode_s = self._model.decode_s(frame.boundary, frame.codec.name, frame.batch)

        def in_vain() -> FrameError | None:
            if self._session.is_cancelled(frame.id):
                return FrameError(pb.CANCELLED, "cancelled by its sender")
            now_s = time.perf_counter()
            decoded_s = now_s + decode_s
            if in_order:  # asked in the middle of it, when what takes long may be over
                decoded_s = max(now_s, arrival.decode_began_s + decode_s)
            if decoded_s + device_s > deadline_s:
                return FrameError(pb.EXPIRED, "its budget would run out before it is done")
            return None

        # Those behind a stream's frame build on it, whether anybody waits for it or not.
        read = self._read(frame, in_vain if in_order else None)

        def decode() -> Values:
            arrival.decode_began_s = time.perf_counter()
            return read()

        return Decoding(
            caller=self._caller,
            nbytes=_bytes_of(frame),
            device_s=device_s,
            in_vain=(lambda: None) if in_order else in_vain,
            decode=decode,
        )

    def _submit(self, frame: CheckedFrame, values: Values, arrival: Arrival) -> None:
        arrival.decoded_s = time.perf_counter()
        digest, quarantine = self._model.bundle.digest, self._services.quarantine

        def answer(job: Request, result: dict[str, Array] | FrameError) -> None:
            if arrival.is_answered:
                return
            if isinstance(result, NotTaken):
                self._drop(frame.id)
                self._refused(arrival, result, Stage.DECODE)
            elif isinstance(result, FrameError):
                self._give(arrival, result, job)
            elif sum(output.nbytes for output in result.values()) <= LARGE_BYTES:
                self._give(arrival, encoded(job.model, result), job)
            else:
                self._begin(self._encode(arrival, result, job))

        job = Request(
            model=arrival.model,
            boundary=frame.boundary,
            samples=frame.batch,
            deadline_s=_deadline_s(arrival, frame),
            client=self._caller.share,
            nbytes=frame.nbytes,
            values=values,
            enter_s=self._enter_s(frame),
            answer=answer,
            broke=lambda: quarantine.add(digest, frame.boundary, frame.payloads),
        )
        job.cancelled = self._session.is_cancelled(frame.id)
        try:
            self._services.engine.submit(job)
        except BaseException:
            self._services.engine.cancel(job)  # it may have been queued before that went wrong
            raise
        self._pending.queued(frame.id, job)

    async def _encode(self, arrival: Arrival, outputs: dict[str, Array], job: Request) -> None:
        """Answers with outputs that take long to encode: the frame holds its bytes until then."""
        result: Sequence[pb.Tensor] | Exception
        try:
            result = await asyncio.to_thread(encoded, job.model, outputs)
        except Exception as error:  # noqa: BLE001 - there is no thread for it, and it is told
            result = error
        self._give(arrival, result, job)

    def _give(
        self, arrival: Arrival, result: Sequence[pb.Tensor] | Exception, job: Request
    ) -> None:
        self._drop(arrival.frame_id)
        self._answers.give(arrival, result, job)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _drop(self, frame_id: int) -> None:
        self._use.release(self._pending.drop(frame_id))


def _bytes_of(frame: CheckedFrame) -> int:
    """What a frame holds while it waits to be decoded, and then decoded."""
    return sum(map(len, frame.payloads)) + frame.nbytes


def _deadline_s(arrival: Arrival, frame: CheckedFrame) -> float:
    """When the frame's budget ends; infinite without one."""
    return arrival.arrived_s + frame.budget_ms / 1e3 if frame.budget_ms else math.inf
