"""A stream that the worker ends, for its age or for silence, is no fault of anybody."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
from splitpoint.cloud.access.refusals import Refusal
from splitpoint.cloud.options import StreamLimits
from splitpoint.cloud.worker import Worker
from splitpoint.edge import Credentials, EdgeAgent, Outcome
from splitpoint.edge.transport.over_grpc import GrpcTransport
from splitpoint.edge.transport.transport import Connect, Transport
from splitpoint.partition.bundle.bundle import Bundle


def agent_of(worker: Worker, cache: Path, connect: Connect | None = None) -> EdgeAgent:
    return EdgeAgent(
        worker.address, connect=connect, split="1", codec="raw", cache=cache, budget_ms=60_000
    )


async def test_the_agent_moves_before_its_stream_ends(
    small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    """Every frame is answered by the cloud, and each stream has a connection of its own."""
    limits = StreamLimits(max_age_s=0.3, move_s=30)
    connections = 0

    def connect(server: str, max_message_bytes: int) -> Transport:
        nonlocal connections
        connections += 1
        return GrpcTransport(server, max_message_bytes, Credentials())

    async with (
        Worker([small_bundle.folder], listen="127.0.0.1:0", limits=limits) as worker,
        agent_of(worker, tmp_path, connect) as agent,
    ):
        link = agent.session.workers.current
        seen, frames = [link.connection.stream], 0
        while len(seen) < 4:
            results = await asyncio.gather(*[agent.infer({"pixels": pixels}) for _ in range(4)])
            assert {result.outcome for result in results} == {Outcome.ANSWERED}
            frames += len(results)
            assert not link.breaker.is_open
            if link.connection.stream is not seen[-1]:
                seen.append(link.connection.stream)
            await asyncio.sleep(0.01)
        assert connections >= 1 + len(seen)  # one is for files
        assert agent.outcomes[Outcome.ANSWERED] == frames
        assert not worker.refusals.counts
    tasks = {task.get_name() for task in asyncio.all_tasks()}
    assert not tasks & {"move-stream", "open-stream"}


async def test_an_idle_stream_is_opened_again_for_the_next_frame(
    small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    limits = StreamLimits(idle_s=0.5)
    async with (
        Worker([small_bundle.folder], listen="127.0.0.1:0", limits=limits) as worker,
        agent_of(worker, tmp_path) as agent,
    ):
        for _ in range(2):
            assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
            stream = agent.session.workers.current.connection.stream
            for _ in range(1500):
                if stream.session.broken is not None:
                    break
                await asyncio.sleep(0.02)
            assert stream.session.broken is not None
            assert Refusal.IDLE in worker.refusals.counts
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
        assert not agent.session.workers.current.breaker.is_open
