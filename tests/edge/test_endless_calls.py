"""A worker whose answer to one question never ends: it is left, at no cost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from splitpoint.edge.link.channel import WorkerChannel
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.limits import PROTOCOL
from splitpoint.proto.status import ProtocolError

PATIENCE_S = 5.0


class Endless:
    """A transport and its calls, each of which gets the same message again and again."""

    def __init__(self, message: bytes) -> None:
        self._message = message
        self.reads, self.cancelled = 0, False

    def open(self, *_: Any) -> Endless:
        """For `WorkerChannel`."""
        return self

    async def read(self) -> bytes:
        """Another one."""
        self.reads += 1
        await asyncio.sleep(0)
        return self._message

    def cancel(self) -> None:
        """From the channel."""
        self.cancelled = True

    async def close(self, grace_s: float | None = None) -> None:
        """Nothing is open."""


def channel_to(worker: Endless) -> WorkerChannel:
    return WorkerChannel("w:1", connect=lambda server, most: worker)  # type: ignore[arg-type, return-value]


async def test_descriptions_without_end() -> None:
    worker = Endless(pb.DescribeReply(protocol=PROTOCOL).SerializeToString())
    with pytest.raises(ProtocolError, match="did not say what it serves"):
        await asyncio.wait_for(channel_to(worker).describe(), PATIENCE_S)
    assert worker.reads == 2
    assert worker.cancelled


async def test_a_file_of_empty_chunks_without_end() -> None:
    worker = Endless(pb.Chunk(offset=0, total=9).SerializeToString())

    async def fetch() -> bytes:
        return b"".join([data async for data in channel_to(worker).fetch("d" * 64, "e" * 64, 0)])

    with pytest.raises(ProtocolError, match="nothing in it"):
        await asyncio.wait_for(fetch(), PATIENCE_S)
    assert worker.reads == 1
    assert worker.cancelled
