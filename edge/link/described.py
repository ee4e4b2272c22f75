"""What workers say of themselves before any stream is opened, and which of them is taken."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.session.told_load import told_load
from splitpoint.proto.status import UnreachableError

from ..errors import AgentError
from .channel import WorkerChannel

log = logging.getLogger("splitpoint.edge")


@dataclass(frozen=True, slots=True)
class Described:
    """What one worker said, and how long it took."""

    channel: WorkerChannel
    ms: float
    reply: pb.DescribeReply

    def load(self, info: pb.ModelInfo) -> pb.Load:
        """How busy it is for that model. An older one says nothing of its queue here."""
        return told_load(info.load) or told_load(self.reply.load) or pb.Load()

    def wait_ms(self, wanted: Callable[[pb.ModelInfo], bool]) -> float:
        """How far it is, and how busy for that model, or for whichever it is busiest."""
        waits = [self.load(info).queue_ms for info in self.reply.models if wanted(info)]
        return self.ms + max(waits, default=0.0)

    def model(self, name: str) -> pb.ModelInfo:
        """The one of that name, or "" for its only one; raises `AgentError` naming what it has."""
        models, server = self.reply.models, self.channel.server
        found = [model for model in models if name in ("", model.name)]
        if len(found) == 1:
            return found[0]
        names = ", ".join(sorted(model.name for model in models))
        if not names:
            raise AgentError(f"{server} has no model that this client may use")
        if not found:
            raise AgentError(f"{server} does not serve {name!r}", f"it serves {names}")
        raise AgentError(f"{server} serves several models", f"name one with --model: {names}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What the worker `server` says of one model, and how busy it is for it."""

    info: pb.ModelInfo
    load: pb.Load
    server: str


async def describe(channels: Sequence[WorkerChannel]) -> list[Described]:
    """What the workers that answer say.

    Raises `UnreachableError` where none is there, or else why one does not let the device in.
    """

    async def ask(channel: WorkerChannel) -> Described:
        start = time.perf_counter()
        reply = await channel.describe()
        return Described(channel, 1e3 * (time.perf_counter() - start), reply)

    answers = await asyncio.gather(*map(ask, channels), return_exceptions=True)
    found = [answer for answer in answers if isinstance(answer, Described)]
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    if not found:
        other = (error for error in errors if not isinstance(error, UnreachableError))
        raise next(other, errors[0])
    for error in errors:
        log.warning("%s; going on without it", error)
    return found


def nearest(described: Sequence[Described], wanted: Callable[[pb.ModelInfo], bool]) -> Described:
    """The nearest and idlest of those that serve such a model, or of all where none does."""
    able = [one for one in described if any(map(wanted, one.reply.models))]
    return min(able or described, key=lambda one: one.wait_ms(wanted))


def who_serves(described: Sequence[Described], digest: str) -> Serving | None:
    """The nearest and idlest of those that serve a bundle; None where none does."""
    if not described:
        return None
    worker = nearest(described, lambda info: info.digest == digest)
    info = next((info for info in worker.reply.models if info.digest == digest), None)
    if info is None:
        return None
    return Serving(info=info, load=worker.load(info), server=worker.channel.server)
