"""An agent with `auto` for a server: which worker it takes, what it says, and what it trusts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Command
from fake_faults import connect_to
from local_network import FakeNetwork, name_of, record
from patience import until
from splitpoint.edge import AgentError, Credentials, EdgeAgent, FakeWorker, Outcome
from splitpoint.edge.discovery import search as search_module
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.proto.status import UnreachableError

ONE, TWO = "192.0.2.10:7070", "192.0.2.11:7070"
TRUSTING = Credentials(insecure=True)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "LOOK_S", 0.05)
    monkeypatch.setattr(search_module, "PAUSE_S", 0.01)


def agent_of(network: FakeNetwork, *workers: FakeWorker, cache: Path, **options: Any) -> EdgeAgent:
    given = {"split": "1", "codec": "raw", "credentials": TRUSTING} | options
    return EdgeAgent("auto", connect=connect_to(*workers), network=network, cache=cache, **given)


async def answered(agent: EdgeAgent, pixels: np.ndarray) -> None:
    """Frames, until one of them goes to a worker."""
    for _ in range(1000):
        if (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED:
            return
        await asyncio.sleep(0.02)
    pytest.fail("frames do not go to a worker")


def serves(bundle: Bundle) -> dict[str, str]:
    return {bundle.digest: bundle.manifest.name}


async def test_the_one_that_is_chosen_is_said_and_the_others_are_there(
    small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = FakeWorker(small_bundle, address=ONE), FakeWorker(small_bundle, address=TWO)
    network = FakeNetwork({
        name_of("gate"): record(serves(small_bundle)),
        name_of("hall"): record(serves(small_bundle), host="192.0.2.11"),
    })  # fmt: skip
    async with agent_of(network, one, two, cache=tmp_path) as agent:
        chosen = agent.session.workers.current.server
        label = {ONE: "gate", TWO: "hall"}[chosen]
        assert f"frames go to {label} ({chosen}), which announces itself here" in caplog.text
        assert "others for when it fails: 1" in caplog.text
        await agent.settled()
        {ONE: one, TWO: two}[chosen].cut()
        await answered(agent, pixels)
        assert agent.session.workers.current.server != chosen


async def test_a_warm_cache_begins_alone_and_goes_on_looking(
    small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker, network = FakeWorker(small_bundle, address=ONE), FakeNetwork()
    network.announce("gate", record(serves(small_bundle)))
    async with agent_of(network, worker, cache=tmp_path) as agent:
        await agent.settled()
    network.announce("gate", None)
    moved = FakeWorker(small_bundle, address=TWO)  # the router gave it another address
    caplog.clear()
    async with agent_of(network, moved, cache=tmp_path) as agent:
        assert "no worker announces itself" in caplog.text
        assert "runs on this device alone" in caplog.text
        result = await agent.infer({"pixels": pixels})
        assert result.outcome is Outcome.LOCAL
        network.announce("gate", record(serves(small_bundle), host="192.0.2.11"))
        await until(lambda: f"gate ({TWO}) announces itself" in caplog.text)
        await answered(agent, pixels)


async def test_a_cold_cache_and_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="no worker announces itself") as caught:
        async with agent_of(FakeNetwork(), cache=tmp_path):
            pass
    assert "--announce auto" in caught.value.remedy
    assert "\n" not in str(caught.value)


async def test_what_others_announce_does_not_come_before_the_known_bundle(
    small_bundle: Bundle, int8_bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker, network = FakeWorker(small_bundle, address=ONE), FakeNetwork()
    network.announce("gate", record(serves(small_bundle)))
    async with agent_of(network, worker, cache=tmp_path) as agent:
        await agent.settled()
    other = FakeWorker(int8_bundle, address=TWO)
    for number in range(5):  # of another bundle, which most of them serve
        network.announce(f"a{number}", record(serves(int8_bundle), host="192.0.2.11", port=7070))
    async with agent_of(network, worker, other, cache=tmp_path) as agent:
        assert agent.digest == small_bundle.digest
        assert [link.server for link in agent.session.workers.links] == [ONE]


async def test_a_worker_with_other_addresses_gets_the_place_of_one_that_is_away(
    small_bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hosts = [f"192.0.2.{number}" for number in range(10, 30)]
    workers = [FakeWorker(small_bundle, address=f"{host}:7070") for host in hosts]
    network = FakeNetwork({name_of("gate"): record(serves(small_bundle), host=hosts[0])})
    async with agent_of(network, *workers, cache=tmp_path) as agent:
        for worker, host in zip(workers[1:], hosts[1:], strict=True):
            worker.cut()
            network.announce("gate", record(serves(small_bundle), host=host))
            await until(lambda worker=worker: f"({worker.address}) announces" in caplog.text)
            links = agent.session.workers.links
            assert len(links) <= search_module.MOST_WORKERS
        assert links[-1].server == workers[-1].address
        assert links[0].server == workers[0].address  # in use


@pytest.mark.parametrize(
    ("credentials", "says"),
    [
        (Credentials(), "frames would go to whoever"),
        (Credentials(token="secret", insecure=True), "the token would go to whoever"),
    ],
)
def test_an_announcement_is_no_reason_to_trust(credentials: Credentials, says: str) -> None:
    with pytest.raises(AgentError, match=says) as caught:
        EdgeAgent("auto", credentials=credentials, network=FakeNetwork())
    assert "--tls-ca" in caught.value.remedy
    assert "secret" not in str(caught.value)


def test_the_command_says_it_in_one_line(photos: Path, command: Command) -> None:
    done = command("run", "--server", "auto", "--source", photos)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: frames would go to whoever announces a worker: give --tls-ca")
