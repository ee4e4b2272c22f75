"""One ingest process as its engine's process has it: started, told things, and gone some day."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from splitpoint.proto.tasks import within

from ..between.counts import HeardCounts
from ..between.messages import LOG_FIELDS, MOST_LOGGED, Kind, MessageError
from ..between.pipe import Pipe, json_fields
from ..between.shared_memory import SharedMemory
from ..errors import ServeError
from .desk import PlacesOfOne
from .requests import Requests

log = logging.getLogger("splitpoint.cloud")

# What it runs; a process of its own from the first instruction on, and nothing of this one's. It
# imports from where this one does: Python itself would look in the current folder first.
_MAIN = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from splitpoint.cloud.ingest import process; process.run_ingest_process()"
)
_LOGGERS = ("splitpoint", "grpc", "asyncio")
LATE_S = 2.0  # for what has to be done by a certain time


class IngestEnded(ServeError):
    """An ingest process went away before it had done what it was asked for."""


class IngestProcess:
    """`requests`, `places` and `heard` are this process's part of what all share.

    Everything that it was asked and has not answered fails with `IngestEnded` once it is `gone`.
    """

    def __init__(
        self,
        memory: SharedMemory,
        requests: Requests,
        places: PlacesOfOne,
        heard: HeardCounts,
        quarantined: Callable[[bytes], None],
    ) -> None:
        self._memory, self._requests, self._places = memory, requests, places
        self._heard, self._quarantined = heard, quarantined
        self._process: asyncio.subprocess.Process | None = None
        self._asked: dict[tuple[Kind, int], asyncio.Future[dict[str, Any]]] = {}
        self._questions = itertools.count(1)
        self._why = ""  # it went, as far as this side knows
        self.gone = asyncio.Event()
        self.silent_s = 0.0  # for so long it has told nothing, as who waits for it counts

    async def start(self, setup: dict[str, Any]) -> None:
        """Returns once it listens. Raises `ServeError` where it cannot, or ends before."""
        ours, theirs = socket.socketpair()
        with theirs:
            fds = (theirs.fileno(), self._memory.fd)
            try:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, *_warning_options(), "-c", _MAIN, *map(str, fds), *sys.path,
                    stdin=asyncio.subprocess.DEVNULL, pass_fds=fds, start_new_session=True,
                )  # fmt: skip
            except BaseException:
                ours.close()  # which ends it, where it has begun
                raise
        handlers = {
            Kind.READY: lambda data: self._answered(Kind.READY, 0, data),
            Kind.OFFERED: lambda data: self._of_model(Kind.OFFERED, data),
            Kind.WITHDRAWN: lambda data: self._of_model(Kind.WITHDRAWN, data),
            Kind.DRAINED: lambda data: self._answered(Kind.DRAINED, 0, data),
            Kind.COUNTED: self._counted,
            Kind.TAKE: lambda data: self.say(Kind.PLACE, **self._places.take(json_fields(data))),
            Kind.LEAVE: lambda data: self._places.leave(json_fields(data)),
            Kind.LOG: _log,
            Kind.SUBMIT: self._requests.submit,
            Kind.CANCEL: self._requests.cancel,
            Kind.QUARANTINE: self._quarantined,
        }
        self._requests.pipe = await Pipe.over(ours, handlers, self._lost)
        ready = self._ask(Kind.READY, 0)
        self.say(Kind.SETUP, **setup)
        error = (await ready)["error"]
        if error is not None:
            raise ServeError(str(error["what"]), str(error["remedy"]))

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    @property
    def end(self) -> str:
        """How it ended, in words."""
        code = None if self._process is None else self._process.returncode
        return self._why or f"exit code {code}"

    def say(self, kind: Kind, **fields: Any) -> None:
        """Sends it a message in JSON."""
        if self._requests.pipe is not None:
            self._requests.pipe.say(kind, **fields)

    def send(self, kind: Kind, data: bytes, *, may_wait: bool = False) -> None:
        """Sends it a message; one that `may_wait` is left out where it does not read."""
        pipe = self._requests.pipe
        if pipe is not None and not (may_wait and pipe.is_behind):
            pipe.send(kind, data)

    async def offer(self, number: int, offer: dict[str, Any]) -> None:
        """It serves a model from now on. Raises `ServeError` where it cannot open that."""
        answer = self._ask(Kind.OFFERED, number)
        self.say(Kind.OFFER, number=number, **offer)
        if (error := (await answer)["error"]) is not None:
            raise ServeError(str(error))

    async def withdraw(self, number: int, grace_s: float) -> None:
        """It has answered what it took of the model, and let it go."""
        answer = self._ask(Kind.WITHDRAWN, number)
        self.say(Kind.WITHDRAW, number=number, grace_s=grace_s)
        await answer

    async def drain(self, grace_s: float) -> None:
        """It has answered what it took, and takes nothing any more; or it ends, if it is silent."""
        answer = self._ask(Kind.DRAINED, 0)
        self.say(Kind.DRAIN, grace_s=grace_s)
        try:
            await within(grace_s + LATE_S, answer)
        except asyncio.TimeoutError:
            self.give_up()

    async def count(self) -> list[dict[str, Any]]:
        """Its open streams; what it counted is added to the figures by then."""
        question = next(self._questions)
        answer = self._ask(Kind.COUNTED, question)
        self.say(Kind.COUNT, question=question)
        rows: list[dict[str, Any]] = (await answer)["streams"]
        return rows

    def give_up(self) -> None:
        """Ends it at once, as one that hangs."""
        log.error("an ingest process does not answer any more")
        self.kill("it was silent")

    def kill(self, why: str) -> None:
        """Ends it at once."""
        self._why = self._why or why
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def wait(self, seconds: float) -> None:
        """Returns when it has ended, which it is given so long for by itself."""
        if self._process is None:
            return
        try:
            await within(seconds, self._process.wait())
        except asyncio.TimeoutError:
            self.kill("it did not end")
            await self._process.wait()

    # What it says. --------------------------------------------------------------------------

    def _ask(self, kind: Kind, number: int) -> asyncio.Future[dict[str, Any]]:
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[kind, number] = future
        if self.gone.is_set():
            self._give_up()
        return future

    def _answered(self, kind: Kind, number: int, data: bytes) -> None:
        self.silent_s = 0.0
        future = self._asked.pop((kind, number), None)
        if future is not None and not future.done():
            future.set_result(json_fields(data))

    def _of_model(self, kind: Kind, data: bytes) -> None:
        self._answered(kind, json_fields(data)["number"], data)

    def _counted(self, data: bytes) -> None:
        told = json_fields(data)
        self._heard.add(told["news"])
        self._answered(Kind.COUNTED, told["question"], data)

    def _lost(self, why: Exception | None) -> None:
        """The pipe has ended: so has the process, or it is of no more use."""
        if isinstance(why, MessageError):
            log.error("an ingest process is not to be trusted any more: %s", why)
        self._requests.end()
        self._places.leave_all()
        self._heard.forget_streams()
        self._memory.close()
        self.gone.set()
        self._give_up()
        # One that has died by itself is not killed besides: that would read its exit code before
        # asyncio does, which then knows none. Whoever `wait`s for it ends it, if it has to be. It
        # is the same where its end was found while something was written to it.
        if why is not None and not isinstance(why, ConnectionError):
            self.kill(str(why))

    def _give_up(self) -> None:
        for future in self._asked.values():
            if not future.done():
                future.set_exception(IngestEnded("an ingest process has ended"))
                future.exception()  # it may be that nobody asks for it
        self._asked.clear()


def _log(data: bytes) -> None:
    line = json_fields(data)
    name, words = str(line["name"]), str(line["words"])[:MOST_LOGGED]
    if name.partition(".")[0] not in _LOGGERS:
        name = "splitpoint.cloud"
    fields = {key: str(line["fields"][key]) for key in LOG_FIELDS if key in line["fields"]}
    logging.getLogger(name).log(int(line["level"]), "%s", words, extra=fields)


def _warning_options() -> list[str]:
    """As this process was started."""
    return [f"-W{option}" for option in sys.warnoptions]
