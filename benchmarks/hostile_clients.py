"""Clients that want the worker down, or are careless enough: one coroutine for each kind.

Each runs until it is cancelled. `INSIDER` kinds have a token, strangers none.

Longer than others: one short coroutine for each kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2
from hostile_frames import hostile_frames
from PIL import Image
from splitpoint.codec import DTYPE_NUMBERS, codec_named
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import build_frame
from splitpoint.proto.limits import (
    MAX_BATCH_PER_FRAME,
    MAX_CREDITS,
    PROTOCOL,
    SERVICE,
    TOKEN_KEY,
    TOKEN_SCHEME,
    max_frame_bytes,
)

OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1),
           ("grpc.max_receive_message_length", -1)]  # fmt: skip
SCANS = 2000


@dataclass
class Target:
    """The worker and what is known of it; `count` is how often something was sent or opened."""

    address: str
    bundle: Bundle
    token: str
    limited_token: str  # of a client that may ask 5 times a second
    good: list[bytes] = field(default_factory=list)  # messages with a frame each
    count: int = 0

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[grpc.aio.Channel]:
        async with grpc.aio.insecure_channel(self.address, OPTIONS) as channel:
            yield channel

    @asynccontextmanager
    async def stream(self, token: str = "", client: str = "hostile") -> AsyncIterator[Any]:
        """An `Infer` call after its handshake."""
        async with self.channel() as channel:
            metadata = ((TOKEN_KEY, f"{TOKEN_SCHEME} {token or self.token}"),)
            call = channel.stream_stream(f"/{SERVICE}/Infer")(metadata=metadata)
            hello = pb.Hello(protocol=PROTOCOL, digest=self.bundle.digest, client=client)
            await call.write(pb.ClientMessage(hello=hello).SerializeToString())
            await call.read()
            try:
                yield call
            finally:
                call.cancel()

    def picture(self, payload: bytes, codec: str, budget_ms: int = 0, frame_id: int = 1) -> bytes:
        """A message with one picture that is encoded already."""
        spec = self.bundle.manifest.boundaries[0].tensors[0]
        tensor = pb.Tensor(dtype=DTYPE_NUMBERS[spec.dtype], shape=spec.shape, payload=payload)
        return build_frame(
            id=frame_id, boundary=0, codec=codec, tensors=[tensor], budget_ms=budget_ms
        )

    def noise(self) -> np.ndarray:
        """A picture that no codec makes small."""
        spec = self.bundle.manifest.boundaries[0].tensors[0]
        return np.random.default_rng(0).integers(0, 256, spec.shape, dtype=np.uint8)

    @property
    def limit(self) -> int:
        """Bytes of the largest message that the worker takes."""
        boundaries = [boundary.tensors for boundary in self.bundle.manifest.boundaries]
        return max_frame_bytes(boundaries, MAX_BATCH_PER_FRAME)


async def flood(target: Target, messages: Callable[[int], bytes], token: str = "") -> None:
    """Sends as fast as the worker reads, and reads what it answers."""
    async with target.stream(token) as call:

        async def read() -> None:
            while await call.read() is not grpc.aio.EOF:
                pass

        reading = asyncio.create_task(read())
        try:
            while not reading.done():
                await call.write(messages(target.count))
                target.count += 1
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def damaged(target: Target) -> None:
    """Broken bytes, lies about shapes, codecs and ids, bombs; on several streams."""

    async def one(seed: int) -> None:
        frames = hostile_frames(target.good, 10**9, seed)
        await flood(target, lambda number: next(frames))

    await asyncio.gather(*map(one, range(4)))


async def long_shapes(target: Target) -> None:
    """One tensor with millions of extents, then millions of empty tensors."""
    room = target.limit - 200
    shape = _field(2, _field(4, b"\x08\x03" + _field(2, bytes(room))))
    head = b"\x08\x07" + _field(3, b"raw")
    empty = _field(2, head + b"\x22\x00" * (room // 2))
    async with target.stream() as call:
        while True:
            for message in (shape, empty):
                await call.write(message)
                await call.read()
                target.count += 1
            await asyncio.sleep(0.2)


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited field of protobuf."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


async def many_scans(target: Target) -> None:
    """A progressive JPEG of the right size whose file goes over its blocks again and again."""
    height, width = target.bundle.manifest.boundaries[0].tensors[0].shape[1:3]
    file = io.BytesIO()
    picture = Image.fromarray(target.noise()[0])
    picture.save(file, "JPEG", quality=30, progressive=True, subsampling=0)
    blocks = -(-width // 8) * -(-height // 8)
    power = blocks.bit_length() - 1
    table = bytes([0x10, 0, 2, *[0] * 14, power << 4, 0])
    bits = "00" + format(blocks - (1 << power), f"0{power}b")
    bits += "1" * (-len(bits) % 8)
    run = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    scan = b"\xff\xda" + struct.pack(">H", 8) + bytes([1, 1, 0, 1, 63, 0]) + run
    tables = b"\xff\xc4" + struct.pack(">H", len(table) + 2) + table
    jpeg = file.getvalue()[:-2] + tables + SCANS * scan + b"\xff\xd9"
    message = target.picture(struct.pack("<I", len(jpeg)) + jpeg, "jpeg")
    await flood(target, lambda number: message)


async def hog(target: Target) -> None:
    """Honest PNGs of noise on 64 streams, each with all its credits under way."""
    spec = target.bundle.manifest.boundaries[0].tensors[0]
    payload = codec_named("png").encode(target.noise(), spec)

    async def one() -> None:
        async with target.stream() as call:
            for number in range(1, 10**9):
                await call.write(target.picture(payload, "png", 300, number))
                target.count += 1
                if number >= MAX_CREDITS:
                    await call.read()

    await asyncio.gather(*(one() for _ in range(64)))


async def hopeless(target: Target) -> None:
    """Whole frames with a budget that nobody could keep."""
    payload = codec_named("raw").encode(
        target.noise(), target.bundle.manifest.boundaries[0].tensors[0]
    )
    await flood(target, lambda number: target.picture(payload, "raw", 1, number + 1))


async def too_many(target: Target) -> None:
    """Good frames from a client that may ask five times a second."""
    message = target.good[0]
    await flood(target, lambda number: message, target.limited_token)


async def probes(target: Target) -> None:
    """Echoes with padding, as fast as they come back."""
    probe = pb.Probe(id=1, padding=bytes(150_000))
    message = pb.ClientMessage(probe=probe).SerializeToString()
    await flood(target, lambda number: message)


async def cancels(target: Target) -> None:
    """Cancels of frames that there never were."""
    await flood(
        target,
        lambda number: pb.ClientMessage(cancel=pb.Cancel(id=number + 1)).SerializeToString(),
    )


async def never_reads(target: Target) -> None:
    """Good frames whose answers nobody takes."""
    async with target.stream() as call:
        while True:
            await call.write(target.good[target.count % len(target.good)])
            target.count += 1


async def watchers(target: Target) -> None:
    """Strangers that open `Watch` and leave it open, on three connections."""
    await _open_many(target, lambda channel: channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
    )(health_pb2.HealthCheckRequest()))  # fmt: skip


async def silent_calls(target: Target) -> None:
    """Strangers that call `Describe` and never send the request."""
    await _open_many(target, lambda channel: channel.stream_unary(f"/{SERVICE}/Describe")())


async def _open_many(target: Target, call: Callable[[Any], Any]) -> None:
    async with target.channel() as one, target.channel() as two, target.channel() as three:
        channels = (one, two, three)
        while True:
            calls = []
            for number in range(3000):
                calls.append(call(channels[number % 3]))
                target.count += 1
                if number % 100 == 99:
                    await asyncio.sleep(0.02)
            await asyncio.sleep(3)
            for opened in calls:
                opened.cancel()
            await asyncio.sleep(0.5)


async def half_sent(target: Target) -> None:
    """Strangers whose HTTP/2 bodies promise a large message and never end it."""

    def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
        size = struct.pack(">I", len(payload))[1:]
        return size + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    def header(name: bytes, value: bytes) -> bytes:
        return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value

    names = ((b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"x"),
             (b":path", f"/{SERVICE}/Describe".encode()), (b"te", b"trailers"),
             (b"content-type", b"application/grpc"))  # fmt: skip
    head = b"".join(header(*pair) for pair in names)
    host, _, port = target.address.rpartition(":")
    while True:
        reader, writer = await asyncio.open_connection(host, int(port))
        with contextlib.suppress(OSError):
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
            promised = b"\x00" + struct.pack(">I", min(target.limit, 1 << 22) - 100)
            for number in range(24):
                stream = 2 * number + 1
                writer.write(frame(1, 4, stream, head))
                writer.write(frame(0, 0, stream, promised + bytes(2500)))
                target.count += 1
            await writer.drain()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(reader.read(-1), 2)
        writer.transport.abort()


async def strangers(target: Target) -> None:
    """Connections that come and go, with a wrong token and a name full of control characters."""
    while True:
        async with target.channel() as channel:
            metadata = ((TOKEN_KEY, f"{TOKEN_SCHEME} wrong"),)
            call = channel.stream_stream(f"/{SERVICE}/Infer")(metadata=metadata)
            hello = pb.Hello(protocol=PROTOCOL, digest="0" * 64, client="x\nERROR \x1b[2J" * 50)
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.write(pb.ClientMessage(hello=hello).SerializeToString())
                await call.read()
            target.count += 1


async def forgers(target: Target) -> None:
    """A client that is let in under names made to confuse whoever reads the log."""
    names = ("a\nINFO all is well", "\x1b[31mred", "\u202egpj", "x" * 100_000)
    chance = random.Random(0)
    while True:
        with contextlib.suppress(grpc.aio.AioRpcError):
            async with target.stream(client=chance.choice(names)):
                target.count += 1
        await asyncio.sleep(0.02)


async def ports(target: Target) -> None:
    """Plain connections that say nothing, or nothing that is HTTP/2."""
    host, _, port = target.address.rpartition(":")
    while True:
        sockets = [socket.create_connection((host, int(port))) for _ in range(100)]
        for number, each in enumerate(sockets):
            target.count += 1
            if number % 2:
                each.sendall(b"GET / HTTP/1.1\r\n\r\n")
        await asyncio.sleep(1)
        for each in sockets:
            each.close()


KINDS: dict[str, Callable[[Target], Awaitable[None]]] = {
    "damaged and lying frames": damaged, "shapes of millions": long_shapes,
    "JPEGs of 2,000 scans": many_scans, "honest PNGs on 64 streams": hog,
    "hopeless budgets": hopeless, "beyond its rate": too_many, "probes": probes,
    "cancels of nothing": cancels, "answers never read": never_reads,
    "Watch without a token": watchers, "calls without a request": silent_calls,
    "half-sent messages": half_sent, "wrong tokens": strangers, "forged names": forgers,
    "connections that say nothing": ports,
}  # fmt: skip
