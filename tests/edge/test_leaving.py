"""An agent that is left, and cancelled meanwhile: its time was up, say."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from patience import until
from splitpoint.codec import Array
from splitpoint.edge import EdgeAgent, FakeWorker
from splitpoint.partition.bundle.bundle import Bundle


async def test_who_is_cancelled_while_an_agent_is_left_leaves_nothing_behind(
    small_bundle: Bundle, pixels: Array, tmp_path: Path
) -> None:
    """However many turns of the event loop after leaving has begun."""
    workers = {f"fake:{port}": FakeWorker(small_bundle) for port in (7070, 7071)}

    async def use(leaving: asyncio.Event) -> None:
        async with EdgeAgent(
            ",".join(workers),
            connect=lambda server, most: workers[server].connect(server, most),
            split="1",
            codec="raw",
            cache=tmp_path,
        ) as agent:
            await agent.infer({"pixels": pixels})
            for link in agent.session.workers.links:
                await link.connection.live()
            agent.session.workers.links[-1].breaker.open()
            leaving.set()

    before, turns, was_left = asyncio.all_tasks(), 0, False
    threads = set(threading.enumerate())
    while not was_left:
        leaving = asyncio.Event()
        using = asyncio.create_task(use(leaving))
        await leaving.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        was_left, turns = using.done(), turns + 1
        using.cancel()
        await asyncio.gather(using, return_exceptions=True)
        assert using.cancelled() is not was_left
        assert [worker.streams for worker in workers.values()] == [0, 0], turns
        await until(lambda: asyncio.all_tasks() == before, f"tasks go on after {turns} turns")
        left = {each.name for each in set(threading.enumerate()) - threads}
        assert not [each for each in left if each.startswith("splitpoint")], turns
