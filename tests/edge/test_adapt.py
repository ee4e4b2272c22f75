"""A real agent follows its link: away when it gets slow, and back when it is fast again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from patience import stalled
from splitpoint.cli.emulate.relay import Relay
from splitpoint.cloud.worker import Worker
from splitpoint.edge import EdgeAgent, Given, Outcome
from splitpoint.edge.dispatch.adapt import Adapter
from splitpoint.edge.dispatch.auto_plan import AutoPlan
from splitpoint.edge.dispatch.controller import Controller
from splitpoint.edge.dispatch.uplink_estimate import UplinkEstimate
from splitpoint.edge.link.answer_times import Answer
from splitpoint.edge.link.frame_stream import FrameStream
from splitpoint.edge.link.workers import Workers
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.plan.link import Capacity, parse_link
from splitpoint.partition.plan.plan import Plan
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.status import UnreachableError

FAST, SLOW = parse_link("100mbps,1ms"), parse_link("0.01mbps,1ms")
SLOWDOWN = 300.0  # the net takes a fraction of a millisecond here: the worker is to be worth it
PATIENCE = 400  # frames


@pytest.fixture
async def worker(small_bundle: Bundle) -> AsyncIterator[Worker]:
    async with Worker([small_bundle.folder], listen="127.0.0.1:0", device="cpu") as running:
        yield running


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: the device is profiled once."""
    return tmp_path_factory.mktemp("cache")


@asynccontextmanager
async def following(
    relay: Relay, cache: Path, lines: list[str], **options: object
) -> AsyncIterator[EdgeAgent]:
    fields: dict[str, object] = {"slowdown": SLOWDOWN, "budget_ms": 20_000.0} | options
    fields = {"auto": AutoPlan(link=FAST)} | fields
    async with EdgeAgent(relay.address, cache=cache, **fields) as agent:  # type: ignore[arg-type]
        agent.on_switch = lines.append
        yield agent


def becomes(relay: Relay, text: str) -> None:
    relay._link = parse_link(text)
    relay._capacity = Capacity(relay._link)


async def infer_until(agent: EdgeAgent, done: Callable[[], bool], pixels: np.ndarray) -> None:
    for _ in range(PATIENCE):
        result = await agent.infer({"pixels": pixels[:1]})
        assert result.outcome in (Outcome.ANSWERED, Outcome.LOCAL), result.why
        if done():
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"still {agent.plan}")


def same_cut(one: Plan, other: Plan) -> bool:
    return (one.boundary, one.codec) == (other.boundary, other.codec)


def bytes_of(agent: EdgeAgent) -> float:
    """What the present plan sends, as the table has it."""
    assert agent.session.present.adapter is not None
    table, index = (
        agent.session.present.adapter._table,
        agent.session.present.adapter.controller.current,
    )
    assert (table.boundary[index], table.codec[index]) == (agent.plan.boundary, agent.plan.codec)
    return float(table.nbytes[index])


@pytest.mark.slow
async def test_the_plan_follows_the_link_there_and_back(
    worker: Worker, pixels: np.ndarray, cache: Path
) -> None:
    lines: list[str] = []
    async with Relay(worker.address, FAST) as relay, following(relay, cache, lines) as agent:
        first = agent.plan
        assert not agent.is_local
        for _ in range(5):
            assert (await agent.infer({"pixels": pixels[:1]})).boundary == first.boundary
        sent = bytes_of(agent)

        becomes(relay, "0.01mbps,1ms")
        await infer_until(agent, lambda: bool(lines) and agent.plan != first, pixels)
        less = bytes_of(agent)
        assert less < sent
        assert lines[0].startswith("uplink ")
        assert " -> " in lines[0]
        assert agent.plan.why == lines[-1]
        assert agent.uplink_mbps is not None
        assert agent.uplink_mbps < 1

        becomes(relay, "100mbps,1ms")
        await infer_until(agent, lambda: same_cut(agent.plan, first), pixels)
        assert bytes_of(agent) == sent > less
        assert len(lines) >= 2
        assert sum(agent.outcomes.values()) > 5
        assert agent.outcomes[Outcome.FAILED] == agent.outcomes[Outcome.EXPIRED] == 0


async def test_who_does_not_adapt_keeps_the_plan(
    worker: Worker, pixels: np.ndarray, cache: Path
) -> None:
    lines: list[str] = []
    async with (
        Relay(worker.address, FAST) as relay,
        following(relay, cache, lines, adapt=False) as agent,
    ):
        first = agent.plan
        becomes(relay, "0.05mbps,1ms")
        for _ in range(8):
            assert (await agent.infer({"pixels": pixels[:1]})).boundary == first.boundary
        assert (agent.plan, lines) == (first, [])
        assert agent.uplink_mbps is None


async def test_a_stream_that_breaks_while_all_runs_here_is_opened_again(
    worker: Worker, pixels: np.ndarray, cache: Path
) -> None:
    """No frame would do it: without, the device would never hear of a better link again."""
    lines: list[str] = []
    async with Relay(worker.address, FAST) as relay, following(relay, cache, lines) as agent:
        first, local = agent.plan, len(agent.manifest.segments)
        await agent.switch(Plan(boundary=local, codec="none", why="by hand"))
        assert agent.session.present.adapter is not None
        uplink = agent.session.present.adapter.controller.uplink = UplinkEstimate()
        uplink.sent(time.perf_counter(), 1000, 16_000.0)  # all on the device is best, as it seems
        await relay.cut(0.2)
        for _ in range(100):
            if agent.session.workers.stream is None:
                break
            await asyncio.sleep(0.05)
        assert agent.session.workers.stream is None
        await infer_until(agent, lambda: agent.plan.boundary == first.boundary, pixels)
        result = await agent.infer({"pixels": pixels[:1]})
        assert result.outcome is Outcome.ANSWERED


async def test_frames_without_an_answer_are_told_from_the_first_stream_on(
    worker: Worker, pixels: np.ndarray, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[float] = []
    monkeypatch.setattr(Controller, "late", lambda self, now_s, nbytes, ms: late.append(ms))
    async with (
        Relay(worker.address, FAST) as relay,
        following(relay, cache, [], budget_ms=2000.0, auto=AutoPlan()) as agent,  # it probes
    ):
        assert not agent.is_local
        assert (await agent.infer({"pixels": pixels[:1]})).outcome is Outcome.ANSWERED
        async with stalled(relay):
            await agent.infer({"pixels": pixels[:1]})
        assert len(late) == 1
        assert late[0] > 100


async def test_a_pause_between_two_live_streams_is_no_gap_between_frames(
    worker: Worker, pixels: np.ndarray, cache: Path
) -> None:
    async def camera() -> AsyncIterator[Given]:
        for _ in range(6):
            yield Given(inputs={"pixels": pixels[:1]})
            await asyncio.sleep(0.02)

    async with Relay(worker.address, FAST) as relay, following(relay, cache, []) as agent:
        assert agent.session.present.adapter is not None
        controller = agent.session.present.adapter.controller
        known: list[float | None] = []
        for _ in range(2):
            async for _ in agent.stream(camera(), live=True):
                known.append(controller.interval_ms)
            assert controller.interval_ms is None  # nothing to keep up with any more
            if agent.session.intake._arrived_s:
                agent.session.intake._arrived_s -= 1000.0
        assert any(known)
        assert all(ms is None or 10 < ms < 50_000 for ms in known)


# The adapter alone. ------------------------------------------------------------------------------


class Stream:
    """Echoes at once, and may send a frame meanwhile."""

    def __init__(self, round_trip_ms: float = 5.0) -> None:
        self.round_trip_ms, self.sent_s, self.idle = round_trip_ms, 0.0, True
        self.load = pb.Load(queue_ms=7.0, slowdown=2.0, wait_ms=[7.0])
        self.probes: list[int] = []
        self.before: Callable[[int], None] = lambda padding: None

    async def probe(self, padding: int = 0) -> float:
        self.before(padding)
        self.probes.append(padding)
        await asyncio.sleep(0)
        return 5.0


class Told:
    """Stands in for the controller, and remembers."""

    def __init__(self) -> None:
        self.echoes: list[float] = []
        self.factors: list[float] = []
        self.conditions = SimpleNamespace(round_trip_ms=50.0)
        self.current, self.due = 0, [4096, 16384]
        self.decision: object = None

    def probe_bytes(self, now_s: float) -> int | None:
        return self.due.pop(0) if self.due else None

    def echoed(self, now_s: float, nbytes: float, ms: float) -> None:
        self.echoes.append(nbytes)

    def load(self, now_s: float, queue_ms: float, server_factor: float) -> None:
        self.factors.append(server_factor)

    def decide(self, now_s: float) -> object:
        decision, self.decision = self.decision, None
        return decision

    def answered(self, now_s: float, index: int, *, server_ms: float, **seen: float) -> None:
        self.factors.append(server_ms)


def adapter_of(told: Told, stream: Stream, switch: Callable[..., object]) -> Adapter:
    workers = SimpleNamespace(
        stream=stream, current=SimpleNamespace(usable=True), look_for=lambda: None
    )
    table = SimpleNamespace(
        boundary=[0, 1], codec=("raw", "raw"), runtime=("onnxruntime",) * 2, sends=[1.0, 1.0]
    )
    return Adapter(
        table,  # type: ignore[arg-type]
        cast(Controller, told),
        cast(Workers, workers),
        switch,  # type: ignore[arg-type]
        lambda why: None,
    )


async def test_probes_follow_each_other_as_long_as_they_are_due() -> None:
    told, stream = Told(), Stream()
    adapter = adapter_of(told, stream, lambda plan: None)
    adapter.frame_ended()
    await asyncio.sleep(0.01)
    assert stream.probes == told.echoes == [0, 4096, 16384]
    assert told.factors == [2.0] * 3
    await adapter.close()


@pytest.mark.parametrize("during", [0, 4096])
async def test_a_probe_that_shared_the_link_with_a_frame_says_nothing(during: int) -> None:
    """Also where the frame began before the bytes that are timed, and is still on its way."""
    told, stream = Told(), Stream()

    def frame_goes(padding: int) -> None:
        if padding == during:
            stream.sent_s = float("inf")

    stream.before = frame_goes
    adapter = adapter_of(told, stream, lambda plan: None)
    adapter.frame_ended()
    await asyncio.sleep(0.01)
    assert stream.probes == ([0] if during == 0 else [0, 4096])
    assert told.echoes == stream.probes[:-1]
    await adapter.close()


async def test_no_probe_while_frames_are_under_way() -> None:
    told, stream = Told(), Stream()
    stream.idle = False
    adapter = adapter_of(told, stream, lambda plan: None)
    adapter.frame_ended()
    await asyncio.sleep(0.01)
    assert stream.probes == []
    await adapter.close()


async def test_another_worker_has_a_round_trip_of_its_own() -> None:
    told, near, far = Told(), Stream(5.0), Stream(80.0)
    adapter = adapter_of(told, near, lambda plan: None)
    plan = Plan(boundary=1, codec="raw")
    answer = Answer(
        reply=pb.Reply(), answer_ms=40.0, server_ms=30.0, queue_ms=6.0, bytes_up=1000, left_ms=1.0
    )
    for stream, known_ms in ((near, 5.0), (far, 80.0), (far, 80.0), (near, 5.0)):
        adapter.answered(plan, "raw", answer, cast(FrameStream, stream), 3)
        assert told.conditions.round_trip_ms == known_ms
    assert told.factors == [8.0] * 4  # milliseconds for one of three samples, without the queue
    await adapter.close()


async def test_a_switch_that_fails_leaves_the_plan_and_may_be_tried_again() -> None:
    told, stream, tried = Told(), Stream(), []

    async def switch(plan: Plan) -> None:
        tried.append(plan.boundary)
        raise UnreachableError("gone")

    adapter = adapter_of(told, stream, switch)
    for _ in range(2):
        told.decision, told.current = SimpleNamespace(before=0, after=1, why="better"), 1
        adapter.frame_ended()
        await asyncio.sleep(0.01)
        assert told.current == 0
    assert tried == [1, 1]
    await adapter.close()
