"""All ingest processes of a worker: kept alive, told the same, and ended together."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from splitpoint.proto.backoff import Backoff
from splitpoint.proto.tasks import cancel_and_wait, start_task, within

from ..backend import Backend
from ..between.counts import HeardCounts
from ..between.layout import Layouts
from ..between.messages import Kind, pack_loads
from ..between.offers import offer_of, times_of
from ..between.setup import Setup
from ..between.shared_memory import SharedMemory
from ..compute.served_model import ServedModel
from ..errors import ServeError
from ..frames.answers import load_of
from .desk import Desk, PlacesOfOne
from .ingest_process import IngestEnded, IngestProcess
from .requests import OfferedModel, Requests

log = logging.getLogger("splitpoint.cloud")

LOADS_S = 0.05  # how often the load is told, where it has changed
COUNT_S = 1.0  # what figures wait for at most
SILENT_S = 30.0  # one that has told nothing for so long does not come back
MOST_SILENT_S = 1.0  # of that, between two looks: where this process stood still, so did the others
END_S = 4.0  # for one that was told to stop
START_S = 120.0  # imports from slow storage take long, and what hangs is started again
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
LONG_LIFE_S = 10.0  # one that lived so long is started again at once


class IngestProcesses:
    """`count` of them. See `Front`; entering `running` starts them."""

    def __init__(
        self, count: int, setup: Setup, backend: Backend, desk: Desk, memory_bytes: int
    ) -> None:
        self._setup, self._backend, self._desk = setup, backend, desk
        self._memory_bytes = memory_bytes
        self._running: dict[int, IngestProcess] = {}
        self._count = count
        self._offers: dict[int, OfferedModel] = {}
        self._leaving: set[int] = set()  # of these, what a newcomer need not know any more
        self._numbers = itertools.count(1)
        self._told_times: dict[int, object] = {}
        self._told_loads: dict[int, bytes] = {}
        self._health = {"serving": False, "stopped": False}
        self._open, self._ending = False, False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Starts them, and returns when all listen; leaving it ends them.

        Raises `ServeError` where one cannot be started.
        """
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._start_all()
            for number in range(self._count):
                tasks.append(start_task(self._keep(number), f"ingest-{number}", log))
            tasks.append(start_task(self._tell(), "tell-ingest", log))
            yield
        finally:
            self._ending = True
            try:
                await cancel_and_wait(*tasks)
            finally:
                await self._stop_all()

    @property
    def pids(self) -> list[int]:
        """Of those that run."""
        return [process.pid for process in self._running.values()]

    # What a front does. ---------------------------------------------------------------------

    async def offer(self, model: ServedModel) -> None:
        """All serve the model from now on. Raises `ServeError` where one cannot open it."""
        number, layouts = next(self._numbers), Layouts(model)
        if layouts.largest > self._memory_bytes:
            name = model.bundle.manifest.name
            raise ServeError(
                f"a frame of {name} with its answer takes up to {layouts.largest >> 20} MB, and an "
                f"ingest process has {self._memory_bytes >> 20} MB",
                "give more with --max-queued-mb, or have fewer with --ingest",
            )
        self._offers[number] = OfferedModel(model, layouts)
        self._told_times[number] = model.times
        try:
            await self._all(lambda process: process.offer(number, offer_of(model)))
        except ServeError:
            await self._withdraw(number, 0.0)
            raise

    async def withdraw(self, model: ServedModel, grace_s: float) -> None:
        """None serves it any more, and what was taken of it is answered."""
        await self._withdraw(
            next(n for n, offer in self._offers.items() if offer.model is model), grace_s
        )

    async def _withdraw(self, number: int, grace_s: float) -> None:
        self._leaving.add(number)
        await self._all(lambda process: process.withdraw(number, grace_s))
        self._leaving.discard(number)
        del self._offers[number], self._told_times[number]
        self._told_loads.pop(number, None)

    async def drain(self, grace_s: float) -> None:
        """Nothing new is taken; returns when what was taken is answered, or is not in time."""
        self._ending, self._open = True, False  # who is being started lets nobody in
        self._backend.service.services.draining.worker = True
        await self._all(lambda process: process.drain(grace_s))

    async def count(self) -> list[dict[str, Any]]:
        """The open streams of all; the figures are up to date by then, but for who is silent."""
        found: list[dict[str, Any]] = []

        async def ask(process: IngestProcess) -> None:
            try:
                found.extend(await within(COUNT_S, process.count()))
            except asyncio.TimeoutError:
                log.warning("an ingest process does not tell what it counted")

        await self._all(ask)
        return sorted(found, key=lambda row: str(row["client"]))

    def open(self) -> None:
        """Clients are let in."""
        self._open = True
        self._let_in()
        self._say(Kind.OPEN)

    def tell_health(self, *, serving: bool) -> None:
        """Whoever asks for the health is told this."""
        self._health["serving"] = serving
        self._say(Kind.HEALTH, **self._health)

    def stop_health(self) -> None:
        """NOT_SERVING from now on."""
        self._health["stopped"] = True
        self._say(Kind.HEALTH, **self._health)

    # Their lives. ---------------------------------------------------------------------------

    async def _start_all(self) -> None:
        starting = [asyncio.create_task(self._start(n)) for n in range(self._count)]
        try:
            await asyncio.gather(*starting)
        except BaseException:
            await cancel_and_wait(*starting)
            raise

    async def _start(self, number: int) -> None:
        """Returns when it listens and knows what all know. Raises `ServeError`, `OSError`."""
        services = self._backend.service.services
        memory = SharedMemory.create(self._memory_bytes)
        process = IngestProcess(
            memory,
            Requests(self._backend.engine, self._offers, self._desk, services.figures, memory),
            PlacesOfOne(self._desk),
            HeardCounts(services.figures),
            lambda digest: self._quarantined(process, digest),
        )
        try:
            await within(START_S, self._make_ready(number, process))
        except BaseException as error:
            self._running.pop(number, None)
            process.kill("it was not ready")
            await process.wait(END_S)
            memory.close()
            if isinstance(error, asyncio.TimeoutError):
                raise ServeError(f"an ingest process was not ready in {START_S:g} s") from error
            raise

    async def _make_ready(self, number: int, process: IngestProcess) -> None:
        await process.start(self._setup.to_json())
        await self._offer_all(process)
        self._running[number] = process  # it is told from here on what all are
        process.send(Kind.LOADS, pack_loads(self._told_loads))
        process.say(Kind.HEALTH, **self._health)
        if self._open:
            self._let_in()
            process.say(Kind.OPEN)

    async def _offer_all(self, process: IngestProcess) -> None:
        """It knows the models that there are now; they may change while it is told."""
        offered: set[int] = set()
        while changed := offered ^ (self._offers.keys() - self._leaving):
            number = min(changed)
            if number in offered:
                offered.discard(number)
                await process.withdraw(number, 0.0)
                continue
            offered.add(number)
            offer = self._offers[number]
            try:
                await process.offer(number, offer_of(offer.model))
            except IngestEnded:
                raise
            except ServeError as error:
                log.error("%s is not served by all: %s", offer.model.bundle.folder, error)

    def _let_in(self) -> None:
        """Where none listens, nobody is served."""
        self._backend.service.open = self._open and bool(self._running)

    async def _keep(self, number: int) -> None:
        """Starts it again and again."""
        pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            began_s, process = time.monotonic(), self._running[number]
            await process.gone.wait()
            del self._running[number]
            self._let_in()
            await process.wait(END_S)
            if self._ending:
                return
            log.error(
                "an ingest process has ended (%s) and is started again; its clients connect anew",
                process.end,
            )
            self._backend.service.services.figures.ingest_restarts += 1
            if time.monotonic() - began_s > LONG_LIFE_S:
                pauses.reset()
            while number not in self._running:
                await asyncio.sleep(pauses.next_s())
                try:
                    await self._start(number)
                except (ServeError, OSError) as error:
                    log.error("an ingest process cannot be started: %s", error)

    async def _stop_all(self) -> None:
        self._say(Kind.STOP)
        await asyncio.gather(*(process.wait(END_S) for process in self._running.values()))
        self._running.clear()

    async def _all(self, work: Callable[[IngestProcess], Any]) -> None:
        """Does `work` with each, and raises what one raises; one that ends meanwhile is no loss."""
        running = list(self._running.values())
        done = await asyncio.gather(*map(work, running), return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException) and not isinstance(error, IngestEnded):
                raise error

    # What they are told. --------------------------------------------------------------------

    def _say(self, kind: Kind, **fields: Any) -> None:
        for process in self._running.values():
            process.say(kind, **fields)

    async def _tell(self) -> None:
        looked_s = time.monotonic()
        while True:
            await asyncio.sleep(LOADS_S)
            self._tell_times()
            self._tell_loads()
            before_s, looked_s = looked_s, time.monotonic()
            for process in list(self._running.values()):
                process.silent_s += min(looked_s - before_s, MOST_SILENT_S)
                if process.silent_s > SILENT_S:
                    process.give_up()

    def _tell_times(self) -> None:
        for number, offer in self._offers.items():
            if self._told_times[number] is not offer.model.times:
                self._told_times[number] = offer.model.times
                self._say(Kind.TIMES, number=number, times=times_of(offer.model))

    def _tell_loads(self) -> None:
        """As a newcomer has it: who takes much is told more with each answer."""
        engine, figures = self._backend.engine, self._backend.service.services.figures
        told = {}
        for number, offer in self._offers.items():
            load = load_of(engine, offer.model, "", figures)
            if load is not None:
                told[number] = load.SerializeToString()
        if told == self._told_loads:
            return
        self._told_loads = told
        for process in self._running.values():
            process.send(Kind.LOADS, pack_loads(told), may_wait=True)

    def _quarantined(self, origin: IngestProcess, digest: bytes) -> None:
        self._backend.service.services.quarantine.hold(digest)
        for process in self._running.values():
            if process is not origin:
                process.send(Kind.QUARANTINE, digest)
