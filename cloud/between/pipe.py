"""Messages over a socket of two processes, in their order, each with its kind."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any, cast

from splitpoint.codec import SplitpointError

from .messages import Kind, MessageError

log = logging.getLogger("splitpoint.cloud")

_HEAD = struct.Struct("<IB")
MOST_BYTES = 32 << 20  # of a message: a file of tokens may be large
SENDS_BYTES = 1 << 20  # of what the other has not read: what can be left out is, from here on

Handlers = Mapping[Kind, Callable[[bytes], None]]


class Pipe(asyncio.Protocol):
    """One end. What came is given to the handler of its kind, on the event loop.

    A message without a handler, or one that its handler refuses with an exception, ends the pipe;
    `lost` is called once, with the reason where there is one, when it has ended.
    """

    def __init__(self, handlers: Handlers, lost: Callable[[Exception | None], None]) -> None:
        self._handlers, self._lost = handlers, lost
        self.loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._waiting: list[bytes] = []
        self._why: Exception | None = None

    @classmethod
    async def over(
        cls,
        end: socket.socket,
        handlers: Handlers,
        lost: Callable[[Exception | None], None],
    ) -> Pipe:
        """That of one end of a pair of Unix sockets."""
        loop = asyncio.get_running_loop()
        _, pipe = await loop.create_unix_connection(lambda: cls(handlers, lost), sock=end)
        return pipe

    @property
    def has_ended(self) -> bool:
        """Whether nothing comes or goes any more."""
        return self._transport is None

    @property
    def is_behind(self) -> bool:
        """Whether the other end reads so slowly that only what has to be should be sent."""
        transport = self._transport
        return transport is not None and transport.get_write_buffer_size() > SENDS_BYTES

    def send(self, kind: Kind, data: bytes = b"") -> None:
        """Sends a message, in one go with others of this turn of the event loop."""
        if self._transport is None:
            return  # it has ended, and that is known
        if not self._waiting:
            self.loop.call_soon(self._flush)
        self._waiting.append(_HEAD.pack(len(data), kind) + data)

    def say(self, kind: Kind, **fields: Any) -> None:
        """Sends a JSON object."""
        self.send(kind, json.dumps(fields).encode())

    def close(self) -> None:
        """Ends it, once what was sent is on its way."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self, why: Exception | None = None) -> None:
        """Ends it at once."""
        self._why = self._why or why
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        if self._waiting and self._transport is not None:
            self._transport.write(b"".join(self._waiting))
        self._waiting.clear()

    # What asyncio calls. --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        self._transport = None
        self._waiting.clear()
        self._lost(self._why or exc)

    def data_received(self, data: bytes) -> None:
        """Hands on each message that is complete."""
        if self._why is not None:
            return
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= _HEAD.size:
            size, kind = _HEAD.unpack_from(data, at)
            begin = at + _HEAD.size
            if size > MOST_BYTES:
                self.abort(MessageError(f"a message of {size} bytes"))
                return
            if begin + size > end:
                break
            at = begin + size
            try:
                self._handlers[kind](data[begin:at])
            except Exception as error:  # noqa: BLE001 - whatever it is, this end is not to be used
                self._refuse(kind, error)
                return
        self._rest = data[at:]

    def _refuse(self, kind: int, error: Exception) -> None:
        if not isinstance(error, SplitpointError):
            log.error("a message of kind %d cannot be handled", kind, exc_info=error)
            error = MessageError(f"a message of kind {kind} ({type(error).__name__})")
        self.abort(error)


def json_fields(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`; raises `MessageError` for anything else."""
    try:
        found = json.loads(data)
    except ValueError as error:
        raise MessageError("a message is no JSON") from error
    if not isinstance(found, dict):
        raise MessageError("a message is no object")
    return found
