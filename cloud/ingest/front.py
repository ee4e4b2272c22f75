"""What an ingest process is made of: a gRPC server, the service, and the engine from afar."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from splitpoint.codec import SplitpointError
from splitpoint.proto.tasks import cancel_and_wait

from ..between.counts import ToldCounts
from ..between.messages import Kind
from ..between.offers import open_offer, take_times
from ..between.pipe import Handlers, Pipe, json_fields
from ..between.setup import Setup
from ..between.shared_memory import SharedMemory
from ..compute.served_model import ServedModel
from ..engine.quarantine import Quarantine
from ..figures import Figures
from ..frames.decoders import Decoders
from ..frames.services import StreamServices
from ..wire.health import Health
from ..wire.listen import LAST_ANSWERS_S, listen_at, new_server
from ..wire.service import SplitService
from ..wire.stream_rows import stream_rows
from .remote_engine import RemoteEngine
from .remote_places import DOWNLOADS, STREAMS, PlaceQuestions, RemotePlaces

if TYPE_CHECKING:
    from ..frames.tracing import FrameTraces

log = logging.getLogger("splitpoint.cloud")

TELL_S = 1.0  # what was counted, unasked: so much is lost of it with the process


class IngestFront:
    """Made from the setup; does what the engine's process says until that says STOP."""

    def __init__(self, setup: Setup, pipe: Pipe, memory: SharedMemory) -> None:
        self._setup, self._pipe = setup, pipe
        figures = Figures()
        self._engine = RemoteEngine(pipe, memory, figures.unexpected)
        self._places = PlaceQuestions(pipe)
        self._models: dict[str, ServedModel] = {}
        self._by_number: dict[int, ServedModel] = {}
        self._services = StreamServices(
            models=self._models,
            engine=self._engine,
            decoders=Decoders(setup.decoders, setup.max_decoding_bytes),
            figures=figures,
            limits=setup.limits,
            traces=_traces(setup.traces),
            quarantine=Quarantine(tell=lambda digest: pipe.send(Kind.QUARANTINE, digest)),
        )
        self._told, self._health = ToldCounts(figures), Health()
        streams, downloads = (RemotePlaces(self._places, what) for what in (STREAMS, DOWNLOADS))
        self._service = SplitService(
            self._services, setup.device, setup.proofs.access(), streams, downloads
        )
        self._server = new_server(
            (self._service.handler(), self._health.handler()),
            setup.most_frame_bytes,
            setup.limits.max_streams_per_client,
            reflection=setup.reflection,
            shares_port=True,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self.stopped = asyncio.Event()

    @property
    def handlers(self) -> Handlers:
        """By what they are told."""
        return {
            Kind.OFFER: lambda data: self._begin(self._offer(json_fields(data))),
            Kind.TIMES: self._take_times,
            Kind.WITHDRAW: lambda data: self._begin(self._withdraw(json_fields(data))),
            Kind.OPEN: self._open,
            Kind.HEALTH: self._tell_health,
            Kind.DRAIN: lambda data: self._begin(self._drain(json_fields(data))),
            Kind.STOP: lambda data: self.stopped.set(),
            Kind.COUNT: lambda data: self._count(json_fields(data)["question"]),
            Kind.PLACE: self._places.take_answer,
            Kind.LOADS: self._engine.take_loads,
            Kind.ANSWER: self._engine.take_answer,
            Kind.BROKE: self._engine.take_broke,
            Kind.QUARANTINE: self._services.quarantine.hold,
        }

    async def run(self) -> None:
        """Listens, and returns when it was told to stop. Raises `ServeError`."""
        setup = self._setup
        listen_at(self._server, setup.listen, setup.proofs.server_credentials())
        await self._server.start()
        self._pipe.say(Kind.READY, error=None)
        telling = asyncio.create_task(self._tell_counts())
        await self.stopped.wait()
        await cancel_and_wait(telling, *self._tasks)
        self._health.stop()
        await self._server.stop(LAST_ANSWERS_S)
        self._services.decoders.shutdown()
        if self._services.traces is not None:
            await asyncio.to_thread(self._services.traces.close)
        self._count(0)
        self._pipe.close()

    # What it is told. -----------------------------------------------------------------------

    async def _offer(self, told: dict[str, Any]) -> None:
        number, error = told["number"], None
        try:
            model = await asyncio.to_thread(open_offer, told)
        except SplitpointError as refused:
            error = str(refused)
        else:
            self._engine.know(number, model)
            self._by_number[number] = self._models[model.bundle.digest] = model
            self._services.figures.of(model)
        self._pipe.say(Kind.OFFERED, number=number, error=error)

    def _take_times(self, data: bytes) -> None:
        told = json_fields(data)
        if (model := self._by_number.get(told["number"])) is not None:
            take_times(model, told["times"])

    async def _withdraw(self, told: dict[str, Any]) -> None:
        model = self._by_number.pop(told["number"], None)
        if model is not None:
            del self._models[model.bundle.digest]
            await self._service.withdraw(model, told["grace_s"])
            self._engine.forget(told["number"])
            self._count(0)
            self._services.figures.forget(model.bundle.digest)
        self._pipe.say(Kind.WITHDRAWN, number=told["number"])

    def _open(self, _: bytes) -> None:
        self._service.open = True

    def _tell_health(self, data: bytes) -> None:
        told = json_fields(data)
        if told["stopped"]:
            self._health.stop()
        else:
            self._health.set(serving=told["serving"])

    async def _drain(self, told: dict[str, Any]) -> None:
        self._health.stop()
        await self._service.drain(told["grace_s"])
        self._pipe.say(Kind.DRAINED)

    # What it tells. -------------------------------------------------------------------------

    def _count(self, question: int) -> None:
        """The answer to a question, or 0 to none."""
        rows = stream_rows(self._service.streams) if question else []
        self._pipe.say(Kind.COUNTED, question=question, news=self._told.news(), streams=rows)

    async def _tell_counts(self) -> None:
        while True:
            await asyncio.sleep(TELL_S)
            self._count(0)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an ingest process cannot go on", exc_info=error)
            self._pipe.abort(error if isinstance(error, Exception) else None)


def _traces(endpoint: str) -> FrameTraces | None:
    if not endpoint:
        return None
    from ..frames.tracing import otlp_traces  # the extra otel

    return otlp_traces(endpoint)
