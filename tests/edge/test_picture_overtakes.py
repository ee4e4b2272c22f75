"""A picture that is sent as it is needs nothing of the device: it waits for no frame before it."""

from __future__ import annotations

import asyncio

import numpy as np
from splitpoint.edge import EdgeAgent, Outcome
from splitpoint.edge.dispatch.observer import Observer
from splitpoint.edge.transport.fake_worker import FakeWorker
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.plan.plan import NO_CODEC, Plan

SLOW = 8000.0  # all of a frame takes the device some seconds


class InTurn(Observer):
    """One frame on the device, and the next as it came."""

    def __init__(self, *plans: Plan) -> None:
        self._plans = plans

    def way(self, number: int, *, live: bool, samples: int = 1) -> Plan | None:
        return self._plans[number % len(self._plans)]


async def test_a_picture_does_not_wait_for_the_device(small_bundle: Bundle) -> None:
    worker = FakeWorker(small_bundle)
    pixels = {"pixels": np.zeros((1, 24, 24, 3), np.uint8)}
    last = len(small_bundle.manifest.segments)
    async with EdgeAgent(
        worker.address, connect=worker.connect, bundle=small_bundle.folder, split="input",
        codec="raw", slowdown=SLOW,
    ) as agent:  # fmt: skip
        await agent.settled()  # the device can compute all of it
        await agent.infer(pixels)  # and the other end is warm
        away, here = Plan(boundary=0, codec="raw"), Plan(boundary=last, codec=NO_CODEC)
        agent.session.present.observer = InTurn(here, away)
        first, second = (asyncio.create_task(agent.infer(pixels)) for _ in range(2))
        assert (await second).outcome is Outcome.ANSWERED
        assert not first.done()
        assert (await first).outcome is Outcome.LOCAL
