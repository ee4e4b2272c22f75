"""Many streams that send what was built before, as cheaply as `grpc.aio` lets a client.

Nothing is parsed or built while it runs, so that the load costs less than what it is sent to.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import psutil
from bare_echo import ECHO
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import build_frame, parse_server
from splitpoint.proto.limits import PROTOCOL, SERVICE

IN_FLIGHT = 4  # of each stream: a worker's credits
# Messages with ids of their own: none comes again while the first may still be unanswered.
IDS = 16 * IN_FLIGHT
BUDGET_MS = 10_000
WARM_S = 0.3
# From this share of a core on, a process that runs Python in one thread at a time is at its limit.
AT_LIMIT = 0.9
_ALONE = [("grpc.use_local_subchannel_pool", 1)]  # each stream has a connection of its own


def messages_of(boundary: int, codec: str, tensors: Sequence[pb.Tensor]) -> list[bytes]:
    """The same frame under `IDS` ids, as an agent sends it."""
    return [
        build_frame(id=id, boundary=boundary, codec=codec, tensors=tensors, budget_ms=BUDGET_MS)
        for id in range(1, IDS + 1)
    ]


class CpuClock:
    """User and system seconds of a process, and the time beside them."""

    def __init__(self, pid: int | None = None) -> None:
        self._process = psutil.Process(pid)
        self.start()

    def start(self) -> None:
        self._cpu_s, self._at_s = self._read(), time.perf_counter()

    def read(self) -> tuple[float, float]:
        """Seconds of CPU, and of the wall's clock, since the start."""
        return self._read() - self._cpu_s, time.perf_counter() - self._at_s

    def _read(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a server and its load took for `frames` in `seconds`; `replies` are all that came.

    `beside_cpu_s` is of each process that the server has started.
    """

    frames: int
    seconds: float
    server_cpu_s: float
    beside_cpu_s: list[float]
    load_cpu_s: float
    replies: list[bytes]

    @property
    def per_s(self) -> float:
        return self.frames / self.seconds

    @property
    def server_ms(self) -> float:
        """Of CPU, a frame."""
        return 1e3 * self.server_cpu_s / self.frames

    @property
    def beside_ms(self) -> float:
        """Of CPU, a frame, in all processes beside the server's first."""
        return 1e3 * sum(self.beside_cpu_s) / self.frames

    @property
    def load_ms(self) -> float:
        """Of CPU, a frame."""
        return 1e3 * self.load_cpu_s / self.frames

    def at_limit(self, cores: int) -> str:
        """Which process kept frames from coming faster."""
        used = {"server": self.server_cpu_s, "load": self.load_cpu_s}
        used["ingest"] = max(self.beside_cpu_s, default=0.0)
        found = [name for name, cpu_s in used.items() if cpu_s > AT_LIMIT * self.seconds]
        everything_s = self.server_cpu_s + self.load_cpu_s + sum(self.beside_cpu_s)
        if not found and everything_s > AT_LIMIT * cores * self.seconds:
            found = ["the machine"]
        return " and ".join(found) or "neither"


async def load(
    address: str, pid: int, messages: Sequence[bytes], streams: int, seconds: float,
    hello: pb.Hello | None, mark: Callable[[], None] = lambda: None,
) -> Loaded:  # fmt: skip
    """Keeps every stream full. With `hello` to a worker, without to a bare echo.

    `mark` is called when it begins to count, and at the end.
    """
    channels = [grpc.aio.insecure_channel(address, options=_ALONE) for _ in range(streams)]
    calls = [await _opened(channel, hello) for channel in channels]
    replies: list[bytes] = []
    ended, first = False, asyncio.Event()

    async def keep_full(number: int, call: Any) -> None:
        at = number
        for _ in range(IN_FLIGHT):
            await call.write(messages[at % IDS])
            at += 1
        while not ended:
            replies.append(await call.read())
            first.set()
            await call.write(messages[at % IDS])
            at += 1

    tasks = [asyncio.create_task(keep_full(n, call)) for n, call in enumerate(calls)]
    await asyncio.sleep(WARM_S)
    mark()
    server, own, before = CpuClock(pid), CpuClock(), len(replies)
    first.clear()
    beside = [CpuClock(child.pid) for child in psutil.Process(pid).children()]
    await asyncio.sleep(seconds)
    await first.wait()  # on a machine that does something else; there is nothing to divide by
    ended = True
    frames = len(replies) - before
    (server_cpu_s, passed_s), (load_cpu_s, _) = server.read(), own.read()
    beside_cpu_s = [clock.read()[0] for clock in beside]
    mark()
    await asyncio.gather(*tasks)
    for call in calls:
        call.cancel()
    for channel in channels:
        await channel.close()
    return Loaded(
        frames=frames, seconds=passed_s, server_cpu_s=server_cpu_s, beside_cpu_s=beside_cpu_s,
        load_cpu_s=load_cpu_s, replies=replies,
    )  # fmt: skip


async def _opened(channel: grpc.aio.Channel, hello: pb.Hello | None) -> Any:
    call: Any = channel.stream_stream(ECHO if hello is None else f"/{SERVICE}/Infer")()
    if hello is not None:
        await call.write(pb.ClientMessage(hello=hello).SerializeToString())
        welcome = parse_server(await call.read()).welcome
        assert welcome.credits >= IN_FLIGHT, welcome
    return call


def hello_of(digest: str) -> pb.Hello:
    return pb.Hello(protocol=PROTOCOL, model="", digest=digest, client="load")
