"""What a client can send that it should not: damaged bytes, and well-formed lies."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import zstandard
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import frame_crc32

BOMB_BYTES = 1 << 24


def resealed(data: bytes, change: Callable[[pb.Frame], object]) -> bytes:
    """The frame in a message with a field changed, and a CRC that fits."""
    message = pb.ClientMessage.FromString(data)
    change(message.frame)
    message.frame.crc32 = frame_crc32(message.frame)
    return message.SerializeToString()


def hostile_frames(good: Sequence[bytes], count: int, seed: int = 7) -> Iterator[bytes]:
    """`count` of them, in turn a good frame with damaged bytes and one that lies about something.

    `good` are whole messages with a frame each.
    """
    rng = random.Random(seed)
    lies: list[Callable[[pb.Frame], object]] = [
        lambda f: setattr(f, "boundary", rng.randrange(1 << 32)),
        lambda f: setattr(f, "codec", rng.choice(["fkt@9", "x" * 1000, "raw", "q8", "jpeg@101"])),
        lambda f: setattr(f, "id", rng.choice([0, 1, (1 << 64) - 1])),
        lambda f: setattr(f.tensors[0], "dtype", rng.randrange(1 << 32)),
        lambda f: f.tensors[0].shape.append(rng.randrange(1 << 32)),
        lambda f: f.tensors[0].shape.__setitem__(0, rng.choice([0, 2, 17, (1 << 32) - 1])),
        lambda f: setattr(f.tensors[0], "payload", rng.randbytes(rng.randrange(4000))),
        lambda f: setattr(f.tensors[0], "payload", f.tensors[0].payload[: rng.randrange(99)]),
        lambda f: f.tensors.append(f.tensors[0]),
        lambda f: f.ClearField("tensors"),
        lambda f: setattr(f.tensors[0], "payload", zstandard.compress(bytes(BOMB_BYTES))),
    ]
    for number in range(count):
        data = rng.choice(good)
        if number % 2:
            yield resealed(data, rng.choice(lies))
            continue
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        del damaged[rng.randrange(len(damaged)) + 1 :]
        yield bytes(damaged)
