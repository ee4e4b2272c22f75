"""The service of a run: it asks the agent for others, and shows them what the run does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from splitpoint.edge import EdgeAgent, Result
from splitpoint.edge.figures.run_energy import RunEnergy
from splitpoint.edge.meaning import MIN_SCORE
from splitpoint.edge.sinks.annotated import Drawing
from splitpoint.edge.sources.source import InputFeed
from splitpoint.proto.address import split_address
from splitpoint.proto.tasks import cancel_and_wait

from ..run.result_lines import source_of
from ..shell.output import say
from .bodies import Admission
from .figures import ServiceFigures
from .guard import Guard, token_for
from .pictures import Pictures
from .routes import Routes
from .server import HttpServer, address_of, bound_socket
from .turns import Turns

REQUESTS = "http"  # what the frames of requests are called in the figures


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """Where to listen and who may ask.

    `sources` are what the run's own frames come from: their names, or where there is one without a
    name, what it is. With `keeps_all` the run has a use for every photo. The rest is as it is for
    the run.
    """

    listen: str
    token_file: Path | None = None
    sources: tuple[str, ...] = ()
    budget_ms: float = 10_000.0
    min_score: float = MIN_SCORE
    emulated: bool = False
    keeps_all: bool = False


class HttpService:
    """Has its port from the start, so that one that is in use is an error at once.

    Raises `AgentError` and `AddressError` for what it cannot listen on, or may not.
    """

    def __init__(self, options: ServiceOptions, energy: RunEnergy) -> None:
        self._options, self._energy = options, energy
        split_address(options.listen)  # what is no address is said before what it would need
        self._guard = Guard(token_for(options.listen, options.token_file))
        self._socket = bound_socket(options.listen)
        self.address = address_of(self._socket)
        self._figures: ServiceFigures | None = None
        self._pictures: Pictures | None = None

    def keeps(self, pixels: int) -> bool:
        """Whether a photo of so many pixels is to stay at its frame. Any thread may ask."""
        if self._options.keeps_all:
            return True
        return self._pictures is not None and self._pictures.keeps(pixels)

    def switched(self, why: str) -> None:
        """The plan has changed."""
        if self._figures is not None:
            self._figures.events.say(why)

    def close(self) -> None:
        """Gives the port back, where the run has not come so far as to listen."""
        self._socket.close()

    @asynccontextmanager
    async def serving(
        self, agent: EdgeAgent, results: AsyncGenerator[Result, None]
    ) -> AsyncIterator[AsyncGenerator[Result, None]]:
        """Listens while it is entered. Gives `results`, and in between those of requests."""
        options = self._options
        drawing = Drawing(agent.manifest.task.kind, options.min_score)
        self._pictures = pictures = Pictures(drawing)
        self._figures = figures = ServiceFigures(
            agent, self._energy, budget_ms=options.budget_ms, min_score=options.min_score
        )
        for name in (*options.sources, REQUESTS):
            figures.source(name)
        ended: asyncio.Queue[Result] = asyncio.Queue()
        turns = Turns(agent, InputFeed.of(agent.manifest, self.keeps), ended.put_nowait)
        routes = Routes(
            agent,
            turns,
            guard=self._guard,
            admission=Admission(),
            figures=figures,
            pictures=pictures,
            min_score=options.min_score,
            emulated=options.emulated,
        )
        server = HttpServer(self._socket, routes.answer)
        logger = logging.getLogger("splitpoint")
        logger.addHandler(figures.events)
        joined = self._joined(results, ended, server, turns)
        try:
            await server.start()
            say(f"listening on {self.address} for HTTP")
            async with aclosing(joined):
                yield joined
        finally:
            await server.close()
            await turns.close()
            await pictures.close()
            logger.removeHandler(figures.events)

    async def _joined(
        self,
        results: AsyncGenerator[Result, None],
        ended: asyncio.Queue[Result],
        server: HttpServer,
        turns: Turns,
    ) -> AsyncGenerator[Result, None]:
        """Results of the source until there are no more, then those of the last requests."""
        own = asyncio.ensure_future(_next(results))
        others = asyncio.ensure_future(ended.get())
        try:
            while True:
                await asyncio.wait((own, others), return_when=asyncio.FIRST_COMPLETED)
                if others.done():
                    yield self._seen(REQUESTS, others.result())
                    others = asyncio.ensure_future(ended.get())
                if own.done():
                    result = own.result()
                    if result is None:
                        break
                    yield self._seen(source_of(result) or self._options.sources[0], result)
                    own = asyncio.ensure_future(_next(results))
            await server.close()
            await turns.finish()
            if others.done():
                ended.put_nowait(others.result())
        finally:
            await cancel_and_wait(own, others)
        while not ended.empty():
            yield self._seen(REQUESTS, ended.get_nowait())

    def _seen(self, source: str, result: Result) -> Result:
        assert self._figures is not None
        assert self._pictures is not None
        self._figures.add(source, result)
        self._pictures.add(source, result)
        return result


async def _next(results: AsyncGenerator[Result, None]) -> Result | None:
    """None after the last."""
    return await anext(results, None)
