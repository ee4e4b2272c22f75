"""An agent follows its link: away when it gets slow, and back when it is fast again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from patience import until
from splitpoint.edge import EdgeAgent, FakeWorker, Given, Outcome
from splitpoint.edge.dispatch.adapt import Adapter
from splitpoint.edge.dispatch.auto_plan import AutoPlan
from splitpoint.edge.dispatch.controller import Controller
from splitpoint.edge.dispatch.observer import Observer
from splitpoint.edge.link.frame_stream import FrameStream
from splitpoint.edge.link.workers import Workers
from splitpoint.partition.plan.link import parse_link
from splitpoint.partition.plan.plan import Plan
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.session.answer_times import Answer
from splitpoint.proto.status import UnreachableError

FAST = parse_link("100mbps,1ms")
SLOW_MBPS, FAST_MBPS = 0.01, 100.0
SLOWDOWN = 300.0  # the net takes a fraction of a millisecond here: the worker is to be worth it
PATIENCE = 400  # frames


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: the device is profiled once."""
    return tmp_path_factory.mktemp("cache")


@asynccontextmanager
async def following(
    worker: FakeWorker, cache: Path, lines: list[str], **options: object
) -> AsyncIterator[EdgeAgent]:
    worker.link.uplink_mbps, worker.link.round_trip_ms = FAST_MBPS, 1.0
    fields: dict[str, object] = {"slowdown": SLOWDOWN, "budget_ms": 20_000.0} | options
    fields = {"auto": AutoPlan(link=FAST)} | fields
    async with EdgeAgent(worker.address, connect=worker.connect, cache=cache, **fields) as agent:
        agent.on_switch = lines.append
        yield agent


async def infer_until(agent: EdgeAgent, done: Callable[[], bool], pixels: np.ndarray) -> None:
    for _ in range(PATIENCE):
        result = await agent.infer({"pixels": pixels[:1]})
        assert result.outcome in (Outcome.ANSWERED, Outcome.LOCAL), result.why
        if done():
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"still {agent.plan}")


def same_cut(one: Plan, other: Plan) -> bool:
    return (one.boundary, one.codec) == (other.boundary, other.codec)


def bytes_of(agent: EdgeAgent) -> float:
    """What the present plan sends, as the report has it."""
    assert agent.report is not None
    return next(c.bytes_up for c in agent.report.candidates if same_cut(c, agent.plan))


@pytest.mark.slow
async def test_the_plan_follows_the_link_there_and_back(
    worker: FakeWorker, pixels: np.ndarray, cache: Path
) -> None:
    lines: list[str] = []
    async with following(worker, cache, lines) as agent:
        first = agent.plan
        assert not agent.is_local
        for _ in range(5):
            assert (await agent.infer({"pixels": pixels[:1]})).boundary == first.boundary
        sent = bytes_of(agent)

        worker.link.uplink_mbps = SLOW_MBPS
        await infer_until(agent, lambda: bool(lines) and agent.plan != first, pixels)
        less = bytes_of(agent)
        assert less < sent
        assert lines[0].startswith("uplink ")
        assert " -> " in lines[0]
        assert agent.plan.why == lines[-1]
        assert agent.uplink_mbps is not None
        assert agent.uplink_mbps < 1

        worker.link.uplink_mbps = FAST_MBPS
        await infer_until(agent, lambda: same_cut(agent.plan, first), pixels)
        assert bytes_of(agent) == sent > less
        assert len(lines) >= 2
        assert sum(agent.outcomes.values()) > 5
        assert agent.outcomes[Outcome.FAILED] == agent.outcomes[Outcome.EXPIRED] == 0


async def test_who_does_not_adapt_keeps_the_plan(
    worker: FakeWorker, pixels: np.ndarray, cache: Path
) -> None:
    lines: list[str] = []
    async with following(worker, cache, lines, adapt=False) as agent:
        first = agent.plan
        worker.link.uplink_mbps = 0.05
        for _ in range(8):
            assert (await agent.infer({"pixels": pixels[:1]})).boundary == first.boundary
        assert (agent.plan, lines) == (first, [])
        assert agent.uplink_mbps is None


async def test_a_stream_that_breaks_while_all_runs_here_is_opened_again(
    worker: FakeWorker, pixels: np.ndarray, cache: Path
) -> None:
    """No frame would do it: without, the device would never hear of a better link again."""
    lines: list[str] = []
    async with following(worker, cache, lines, budget_ms=1000.0) as agent:
        first = agent.plan
        await agent.settled()
        worker.link.uplink_mbps = 0.002
        await infer_until(agent, lambda: agent.is_local, pixels)
        worker.cut()
        await until(lambda: agent.session.workers.stream is None)
        worker.mend()
        worker.link.uplink_mbps = FAST_MBPS
        await infer_until(agent, lambda: agent.plan.boundary == first.boundary, pixels)
        result = await agent.infer({"pixels": pixels[:1]})
        assert result.outcome is Outcome.ANSWERED


class Told(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.taken_s: list[float] = []
        self.late_ms: list[float] = []
        self.streams_ended = 0

    def frame_taken(self, now_s: float) -> None:
        self.taken_s.append(now_s)

    def frame_late(self, nbytes: int, waited_ms: float) -> None:
        self.late_ms.append(waited_ms)

    def stream_ended(self) -> None:
        self.streams_ended += 1


async def test_frames_without_an_answer_are_told_from_the_first_stream_on(
    worker: FakeWorker, pixels: np.ndarray, cache: Path
) -> None:
    async with following(
        worker,
        cache,
        [],
        budget_ms=1000.0,
        auto=AutoPlan(),
        adapt=False,  # it probes
    ) as agent:
        assert not agent.is_local
        told = agent.session.present.observer = Told()
        assert (await agent.infer({"pixels": pixels[:1]})).outcome is Outcome.ANSWERED
        assert not told.late_ms
        worker.link.stall()
        await agent.infer({"pixels": pixels[:1]})
        assert len(told.late_ms) == 1
        assert told.late_ms[0] > 100


async def test_frames_of_a_live_source_are_told_and_their_end(
    worker: FakeWorker, pixels: np.ndarray, cache: Path
) -> None:
    async def camera() -> AsyncIterator[Given]:
        for number in range(6):
            yield Given(inputs={"pixels": pixels[:1]}, metadata=number)

    async with following(worker, cache, []) as agent:
        told = agent.session.present.observer = Told()
        for streams in (1, 2):
            results = [result async for result in agent.stream(camera(), live=True)]
            assert len(results) == 6
            assert len(told.taken_s) == 6 * streams
            assert told.streams_ended == streams
        assert told.taken_s == sorted(told.taken_s)


# The adapter alone. ------------------------------------------------------------------------------


class Stream:
    """Echoes at once, and may send a frame meanwhile."""

    def __init__(self, round_trip_ms: float = 5.0) -> None:
        self.round_trip_ms, self.sent_s, self.idle = round_trip_ms, 0.0, True
        self.session = self
        self.load = pb.Load(queue_ms=7.0, slowdown=2.0, wait_ms=[7.0])
        self.probes: list[int] = []
        self.before: Callable[[int], None] = lambda padding: None

    async def probe(self, padding: int = 0) -> float:
        self.before(padding)
        self.probes.append(padding)
        await asyncio.sleep(0)
        return 5.0


class ToldController:
    """Stands in for the controller, and remembers."""

    def __init__(self) -> None:
        self.echoes: list[float] = []
        self.factors: list[float] = []
        self.conditions = SimpleNamespace(round_trip_ms=50.0)
        self.interval_ms: float | None = None
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


def adapter_of(told: ToldController, stream: Stream, switch: Callable[..., object]) -> Adapter:
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
    told, stream = ToldController(), Stream()
    adapter = adapter_of(told, stream, lambda plan: None)
    adapter.frame_ended()
    await asyncio.sleep(0.01)
    assert stream.probes == told.echoes == [0, 4096, 16384]
    assert told.factors == [2.0] * 3
    await adapter.close()


@pytest.mark.parametrize("during", [0, 4096])
async def test_a_probe_that_shared_the_link_with_a_frame_says_nothing(during: int) -> None:
    """Also where the frame began before the bytes that are timed, and is still on its way."""
    told, stream = ToldController(), Stream()

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
    told, stream = ToldController(), Stream()
    stream.idle = False
    adapter = adapter_of(told, stream, lambda plan: None)
    adapter.frame_ended()
    await asyncio.sleep(0.01)
    assert stream.probes == []
    await adapter.close()


async def test_another_worker_has_a_round_trip_of_its_own() -> None:
    told, near, far = ToldController(), Stream(5.0), Stream(80.0)
    adapter = adapter_of(told, near, lambda plan: None)
    plan = Plan(boundary=1, codec="raw")
    answer = Answer(
        reply=pb.Reply(), answer_ms=40.0, server_ms=30.0, queue_ms=6.0, bytes_up=1000, left_ms=1.0
    )
    for stream, known_ms in ((near, 5.0), (far, 80.0), (far, 80.0), (near, 5.0)):
        adapter.frame_answered(plan, "raw", answer, cast(FrameStream, stream), 3)
        assert told.conditions.round_trip_ms == known_ms
    assert told.factors == [8.0] * 4  # milliseconds for one of three samples, without the queue
    await adapter.close()


async def test_a_switch_that_fails_leaves_the_plan_and_may_be_tried_again() -> None:
    told, stream, tried = ToldController(), Stream(), []

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


async def test_a_pause_between_two_live_streams_is_no_gap_between_frames() -> None:
    told = ToldController()
    adapter = adapter_of(told, Stream(), lambda plan: None)
    known: list[float | None] = []
    for begin_s in (10.0, 2000.0):
        for frame in range(4):
            adapter.frame_taken(begin_s + 0.02 * frame)
            known.append(told.interval_ms)
        adapter.stream_ended()
        assert told.interval_ms is None  # nothing to keep up with any more
    assert known == [None, *[pytest.approx(20.0)] * 3] * 2
    await adapter.close()
