"""A TCP relay that plays a slow, jittery, faulty link between an edge and a worker.

Everything measured through it is emulated, and is to be called so.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from splitpoint.codec import SplitpointError
from splitpoint.partition.plan.link import Capacity, Link
from splitpoint.proto.address import join_address, split_address
from splitpoint.proto.tasks import cancel_and_wait

from .delay_pipe import DelayPipe

CHUNK_BYTES = 4096
# What a modem would hold: more would hide the link's rate from the sender.
SOCKET_BUFFER_BYTES = 64 << 10
# The relay reads this much ahead: a timer that fires late must not cost the link its rate.
AHEAD_S = 0.01
_FAULT = re.compile(
    r"(?P<kind>cut|stall|blackhole|flip)@(?P<at>\d+(?:\.\d+)?)s?(?::(?P<for>\d+(?:\.\d+)?)s?)?"
)


class EmulateError(SplitpointError):
    """The relay cannot start, or a fault cannot be understood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that happens to the link at `at_s` after the relay's start, for `for_s`.

    cut: connections are reset and none are accepted. stall: nothing moves, then all goes on.
    blackhole: bytes vanish while connections seem alive; they are reset at its end. flip: one bit
    of the next uplink byte is inverted.
    """

    kind: str
    at_s: float
    for_s: float


def parse_fault(text: str) -> Fault:
    """`cut@5s:2s`, `stall@5s:2s`, `blackhole@5s:30s` or `flip@5s`; `EmulateError` otherwise."""
    match = _FAULT.fullmatch(text)
    if match is None:
        raise EmulateError(
            f"unknown fault {text!r}", "use cut@5s:2s, stall@5s:2s, blackhole@5s:30s or flip@5s"
        )
    return Fault(kind=match["kind"], at_s=float(match["at"]), for_s=float(match["for"] or 0))


class Relay:
    """Forwards connections at `listen` to `server` through `link`, both ways.

    The uplink has the link's rate, shared by all connections; the downlink only its delay. Each
    direction is late by half of the round trip, and by up to `jitter_ms` more. Use it as an async
    context manager; `address` is where it listens.
    """

    def __init__(
        self,
        server: str,
        link: Link,
        *,
        listen: str = "127.0.0.1:0",
        jitter_ms: float = 0.0,
        faults: Sequence[Fault] = (),
        seed: int = 0,
    ) -> None:
        self._far_end, self._link, self._listen = split_address(server), link, listen
        self._jitter_s, self._faults = jitter_ms / 1e3, faults
        self._capacity = Capacity(link)
        self._free_at_s = 0.0
        self._random = random.Random(seed)
        self._open = asyncio.Event()
        self._open.set()
        self._refusing = self._swallowing = self._flip_next = False
        self._pumps: set[asyncio.Task[None]] = set()
        self._background: list[asyncio.Task[None]] = []
        self.address = ""

    async def __aenter__(self) -> Relay:
        """Listens; `AddressError` or `EmulateError` when the address cannot be had."""
        host, port = split_address(self._listen)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=128)
        except OSError as error:
            raise EmulateError(
                f"cannot listen on {self._listen} ({error})", "choose another with --listen"
            ) from error
        # Accepted connections inherit it; set later, it would not shrink the window.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        self._start_s = asyncio.get_running_loop().time()
        self._listener = await asyncio.start_server(
            self._connected, sock=listener, limit=CHUNK_BYTES
        )
        self.address = join_address(host, listener.getsockname()[1])
        self._background = [asyncio.create_task(self._play(fault)) for fault in self._faults]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes every connection."""
        self._listener.close()
        await self._reset(self._background)
        await self._listener.wait_closed()

    async def cut(self, for_s: float) -> None:
        """Resets every connection and refuses new ones for a while."""
        self._refusing = True
        await self._reset()
        await asyncio.sleep(for_s)
        self._refusing = False

    async def stall(self, for_s: float) -> None:
        """Moves nothing for a while, then everything."""
        self._open.clear()
        await asyncio.sleep(for_s)
        self._open.set()

    async def black_hole(self, for_s: float) -> None:
        """Swallows everything for a while, then resets the connections that lost bytes."""
        self._swallowing = True
        await asyncio.sleep(for_s)
        self._swallowing = False
        await self._reset()

    def flip(self) -> None:
        """Inverts one bit of the next uplink chunk."""
        self._flip_next = True

    async def _play(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at_s)
        if fault.kind == "cut":
            await self.cut(fault.for_s)
        elif fault.kind == "stall":
            await self.stall(fault.for_s)
        elif fault.kind == "blackhole":
            await self.black_hole(fault.for_s)
        else:
            self.flip()

    async def _reset(self, more: Sequence[asyncio.Task[None]] = ()) -> None:
        await cancel_and_wait(*self._pumps, *more)

    async def _connected(
        self, edge_in: asyncio.StreamReader, edge_out: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        cloud_out: asyncio.StreamWriter | None = None
        try:
            if self._refusing:
                return
            host, port = self._far_end
            cloud_in, cloud_out = await asyncio.open_connection(host, port, limit=1 << 20)
            pumps = [
                asyncio.create_task(self._pump(edge_in, cloud_out, up=True)),
                asyncio.create_task(self._pump(cloud_in, edge_out, up=False)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await cancel_and_wait(*pumps)
        except (OSError, asyncio.CancelledError):
            pass  # the far end is not there, or the link was cut: the edge sees a reset
        finally:
            self._pumps.discard(task)
            for writer in (edge_out, cloud_out):
                if writer is not None:
                    writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        """Reads, waits for the link's rate, and hands over to `_deliver` for the delay."""
        loop = asyncio.get_running_loop()
        pipe = DelayPipe()
        delivery = asyncio.create_task(self._deliver(pipe, writer))
        latest_s = 0.0
        try:
            while data := await reader.read(CHUNK_BYTES if up else 1 << 16):
                await self._open.wait()
                if self._swallowing:
                    continue
                sent_s = loop.time()
                if up:
                    data = self._damage(data)
                    begin_s = max(sent_s - self._start_s, self._free_at_s)
                    self._free_at_s = self._capacity.finish_s(begin_s, len(data))
                    sent_s = self._start_s + self._free_at_s
                delay_s = self._link.round_trip_ms / 2e3 + self._random.uniform(0, self._jitter_s)
                latest_s = max(latest_s, sent_s + delay_s)  # TCP keeps the order
                await pipe.put(latest_s, data)
                if sent_s > loop.time() + AHEAD_S:
                    await asyncio.sleep(sent_s - loop.time() - AHEAD_S)
            await pipe.put(latest_s, b"")
            await delivery
        finally:
            await cancel_and_wait(delivery)

    async def _deliver(self, pipe: DelayPipe, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s, data = await pipe.get()
            if due_s > loop.time():
                await asyncio.sleep(due_s - loop.time())
            await self._open.wait()
            if not data:
                with contextlib.suppress(ConnectionError):
                    writer.close()
                    await writer.wait_closed()  # what it still holds goes first
                return
            if self._swallowing:
                continue
            writer.write(data)
            with contextlib.suppress(ConnectionError):  # the reader notices that the end is gone
                await writer.drain()

    def _damage(self, data: bytes) -> bytes:
        if not self._flip_next:
            return data
        self._flip_next = False
        damaged = bytearray(data)
        damaged[self._random.randrange(len(damaged))] ^= 1 << self._random.randrange(8)
        return bytes(damaged)
