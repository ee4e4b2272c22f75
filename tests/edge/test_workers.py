"""Several workers: which is asked, what happens when one fails, and when it comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_faults import connect_to
from patience import PATIENCE_S, until
from splitpoint.edge import AgentError, EdgeAgent, FakeWorker, Outcome, Result
from splitpoint.edge.link import breaker as breaker_module
from splitpoint.edge.link import workers as workers_module
from splitpoint.edge.link.breaker import MOST_FAILURES
from splitpoint.edge.link.workers import WorkerLink, parse_servers
from splitpoint.edge.transport.fake_worker import answers
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.relative_error import relative_error
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import CheckedFrame
from splitpoint.proto.status import UnreachableError

NOBODY = "127.0.0.1:9"
Two = tuple[FakeWorker, FakeWorker]


@pytest.fixture
def two(small_bundle: Bundle) -> Two:
    return FakeWorker(small_bundle, address="one:1"), FakeWorker(small_bundle, address="two:2")


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers stay where frames have taken them: the watch looks, and does not move."""
    monkeypatch.setattr(workers_module, "SOONER", 0.0)


def agent_of(workers: Sequence[FakeWorker], cache: Path, **options: object) -> EdgeAgent:
    fields: dict[str, object] = {"split": "1", "codec": "raw", "budget_ms": 30_000.0} | options
    servers = [worker.address for worker in workers]
    return EdgeAgent(servers, connect=connect_to(*workers), cache=cache, **fields)


def in_use(agent: EdgeAgent) -> str:
    return agent.session.workers.current.server


def link_to(agent: EdgeAgent, worker: FakeWorker) -> WorkerLink:
    return next(link for link in agent.session.workers.links if link.server == worker.address)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:7070", ["a:7070"]),
        (" a:7070 , b:7071", ["a:7070", "b:7071"]),
        ("[::1]:7070,a:1", ["[::1]:7070", "a:1"]),
        ("a:65535", ["a:65535"]),
    ],
)
def test_addresses(text: str, expected: list[str]) -> None:
    assert parse_servers(text) == expected


@pytest.mark.parametrize(
    "text", ["", ",", "a", "a:", ":7070", "a:0", "a:65536", "a:123456", "a:b", "a:1,,b:1", "a:1,"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(AgentError, match="HOST:PORT"):
        parse_servers(text)


def test_ipv6_wants_brackets() -> None:
    assert parse_servers("[::1]:7070,[2001:db8::1]:7070") == ["[::1]:7070", "[2001:db8::1]:7070"]
    with pytest.raises(AgentError, match="brackets"):
        parse_servers("::1:7070")


def test_duplicates_are_refused() -> None:
    for server in ("a:1,b:1, a:1", ["a:1", "a:1"]):
        with pytest.raises(AgentError, match="a:1 is named twice"):
            EdgeAgent(server)
    with pytest.raises(AgentError):
        EdgeAgent([])


async def test_one_unreachable_at_the_start_is_gone_on_without(
    two: Two,
    small_bundle: Bundle,
    pixels: np.ndarray,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Wherever it stands, and with a bundle of the device's own too."""
    nobody, neither = (FakeWorker(small_bundle, address=name) for name in (NOBODY, "127.0.0.1:7"))
    nobody.cut()
    neither.cut()
    for options in ({}, {"bundle": small_bundle.folder}, {"split": "auto", "adapt": True}):
        async with agent_of([nobody, two[0]], tmp_path, **options) as agent:
            assert in_use(agent) == two[0].address
            result = await agent.infer({"pixels": pixels})
            assert result.outcome in (Outcome.ANSWERED, Outcome.LOCAL)
            if agent.plan.boundary == 1:
                assert result.outcome is Outcome.ANSWERED
        assert f"no worker answers at {NOBODY}" in caplog.text
        caplog.clear()
    with pytest.raises(UnreachableError):
        async with agent_of([nobody, neither], tmp_path / "new"):
            pass


@pytest.mark.usefixtures("still")
async def test_no_frame_is_lost_when_the_worker_in_use_dies_under_load(
    two: Two, small: ModelSpec, pixels: np.ndarray, tmp_path: Path
) -> None:
    """Frames that it held are sent to the other: nothing is finished on the device."""
    with torch.inference_mode():
        expected = small.module(torch.tensor(pixels)).numpy()
    results: list[Result] = []
    for worker in two:
        worker.link.round_trip_ms = 2.0
    async with agent_of(two, tmp_path, finish_locally=False) as agent:
        by_address = {worker.address: worker for worker in two}
        standby = next(worker for worker in two if worker.address != in_use(agent))
        await until(lambda: link_to(agent, standby).wait_ms is not None)  # it keeps a stream
        going = True

        async def load() -> None:
            while going:
                results.append(await agent.infer({"pixels": pixels}))

        loads = [asyncio.create_task(load()) for _ in range(6)]
        for _ in range(3):
            before = by_address[in_use(agent)]
            back, count = link_to(agent, before), len(results)
            await until(lambda count=count: len(results) > count + 12)
            before.cut()
            await until(lambda before=before: in_use(agent) != before.address)
            count = len(results)
            await until(lambda count=count: len(results) > count + 12)
            await until(lambda back=back: back.breaker.is_open)
            before.mend()
            await until(lambda back=back: back.usable)
        going = False
        await asyncio.gather(*loads)
        assert [one.why for one in results if one.outcome is not Outcome.ANSWERED] == []
        assert all(relative_error(one.outputs["output"], expected) < 1e-4 for one in results)
        moved = [one for one in results if one.why.startswith("sent to ")]
        assert len(moved) >= 3
        assert "after: " in moved[0].why
        assert sum(agent.outcomes.values()) == len(results)


@pytest.mark.usefixtures("still")
async def test_a_worker_is_left_alone_until_it_echoes_and_then_used_again(
    two: Two, pixels: np.ndarray, tmp_path: Path
) -> None:
    one, other = two
    async with agent_of(two, tmp_path, finish_locally=False) as agent:
        first = link_to(agent, one)
        agent.session.workers.move_to(first)
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
        one.cut()
        for _ in range(MOST_FAILURES):
            await asyncio.sleep(0)
            agent.session.workers.move_to(first)
            assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
        assert in_use(agent) == other.address
        await until(lambda: first.breaker.is_open)
        sent = len(one.frames)
        for _ in range(10):
            assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
        assert in_use(agent) == other.address
        assert len(one.frames) == sent
        one.mend()
        await until(lambda: first.usable and first.wait_ms is not None)
        other.cut()  # now frames come back
        result = await agent.infer({"pixels": pixels})
        assert result.outcome is Outcome.ANSWERED
        assert in_use(agent) == one.address


@pytest.mark.usefixtures("still")
async def test_each_worker_is_asked_once_where_all_are_overloaded(
    two: Two, pixels: np.ndarray, tmp_path: Path
) -> None:
    """Sending a frame to and fro until its budget ends would load them all the more."""

    async def full(frame: CheckedFrame) -> pb.Status:
        return pb.OVERLOADED

    async with agent_of(two, tmp_path) as agent:
        await agent.settled()
        for worker in two:
            worker.script = full
        result = await agent.infer({"pixels": pixels})
        assert [len(worker.frames) for worker in two] == [1, 1]
        assert result.outcome is Outcome.LOCAL
        assert "the worker answered OVERLOADED" in result.why
        for worker in two:
            worker.script = answers
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED


async def test_a_worker_of_another_bundle_is_never_used(
    two: Two,
    small: ModelSpec,
    small_bundle: Bundle,
    pixels: np.ndarray,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not even when the right one is gone: it would refuse every frame."""
    other = compile_model(small, tmp_path / "small.split", boundaries=3)
    stranger, right = FakeWorker(other, address="stranger:3"), two[0]
    async with agent_of(
        [stranger, right], tmp_path, bundle=small_bundle.folder, budget_ms=3000.0
    ) as agent:
        assert in_use(agent) == right.address
        await agent.settled()
        await until(lambda: link_to(agent, stranger).breaker.is_open)
        await until(lambda: "give both ends the same bundle" in caplog.text)
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
        right.cut()
        for _ in range(4):
            result = await agent.infer({"pixels": pixels})
            assert result.outcome is Outcome.LOCAL, result.why
        assert in_use(agent) == right.address
    assert not stranger.frames


async def test_frames_move_to_a_worker_that_answers_much_sooner(
    two: Two, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "WATCH_S", 0.1)
    far, near = two
    far.link.round_trip_ms = 400.0
    async with agent_of(two, tmp_path) as agent:
        assert in_use(agent) == near.address  # the nearest described the bundle first
        agent.session.workers.move_to(link_to(agent, far))
        await agent.session.workers.current.connection.live()
        await until(lambda: in_use(agent) == near.address)
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED


async def test_a_near_worker_that_answers_nothing_is_tried_ever_more_rarely(
    two: Two, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It echoes, and so looks like the nearest again and again."""
    monkeypatch.setattr(workers_module, "WATCH_S", 0.05)
    monkeypatch.setattr(breaker_module, "SHUNNED_S", 0.5)
    near, far = two
    far.link.round_trip_ms = 50.0

    async def silent(frame: CheckedFrame) -> pb.Status:
        await asyncio.sleep(PATIENCE_S)
        return pb.OK

    async with agent_of(two, tmp_path, budget_ms=150.0) as agent:
        await agent.settled()
        assert in_use(agent) == near.address
        near.script = silent
        end_s, moved = time.perf_counter() + 1.5, 0
        while time.perf_counter() < end_s:
            before = in_use(agent)
            await agent.infer({"pixels": pixels})
            moved += (before, in_use(agent)) == (near.address, far.address)
        assert in_use(agent) == far.address
        assert 1 <= moved <= 3  # at once, and half a second later
        near.script = answers
        await until(lambda: in_use(agent) == near.address)
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED


@pytest.mark.parametrize("status", [pb.MALFORMED, pb.CORRUPT, pb.KEY_FRAME, pb.OK])
async def test_a_worker_that_ends_every_frame_without_an_answer_costs_two_of_them(
    two: Two, pixels: np.ndarray, tmp_path: Path, status: pb.Status
) -> None:
    """It is the nearest, it echoes, and it replies at once; with OK it sends no outputs."""
    near, far = two
    far.link.round_trip_ms = 20.0

    async def replies(frame: CheckedFrame) -> pb.Status:
        return status

    async with agent_of(two, tmp_path, finish_locally=False) as agent:
        assert in_use(agent) == near.address
        near.script, near.finish = replies, lambda frame: []  # type: ignore[method-assign]
        ends = [(await agent.infer({"pixels": pixels})).outcome for _ in range(6)]
        assert ends == [Outcome.FAILED] * MOST_FAILURES + [Outcome.ANSWERED] * (6 - MOST_FAILURES)


async def test_nothing_goes_on_after_the_end_of_an_agent_with_frames_under_way(
    two: Two, pixels: np.ndarray, tmp_path: Path
) -> None:
    agent = agent_of(two, tmp_path, finish_locally=False)
    async with agent:
        agent.session.workers.move_to(link_to(agent, two[0]))
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
        two[0].link.stall()
        asking = [asyncio.create_task(agent.infer({"pixels": pixels})) for _ in range(6)]
        stream = agent.session.workers.current.connection.stream
        assert stream is not None
        await until(lambda: stream.session.bytes_under_way > 0)
    results = await asyncio.wait_for(asyncio.gather(*asking), PATIENCE_S)
    assert {one.outcome for one in results} == {Outcome.FAILED}
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert not names & {"probe-worker", "ask-worker", "open-stream", "watch-workers"}
    assert not agent.session.workers.current.breaker.is_open


async def test_a_close_that_is_cancelled_ends_every_stream(two: Two, tmp_path: Path) -> None:
    async with agent_of(two, tmp_path) as agent:
        await until(lambda: [worker.streams for worker in two] == [1, 1])
        closing = asyncio.create_task(agent.session.workers.close())
        await asyncio.sleep(0)  # it waits for the watch to end
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        assert closing.cancelled()
        await until(lambda: [worker.streams for worker in two] == [0, 0])


async def test_a_probe_that_loses_its_cancellation_ends_all_the_same() -> None:
    """As `asyncio.wait_for` does where what it waits for fails in the same moment."""

    class Connection:
        stream = None
        asked = asyncio.Event()

        async def live(self, timeout_s: float) -> None:
            self.asked.set()
            try:
                await asyncio.sleep(PATIENCE_S)
            except asyncio.CancelledError:
                raise UnreachableError("it failed in the same moment") from None

    connection = Connection()
    breaker = breaker_module.Breaker(connection)  # type: ignore[arg-type]
    breaker.open()
    await connection.asked.wait()
    closing = asyncio.create_task(breaker.close())
    done, _ = await asyncio.wait([closing], timeout=2.0)
    assert done
