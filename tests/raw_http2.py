"""Just enough of HTTP/2 to send a gRPC call in pieces, as no client library would."""

from __future__ import annotations

import asyncio
import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW = 4  # the setting's number
CHUNK = 16_384


class RawConnection:
    """A connection to a gRPC server. `ended` tells of each stream whether the server has ended it.

    `read` has to run beside whatever is sent.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._first_window = 65_535
        self._windows: defaultdict[int, int] = defaultdict(lambda: self._first_window)
        self._windows[0] = 65_535
        self.ended: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self.answered: set[int] = set()  # streams for which something came
        self._moved = asyncio.Event()

    @classmethod
    async def open(cls, address: str, *, takes_bytes: int = 65_535) -> RawConnection:
        """`takes_bytes` is what it lets the server send of each answer before it asks for more."""
        host, _, port = address.rpartition(":")
        connection = cls(*await asyncio.open_connection(host, int(port)))
        settings = struct.pack(">HI", INITIAL_WINDOW, takes_bytes)
        begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0, 0, settings)
        connection._writer.write(begin)
        return connection

    async def begin(
        self, stream: int, path: str, metadata: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        """Sends a call's headers; `stream` is odd, and larger than the one before."""
        fields = [
            (":method", b"POST"), (":scheme", b"http"), (":path", path.encode()),
            (":authority", b"x"), ("te", b"trailers"), ("content-type", b"application/grpc"),
            *metadata,
        ]  # fmt: skip
        block = b"".join(
            b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value
            for name, value in fields
        )
        self._writer.write(_frame(HEADERS, END_HEADERS, stream, block))
        await self._writer.drain()

    async def send(self, stream: int, message: bytes) -> None:
        """The call's only message, a short one."""
        head = b"\x00" + struct.pack(">I", len(message))
        self._writer.write(_frame(DATA, END_STREAM, stream, head + message))
        await self._writer.drain()

    async def send_part(self, stream: int, message_bytes: int, most_bytes: int) -> int:
        """Of a message of so many bytes the first ones, as long as the server lets us send.

        Returns how many were sent when it was enough, or the server had ended the stream.
        """
        left = b"\x00" + struct.pack(">I", message_bytes) + bytes(min(message_bytes, most_bytes))
        sent = 0
        while left and not self.ended[stream].is_set():
            size = min(CHUNK, len(left), self._windows[0], self._windows[stream])
            if size <= 0:
                self._moved.clear()
                await self._moved.wait()
                continue
            self._writer.write(_frame(DATA, 0, stream, left[:size]))
            await self._writer.drain()
            self._windows[0] -= size
            self._windows[stream] -= size
            left, sent = left[size:], sent + size
        return sent

    async def read(self) -> None:
        """Follows what the server says, until it hangs up."""
        try:
            while True:
                head = await self._reader.readexactly(9)
                body = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                self._take(head[3], head[4], int.from_bytes(head[5:], "big") & (1 << 31) - 1, body)
                self._moved.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            for event in self.ended.values():
                event.set()

    def _take(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        if kind == HEADERS:
            self.answered.add(stream)
        if kind == WINDOW_UPDATE:
            self._windows[stream] += int.from_bytes(body, "big")
        elif kind == SETTINGS and not flags & ACK:
            settings = dict(struct.iter_unpack(">HI", body))
            first = settings.get(INITIAL_WINDOW, self._first_window)
            for known in self._windows.keys() - {0}:
                self._windows[known] += first - self._first_window
            self._first_window = first
            self._writer.write(_frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self._writer.write(_frame(PING, ACK, 0, body))
        elif kind in (RST_STREAM, GOAWAY) or (kind in (HEADERS, DATA) and flags & END_STREAM):
            self.ended[stream].set()

    async def answers(self, count: int) -> None:
        """Until the server has begun to answer so many calls."""
        while len(self.answered) < count:
            self._moved.clear()
            await self._moved.wait()

    def close(self) -> None:
        self._writer.transport.abort()


@asynccontextmanager
async def resetting_server(number: int) -> AsyncIterator[str]:
    """The address of a server that resets every call with this error code of HTTP/2."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(_frame(SETTINGS, 0, 0))
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readexactly(len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
            while True:
                head = await reader.readexactly(9)
                await reader.readexactly(int.from_bytes(head[:3], "big"))
                if head[3] == SETTINGS and not head[4] & ACK:
                    writer.write(_frame(SETTINGS, ACK, 0))
                elif head[3] == HEADERS:
                    stream = int.from_bytes(head[5:], "big")
                    writer.write(_frame(RST_STREAM, 0, stream, struct.pack(">I", number)))
        writer.close()
        ended.set()

    writers: list[asyncio.StreamWriter] = []
    ended = asyncio.Event()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        try:
            yield f"{host}:{port}"
        finally:
            for writer in writers:  # gRPC keeps its end open
                writer.close()
            await ended.wait()  # a task that the loop's end cancels would say so


def _frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return (
        struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body
    )
