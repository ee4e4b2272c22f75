"""What one agent and its worker take for a frame, beside a client of a bare echo in turn."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from bare_echo import ECHO, ECHOED_BYTES
from splitpoint.edge import EdgeAgent, Given, Outcome, Result
from splitpoint.partition.bundle.bundle import Bundle
from steady_load import IN_FLIGHT, CpuClock
from thin_frames import Sent, Servers


@dataclass(frozen=True, slots=True)
class Way:
    """Of one run with a full window: frames a second, and CPU of this process and of the other."""

    per_s: float
    here_ms: float
    there_ms: float


async def streamed(agent: EdgeAgent, sent: Sent, frames: int, pid: int) -> Way:
    given = Given(inputs=sent.inputs)
    here, there = CpuClock(), CpuClock(pid)
    results: list[Result] = [r async for r in agent.stream(given for _ in range(frames))]
    (here_s, passed_s), (there_s, _) = here.read(), there.read()
    for result in results:
        assert result.outcome is Outcome.ANSWERED, result.why
        sent.check(next(iter(result.outputs.values())))
    return Way(frames / passed_s, 1e3 * here_s / frames, 1e3 * there_s / frames)


async def own_ms(agent: EdgeAgent, sent: Sent, frames: int) -> tuple[float, float]:
    """Of one frame at a time: what is neither compute nor codec, and what the agent's are."""
    results = [await agent.infer(sent.inputs) for _ in range(frames)]
    own, half = [], []
    for result in results:
        assert result.outcome is Outcome.ANSWERED, result.why
        stages = result.stages_ms
        half.append(stages.edge + stages.encode)
        own.append(result.total_ms - half[-1] - stages.cloud)
    return statistics.median(own), statistics.median(half)


async def echoed(call: Any, sent: Sent, frames: int, pid: int) -> Way:
    message, window = sent.messages[0], IN_FLIGHT
    here, there = CpuClock(), CpuClock(pid)
    for _ in range(window):
        await call.write(message)
    for number in range(frames):
        assert await call.read() == message[:ECHOED_BYTES]
        if number < frames - window:
            await call.write(message)
    (here_s, passed_s), (there_s, _) = here.read(), there.read()
    return Way(frames / passed_s, 1e3 * here_s / frames, 1e3 * there_s / frames)


async def one_agent(
    sent: Sent, bundle: Bundle, servers: Servers, folder: Path, *, frames: int, rounds: int
) -> tuple[list[str], dict[str, float]]:
    split, echo = [], []
    async with (
        grpc.aio.insecure_channel(servers.echo_address) as channel,
        EdgeAgent(
            servers.address, bundle=bundle.folder, split=str(sent.boundary) if sent.boundary else
            "input", codec=sent.codec, cache=folder, threads=1, finish_locally=False,
            budget_ms=60_000,
        ) as agent,
    ):  # fmt: skip
        call = channel.stream_stream(ECHO)()
        await echoed(call, sent, frames // 4, servers.echo.pid)
        await streamed(agent, sent, frames // 4, servers.worker.pid)
        own, half = await own_ms(agent, sent, frames)
        for _ in range(rounds):
            echo.append(await echoed(call, sent, frames, servers.echo.pid))
            split.append(await streamed(agent, sent, frames, servers.worker.pid))
        call.cancel()
    median = statistics.median
    found = {
        "own_ms": own,
        "device_ms": half,
        "agent_cpu_ms": median(way.here_ms for way in split),
        "worker_cpu_ms": median(way.there_ms for way in split),
        "fps": median(way.per_s for way in split),
        "echo_client_cpu_ms": median(way.here_ms for way in echo),
        "echo_server_cpu_ms": median(way.there_ms for way in echo),
        "of_echo": median(s.per_s / e.per_s for s, e in zip(split, echo, strict=True)),
    }
    row = [sent.name, *(f"{found[key]:.2f}" for key in list(found)[:4]), f"{found['fps']:.0f}",
           f"{found['echo_client_cpu_ms']:.2f}", f"{found['echo_server_cpu_ms']:.2f}",
           f"{found['of_echo']:.2f}x"]  # fmt: skip
    return row, found


AGENT_COLUMNS = [
    "one agent, window full", "own ms, one by one (p50)", "compute + encode, ms (p50)",
    "agent, CPU ms", "worker, CPU ms", "frames/s", "echo's client, CPU ms", "echo, CPU ms",
    "of the echo's frames/s",
]  # fmt: skip
