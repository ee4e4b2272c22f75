"""One stream to a worker, whatever is opened, lost and closed at the same time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from splitpoint.edge.link.connection import Connection
from splitpoint.proto.status import UnreachableError


class Stream:
    """What a connection needs of a stream."""

    def __init__(self) -> None:
        self.session = SimpleNamespace(broken=None, idle=True)
        self.on_reopen: Any = None
        self.closed = False

    async def close(self) -> None:
        self.closed = True
        self.session.broken = UnreachableError("closed")


class Channel:
    """Opens a stream when it is told to."""

    server, outdated = "worker:7070", False

    def __init__(self, channels: list[Channel]) -> None:
        self.channels, self.closed = channels, False
        self.may_open = asyncio.Event()
        self.streams: list[Stream] = []
        channels.append(self)

    def again(self) -> Channel:
        return Channel(self.channels)

    async def open_stream(self, model: str, digest: str, client: str) -> Stream:
        await self.may_open.wait()
        self.streams.append(Stream())
        return self.streams[-1]

    async def close(self) -> None:
        self.closed = True
        for stream in self.streams:  # as gRPC does with the calls of a channel
            await stream.close()


@pytest.fixture
async def channels() -> list[Channel]:
    return []


@pytest.fixture
async def connection(channels: list[Channel]) -> Connection:
    channel: Any = Channel(channels)
    return Connection(channel, "model", "digest", lambda stream: None)


async def passes() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_stream_that_is_lost_while_another_is_opened_beside_it(
    connection: Connection, channels: list[Channel]
) -> None:
    """The frame's own attempt counts; nothing stays open that nobody uses."""
    channels[0].may_open.set()
    first: Any = await connection.live()
    channels[0].may_open.clear()
    first.on_reopen()
    await passes()
    first.session.broken = UnreachableError("lost")
    waiting = asyncio.create_task(connection.live())
    await passes()
    channels[1].may_open.set()  # the one beside it is there first
    await passes()
    channels[0].may_open.set()
    stream: Any = await waiting
    await asyncio.sleep(0.2)  # streams are looked at for a while before they are ended
    assert not stream.closed
    assert connection.stream is stream
    opened = [stream for channel in channels for stream in channel.streams]
    assert [stream for stream in opened if not stream.closed] == [stream]
    await connection.close()
    assert all(stream.closed for stream in opened)


async def test_who_waits_for_a_stream_hears_that_the_agent_is_closed(
    connection: Connection,
) -> None:
    waiting = asyncio.create_task(connection.live())
    await passes()
    await connection.close()
    with pytest.raises(UnreachableError, match="closed"):
        await waiting


async def test_who_is_cancelled_while_the_connection_closes_is_cancelled(
    connection: Connection,
) -> None:
    """Its time was up, say, and its agent was left in the same moment."""
    waiting = asyncio.create_task(connection.live())
    await passes()
    closing = asyncio.create_task(connection.close())
    await asyncio.sleep(0)
    waiting.cancel()
    await closing
    with pytest.raises(asyncio.CancelledError):
        await waiting
