"""Several workers: which is asked, what happens when one fails, and when it comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from patience import FOREVER_S, PATIENCE_S, refusing, until
from splitpoint.cli.emulate.relay import Relay
from splitpoint.cloud.engine.engine import Engine
from splitpoint.cloud.worker import Worker
from splitpoint.edge import AgentError, EdgeAgent, Outcome, Result
from splitpoint.edge.link import workers as workers_module
from splitpoint.edge.link.breaker import FAILURES
from splitpoint.edge.link.workers import WorkerLink, parse_servers
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.plan.link import parse_link
from splitpoint.partition.relative_error import relative_error
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError
from splitpoint.proto.status import UnreachableError

FAST = parse_link("1000mbps,0ms")
NOBODY = "127.0.0.1:9"


@pytest.fixture
async def two(small_bundle: Bundle) -> AsyncIterator[tuple[Worker, Worker]]:
    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(
                Worker([small_bundle.folder], listen="127.0.0.1:0", device="cpu", grace_s=0.1)
            )
            for _ in range(2)
        ]
        yield first, second


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers stay where frames have taken them: the watch looks, and does not move."""
    monkeypatch.setattr(workers_module, "SOONER", 0.0)


def agent_of(server: str | list[str], cache: Path, **options: object) -> EdgeAgent:
    fields: dict[str, object] = {"split": "1", "codec": "raw", "budget_ms": 30_000.0} | options
    return EdgeAgent(server, cache=cache, **fields)  # type: ignore[arg-type]


def in_use(agent: EdgeAgent) -> str:
    return agent.session.workers.current.server


def link_to(agent: EdgeAgent, server: str) -> WorkerLink:
    return next(link for link in agent.session.workers._links if link.server == server)


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
    two: tuple[Worker, Worker],
    small_bundle: Bundle,
    pixels: np.ndarray,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Wherever it stands, and with a bundle of the device's own too."""
    for options in ({}, {"bundle": small_bundle.folder}, {"split": "auto", "adapt": True}):
        async with agent_of([NOBODY, two[0].address], tmp_path, **options) as agent:
            assert in_use(agent) == two[0].address
            result = await agent.infer({"pixels": pixels})
            assert result.outcome in (Outcome.ANSWERED, Outcome.LOCAL)
            if agent.plan.boundary == 1:
                assert result.outcome is Outcome.ANSWERED
        assert f"no worker answers at {NOBODY}" in caplog.text
        caplog.clear()
    with pytest.raises(UnreachableError):
        async with agent_of([NOBODY, "127.0.0.1:7"], tmp_path / "new"):
            pass


@pytest.mark.usefixtures("still")
async def test_no_frame_is_lost_when_the_worker_in_use_dies_under_load(
    two: tuple[Worker, Worker], small: ModelSpec, pixels: np.ndarray, tmp_path: Path
) -> None:
    """Frames that it held are sent to the other: nothing is finished on the device."""
    with torch.inference_mode():
        expected = small.module(torch.tensor(pixels)).numpy()
    results: list[Result] = []
    async with (
        Relay(two[0].address, FAST) as one,
        Relay(two[1].address, FAST) as other,
        agent_of(f"{one.address},{other.address}", tmp_path, finish_locally=False) as agent,
    ):
        relays = {one.address: one, other.address: other}
        standby = link_to(agent, next(a for a in relays if a != in_use(agent)))
        await until(lambda: standby.wait_ms is not None)  # it keeps a stream
        going = True

        async def load() -> None:
            while going:
                results.append(await agent.infer({"pixels": pixels}))

        loads = [asyncio.create_task(load()) for _ in range(6)]
        for _ in range(3):
            before, count = in_use(agent), len(results)
            await until(lambda count=count: len(results) > count + 12)
            cut = asyncio.create_task(relays[before].cut(0.5))
            await until(lambda before=before: in_use(agent) != before)
            count = len(results)
            await until(lambda count=count: len(results) > count + 12)
            await cut
            back = link_to(agent, before)
            await until(lambda back=back: back.usable and back.breaker._trial_at is not None)
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
    two: tuple[Worker, Worker], pixels: np.ndarray, tmp_path: Path
) -> None:
    async with (
        Relay(two[0].address, FAST) as one,
        agent_of([one.address, two[1].address], tmp_path, finish_locally=False) as agent,
    ):
        agent.session.workers.move_to(link_to(agent, one.address))
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
        first = link_to(agent, one.address)
        async with refusing(one):
            for _ in range(FAILURES):
                await asyncio.sleep(0)
                agent.session.workers.move_to(first)
                assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
            assert in_use(agent) == two[1].address
            await until(lambda: first.breaker.is_open)
            sent = one.uplink_bytes
            for _ in range(10):
                assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
            assert in_use(agent) == two[1].address
            assert one.uplink_bytes == sent
        await until(lambda: first.usable and first.wait_ms is not None)
        # Now the other goes, and frames come back.
        await two[1].__aexit__(None, None, None)

        for _ in range(500):
            result = await agent.infer({"pixels": pixels})
            if result.outcome is Outcome.ANSWERED and in_use(agent) == one.address:
                break
            await asyncio.sleep(0.05)
        assert result.outcome is Outcome.ANSWERED
        assert in_use(agent) == one.address


@pytest.mark.usefixtures("still")
async def test_each_worker_is_asked_once_where_all_are_overloaded(
    two: tuple[Worker, Worker],
    pixels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sending a frame to and fro until its budget ends would load them all the more."""
    asked: list[object] = []

    def full(self: Engine, job: object) -> None:
        asked.append(self)
        raise FrameError(pb.OVERLOADED, "99 frames wait already")

    async with agent_of([worker.address for worker in two], tmp_path) as agent:
        await agent.session.finish.wait()
        monkeypatch.setattr(Engine, "submit", full)
        result = await agent.infer({"pixels": pixels})
        assert len(asked) == len(set(map(id, asked))) == 2
        assert result.outcome is Outcome.LOCAL
        assert "99 frames wait already" in result.why
        monkeypatch.undo()
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED


async def test_a_worker_of_another_bundle_is_never_used(
    two: tuple[Worker, Worker],
    small: ModelSpec,
    pixels: np.ndarray,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not even when the right one is gone: it would refuse every frame."""
    other = compile_model(small, tmp_path / "small.split", boundaries=3)
    own = two[0].models
    async with Worker([other.folder], listen="127.0.0.1:0", grace_s=0.1) as stranger:
        bundle = next(iter(own.values())).bundle.folder
        async with agent_of(
            [stranger.address, two[0].address], tmp_path, bundle=bundle, budget_ms=3000.0
        ) as agent:
            assert in_use(agent) == two[0].address
            await agent.session.finish.wait()
            refused = link_to(agent, stranger.address)
            await until(lambda: refused.breaker.is_open)
            assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
            await two[0].__aexit__(None, None, None)
            for _ in range(4):
                result = await agent.infer({"pixels": pixels})
                assert result.outcome is Outcome.LOCAL, result.why
            assert in_use(agent) == two[0].address
        assert "give both ends the same bundle" in caplog.text


async def test_frames_move_to_a_worker_that_answers_much_sooner(
    two: tuple[Worker, Worker],
    pixels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers_module, "WATCH_S", 0.1)
    far = parse_link("1000mbps,400ms")
    async with (
        Relay(two[0].address, far) as relay,
        agent_of([relay.address, two[1].address], tmp_path) as agent,
    ):
        assert in_use(agent) == two[1].address  # the nearest described the bundle first
        agent.session.workers.move_to(link_to(agent, relay.address))
        await agent.session.workers.current.connection.live()
        await until(lambda: in_use(agent) == two[1].address)
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED


async def test_nothing_goes_on_after_the_end_of_an_agent_with_frames_under_way(
    two: tuple[Worker, Worker], pixels: np.ndarray, tmp_path: Path
) -> None:
    async with Relay(two[0].address, FAST) as relay:
        agent = agent_of([relay.address, two[1].address], tmp_path, finish_locally=False)
        async with agent:
            agent.session.workers.move_to(link_to(agent, relay.address))
            assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
            stalling = asyncio.create_task(relay.stall(FOREVER_S))
            await asyncio.sleep(0)  # it begins
            asking = [asyncio.create_task(agent.infer({"pixels": pixels})) for _ in range(6)]
            await asyncio.sleep(0.1)
        results = await asyncio.wait_for(asyncio.gather(*asking), PATIENCE_S)
        assert {one.outcome for one in results} == {Outcome.FAILED}
        stalling.cancel()
        await asyncio.gather(stalling, return_exceptions=True)
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not names & {"probe-worker", "ask-worker", "open-stream", "watch-workers"}
        assert not agent.session.workers.current.breaker.is_open
