"""The engine as an ingest process has it: requests go to another process, and answers come back.

Their tensors lie in shared memory of a fixed size, where each has a piece from when it is submitted
until its answer was read. Where there is none, a frame is refused as by an engine that is full.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import cast

from splitpoint.codec import Array
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError

from ..between.layout import FrameLayout, Layouts, read_outputs, write
from ..between.messages import NUMBER, Kind, Settled, Submitted, read_loads
from ..between.pipe import Pipe
from ..between.shared_memory import SharedMemory
from ..between.slab import Slab, SlabFull
from ..compute.served_model import ServedModel
from ..engine.request import NotTaken, Request
from ..schedule.job import Job
from ..unexpected import Stage, Unexpected

# How old what was said of the load may be: to a client with its last answer, to go by it before
# what all are told; and to refuse a frame for it before it is decoded.
OWN_S, SURE_S = 0.25, 0.1
MOST_REMEMBERED = 4096  # clients


@dataclass(frozen=True, slots=True)
class _Model:
    number: int
    layouts: Layouts


@dataclass(frozen=True, slots=True)
class _Submitted:
    """A request whose tensors lie at `offset`, in a piece of `room` bytes."""

    request: Request
    layout: FrameLayout
    offset: int
    room: int


class RemoteEngine:
    """See `Computing`. `memory` is this process's to share out."""

    def __init__(self, pipe: Pipe, memory: SharedMemory, unexpected: Unexpected) -> None:
        self._pipe, self._memory, self._slab = pipe, memory, Slab(memory.size)
        self._unexpected = unexpected
        self._models: dict[ServedModel, _Model] = {}
        self._by_number: dict[int, ServedModel] = {}
        self._numbers = itertools.count(1)
        self._submitted: dict[int, _Submitted] = {}
        self._number_of: dict[Request, int] = {}
        self._told: dict[int, tuple[float, pb.Load]] = {}  # to everybody, by the model's number
        self._own: dict[tuple[int, str], tuple[float, pb.Load]] = {}  # to one client

    def know(self, number: int, model: ServedModel) -> None:
        """The engine computes this model from now on, by that number."""
        self._models[model], self._by_number[number] = _Model(number, Layouts(model)), model

    def forget(self, number: int) -> None:
        """It does so no more."""
        model = self._by_number.pop(number, None)
        if model is not None:
            del self._models[model]
        self._told.pop(number, None)
        for key in [key for key in self._own if key[0] == number]:
            del self._own[key]

    # What a front asks. ---------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """See `Computing`. The engine may still refuse it: then it is answered so."""
        model = self._models.get(request.model)
        if model is None:
            raise FrameError(pb.STOPPING, "the model is not served any more")
        forms = model.layouts.forms_of(request.boundary, request.values)
        layout = model.layouts.of(request.boundary, request.samples, forms)
        try:
            offset, room = self._slab.take(layout.nbytes)
        except SlabFull:
            waiting = f"{self._slab.used / 1e6:.0f} MB of frames wait already"
            raise FrameError(pb.OVERLOADED, waiting) from None
        try:
            specs = request.model.boundaries[request.boundary]
            write(self._memory, offset, layout, specs, request.values)
            number = next(self._numbers)
            told = Submitted(
                number, model.number, request.boundary, request.samples, request.deadline_s,
                offset, room, request.client, forms,
            ).packed()  # fmt: skip
        except BaseException:
            self._slab.give_back(offset, room)
            raise
        request.values = {}  # they are there now
        self._submitted[number] = _Submitted(request, layout, offset, room)
        self._number_of[request] = number
        self._pipe.send(Kind.SUBMIT, told)
        if request.cancelled:
            self.cancel(request)

    def cancel(self, request: Request) -> None:
        """See `Computing`."""
        request.cancelled = True
        number = self._number_of.get(request)
        if number is not None:
            self._pipe.send(Kind.CANCEL, NUMBER.pack(number))

    def check(self, model: ServedModel, job: Job) -> None:
        """See `Computing`: by what was said a moment ago, if it was."""
        known = self._newest(model, job.client)
        now_s = time.perf_counter()
        if known is None or now_s - known[0] > SURE_S:
            return
        load = known[1]
        if not load.wait_ms:
            raise FrameError(pb.OVERLOADED, "nothing can be computed here at the moment")
        wait_s = load.wait_ms[job.boundary] / 1e3
        takes_s = self.alone_s(model, job.boundary, job.samples)
        if now_s + wait_s + takes_s > job.deadline_s:
            raise FrameError(pb.OVERLOADED, f"it would wait {1e3 * wait_s:.0f} ms, too long")

    def alone_s(self, model: ServedModel, boundary: int, samples: int) -> float:
        """See `Computing`."""
        known = self._newest(model, "")
        slowdown = known[1].slowdown if known is not None else 1.0
        return model.batch_times.suffix_s(boundary, samples) * slowdown

    def load(self, model: ServedModel | None = None, client: str | None = None) -> pb.Load:
        """See `Computing`: what was said last to this client, or lately to everybody."""
        known = None if model is None else self._newest(model, client or "")
        return pb.Load() if known is None else known[1]

    def _newest(self, model: ServedModel, client: str) -> tuple[float, pb.Load] | None:
        known = self._models.get(model)
        if known is None:
            return None
        own = self._own.get((known.number, client))
        told = self._told.get(known.number)
        if own is not None and (told is None or told[0] - own[0] < OWN_S):
            return own
        return told

    # What the engine's process says. --------------------------------------------------------

    def take_loads(self, data: bytes) -> None:
        """How busy it is."""
        now_s = time.perf_counter()
        for number, load in read_loads(data).items():
            self._told[number] = now_s, pb.Load.FromString(load)

    def take_broke(self, data: bytes) -> None:
        """A request broke its batch; its answer follows, or has come where nobody waited longer."""
        (number,) = NUMBER.unpack(data)
        found = self._submitted.get(number)
        if found is None:
            return
        request = found.request
        try:
            request.broke()
        except Exception as error:  # noqa: BLE001 - noted; it costs the frame no answer
            self._unexpected.caught(Stage.ANSWER, error, model=request.model.bundle.manifest.name)

    def take_answer(self, data: bytes) -> None:
        """Gives a request its answer, and its piece of memory back."""
        told = Settled.read(data)
        found = self._submitted.pop(told.number)
        request = found.request
        del self._number_of[request]
        result: dict[str, Array] | FrameError
        if told.status:
            kind = FrameError if told.taken else NotTaken
            result = kind(cast(pb.Status, told.status), told.reason)
        else:
            specs = request.model.form.specs
            result = read_outputs(self._memory, found.offset, found.layout, specs)
        self._slab.give_back(found.offset, found.room)
        request.queued_s, request.started_s = told.queued_s, told.started_s
        request.finished_s, request.batch_computed = told.finished_s, told.batch
        if told.load:
            self._remember(request, pb.Load.FromString(told.load))
        try:
            request.answer(request, result)
        except Exception as error:  # noqa: BLE001 - noted; the others' answers follow
            self._unexpected.caught(Stage.ANSWER, error, model=request.model.bundle.manifest.name)

    def _remember(self, request: Request, load: pb.Load) -> None:
        known = self._models.get(request.model)
        if known is not None:
            if len(self._own) >= MOST_REMEMBERED:
                self._own.clear()
            self._own[known.number, request.client] = time.perf_counter(), load
