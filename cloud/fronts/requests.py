"""The frames of one ingest process in the engine's: read from shared memory, answered there."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from splitpoint.codec import Array
from splitpoint.codec.codec_set import LEARNED
from splitpoint.codec.learned import PackedLearned
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError

from ..access.quotas import ClientUse
from ..between.layout import ALIGNED, FrameLayout, LayoutError, Layouts, write_outputs
from ..between.messages import NUMBER, Kind, MessageError, Settled, Submitted
from ..between.pipe import Pipe
from ..between.shared_memory import SharedMemory
from ..compute.served_model import ServedModel
from ..compute.values import Values
from ..engine.engines import Engines
from ..engine.request import Request
from ..figures import Figures
from ..frames.answers import load_of
from ..unexpected import Stage
from .desk import Desk

LOAD_EVERY_S = 0.02  # is a client's load told: working it out takes as long as taking a frame
MOST_REMEMBERED = 4096  # clients


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A model that ingest processes know by a number."""

    model: ServedModel
    layouts: Layouts


@dataclass(eq=False, kw_only=True)
class RemoteRequest(Request):
    """`number` is that of its ingest process, and `held` who pays for its bytes, if anybody."""

    number: int
    offset: int
    layout: FrameLayout
    held: ClientUse | None = None


def _enter_s(model: ServedModel, told: Submitted, values: Values) -> float:
    """See `Job`, by what the frame was found to hold."""
    levels = [value.level for value in values.values() if isinstance(value, PackedLearned)]
    return sum(model.enter_s(told.boundary, f"{LEARNED}@{level}", told.samples) for level in levels)


class Requests:
    """Takes what one ingest process submits. `offers` are the models by number."""

    def __init__(
        self,
        engine: Engines,
        offers: dict[int, OfferedModel],
        desk: Desk,
        figures: Figures,
        memory: SharedMemory,
    ) -> None:
        self._engine, self._offers, self._desk = engine, offers, desk
        self._figures, self._memory = figures, memory
        self._unanswered: dict[int, RemoteRequest] = {}
        self._told_s: dict[tuple[str, str], float] = {}
        self.pipe: Pipe | None = None  # until it is there nothing comes

    def submit(self, data: bytes) -> None:
        """Takes a frame. Raises `MessageError` or `LayoutError` for what no process may say."""
        told = Submitted.read(data)
        if told.number in self._unanswered:
            raise MessageError(f"frame {told.number} is there already")
        offer = self._offers.get(told.model)
        if offer is None:  # it was withdrawn while this was on its way
            self._refuse(told.number, FrameError(pb.STOPPING, "the model is not served any more"))
            return
        layout = offer.layouts.of(told.boundary, told.samples, told.forms)
        end = told.offset + told.room
        if layout.nbytes > told.room or end > self._memory.size or told.offset % ALIGNED:
            raise MessageError("a frame lies outside of its memory")
        values = offer.layouts.read(self._memory, told.offset, told.boundary, layout)
        request = RemoteRequest(
            model=offer.model,
            boundary=told.boundary,
            samples=told.samples,
            enter_s=_enter_s(offer.model, told, values),
            deadline_s=told.deadline_s,
            client=told.share,
            nbytes=layout.tensor_bytes,
            values=values,
            answer=self._answer,
            broke=lambda: self._broke(told.number),
            number=told.number,
            offset=told.offset,
            layout=layout,
        )
        try:
            self._hold(request)
            self._unanswered[request.number] = request
            self._engine.submit(request)
        except Exception as error:  # noqa: BLE001 - its own frame answers for it
            self._forget(request)
            request.cancelled = request.is_answered = True  # it may have been queued before that
            if not isinstance(error, FrameError):
                error = self._figures.unexpected.caught(Stage.RECEIVE, error, client=told.share)
            self._refuse(request.number, error, offer.model, request.client)

    def cancel(self, data: bytes) -> None:
        """Nobody waits for a frame any more."""
        request = self._unanswered.get(NUMBER.unpack(data)[0])
        if request is not None:
            self._engine.cancel(request)

    def end(self) -> None:
        """The process has ended: nobody waits for any of its frames."""
        self.pipe = None
        for request in list(self._unanswered.values()):
            self._engine.cancel(request)

    def _hold(self, request: RemoteRequest) -> None:
        """`FrameError` (OVERLOADED) where it is too much for its client."""
        use = self._desk.named.get(request.client)
        if use is not None:
            use.request()
            use.hold(request.nbytes)
            request.held = use

    def _forget(self, request: RemoteRequest) -> None:
        self._unanswered.pop(request.number, None)
        if request.held is not None:
            request.held.release(request.nbytes)
            request.held = None

    def _broke(self, number: int) -> None:
        """From the compute thread, too."""
        pipe = self.pipe
        if pipe is not None:
            pipe.loop.call_soon_threadsafe(pipe.send, Kind.BROKE, NUMBER.pack(number))

    def _answer(self, request: Request, result: dict[str, Array] | FrameError) -> None:
        assert isinstance(request, RemoteRequest)
        self._forget(request)
        if self.pipe is None:
            return
        if not isinstance(result, FrameError):
            try:
                specs = request.model.form.specs
                write_outputs(self._memory, request.offset, request.layout, specs, result)
            except LayoutError as error:
                result = FrameError(pb.INTERNAL, f"the outputs do not fit the bundle ({error})")
            except Exception as error:  # noqa: BLE001 - noted, and answered: its memory waits for that
                result = self._figures.unexpected.caught(Stage.ANSWER, error, client=request.client)
        status, reason = 0, ""
        if isinstance(result, FrameError):
            status, reason = int(result.status), str(result)
        told = Settled(
            request.number, status, request.queued_s, request.started_s, request.finished_s,
            request.batch_computed, True, reason, self._load(request.model, request.client),
        )  # fmt: skip
        self.pipe.send(Kind.ANSWER, told.packed())

    def _refuse(
        self, number: int, error: FrameError, model: ServedModel | None = None, client: str = ""
    ) -> None:
        if self.pipe is not None:
            load = b"" if model is None else self._load(model, client)
            told = Settled(number, int(error.status), taken=False, reason=str(error), load=load)
            self.pipe.send(Kind.ANSWER, told.packed())

    def _load(self, model: ServedModel, client: str) -> bytes:
        """Nothing where it was told to the client a moment ago: its process remembers that."""
        now_s, key = time.perf_counter(), (model.bundle.digest, client)
        if now_s - self._told_s.get(key, -math.inf) < LOAD_EVERY_S:
            return b""
        if len(self._told_s) >= MOST_REMEMBERED:
            self._told_s.clear()
        self._told_s[key] = now_s
        load = load_of(self._engine, model, client, self._figures)
        return b"" if load is None else load.SerializeToString()
