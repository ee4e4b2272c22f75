"""What a year on a pole brings: a real worker process behind a link that fails in every way.

Each test holds the same: outcomes add up, every frame has the model's answer, none is later than
its budget and one finish on the device, and the worker answers again within two seconds.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from course import BUDGET_MS, Course, WorkerProcess, course, until_back, worker_process
from garbage import GarblingProxy
from patience import until
from processes import MAIN, free_port, rest_of
from splitpoint.cli.emulate.relay import Relay
from splitpoint.edge import EdgeAgent, Outcome
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.plan.link import parse_link

pytestmark = pytest.mark.slow

LINK = parse_link("100mbps,10ms")


# How many processes take the calls, beside the one that computes.
both_ways = pytest.mark.parametrize("ingest", [0, 2], ids=["one-process", "ingest-2"])


@pytest.fixture(scope="module")
def worker(small_bundle: Bundle) -> Iterator[WorkerProcess]:
    with worker_process(small_bundle.folder, free_port()) as running:
        yield running


@pytest.fixture
async def relay(worker: WorkerProcess) -> AsyncIterator[Relay]:
    async with Relay(worker.address, LINK, seed=3) as running:
        yield running


@pytest.fixture
def expected(small: ModelSpec, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return small.module(torch.tensor(pixels)).numpy()


def agent_of(address: str, cache: Path, split: str = "1") -> EdgeAgent:
    return EdgeAgent(address, split=split, codec="q8", cache=cache, budget_ms=BUDGET_MS)


@both_ways
async def test_worker_killed_and_started_again(
    small_bundle: Bundle, pixels: np.ndarray, expected: np.ndarray, tmp_path: Path, ingest: int
) -> None:
    with worker_process(small_bundle.folder, free_port(), ingest) as worker:
        agent = agent_of(worker.address, tmp_path)
        async with course(agent, pixels, expected) as running:
            worker.end(signal.SIGKILL)  # frames are under way
            await until(lambda: running.count(Outcome.LOCAL) > 0)
            await until_back(running, asyncio.to_thread(worker.start))


@both_ways
async def test_worker_drained_and_started_again(
    small_bundle: Bundle, pixels: np.ndarray, expected: np.ndarray, tmp_path: Path, ingest: int
) -> None:
    with worker_process(small_bundle.folder, free_port(), ingest) as worker:
        agent = agent_of(worker.address, tmp_path)
        async with course(agent, pixels, expected) as running:
            assert await asyncio.to_thread(worker.end) == 0
            await until_back(running, asyncio.to_thread(worker.start))


@both_ways
async def test_another_worker_takes_over(
    small_bundle: Bundle, worker: WorkerProcess, pixels: np.ndarray, expected: np.ndarray,
    tmp_path: Path, ingest: int,
) -> None:  # fmt: skip
    with worker_process(small_bundle.folder, free_port(), ingest) as other:
        agent = agent_of(f"{other.address},{worker.address}", tmp_path)
        async with course(agent, pixels, expected) as running:
            current = agent.session.workers.current.server
            if current == other.address:
                other.end(signal.SIGKILL)
                await until_back(running, asyncio.sleep(0))
                assert agent.session.workers.current.server == worker.address


@both_ways
async def test_another_bundle_under_a_running_agent(
    small: ModelSpec, small_bundle: Bundle, pixels: np.ndarray, expected: np.ndarray,
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ingest: int,
) -> None:  # fmt: skip
    """The device goes on with the model that it has until the other is here, and then with that."""
    changed = compile_model(replace(small, labels=("a",) * 5), tmp_path / "other.split")
    assert changed.digest != small_bundle.digest
    with worker_process(small_bundle.folder, free_port(), ingest) as worker:
        agent = agent_of(worker.address, tmp_path / "cache")
        async with course(agent, pixels, expected) as running:
            await asyncio.to_thread(worker.end)
            await asyncio.to_thread(worker.start, changed.folder)
            await until(lambda: agent.digest == changed.digest)
            at_s = time.perf_counter()
            await until(lambda: running.count(Outcome.ANSWERED, after_s=at_s) > 5)
            await asyncio.to_thread(worker.end)
            await until_back(running, asyncio.to_thread(worker.start))
            assert agent.digest == small_bundle.digest
    assert f"digest {small_bundle.digest[:12]} is not served here" in caplog.text


async def black_hole_of_20_s(running: Course, relay: Relay) -> None:
    """Nothing says that the link is dead: two budgets later no frame waits for it any more."""
    begin_s = time.perf_counter()
    await until_back(running, relay.black_hole(20))
    later = [
        result.why
        for at_s, result in running.results
        if 4 * BUDGET_MS / 1e3 + running.lost_s(begin_s, at_s) < at_s - begin_s < 18
    ]
    assert sum("has not answered lately" in why for why in later) > len(later) / 2


async def flaps_each_second(running: Course, relay: Relay) -> None:
    async def flap() -> None:
        for _ in range(6):
            await relay.cut(0.5)
            await asyncio.sleep(0.5)

    await until_back(running, flap())


async def stalls_of_2_s(running: Course, relay: Relay) -> None:
    async def stall() -> None:
        await relay.stall(2)
        await asyncio.sleep(1)
        await relay.stall(2)

    await until_back(running, stall())


async def flipped_bytes(running: Course, relay: Relay) -> None:
    """One in a hundred frames; some of them hit the stream itself, which is then opened again."""

    async def flip() -> None:
        for _ in range(6):
            relay.flip()
            await asyncio.sleep(0.7)

    await until_back(running, flip())
    assert running.count(Outcome.LOCAL) > 0


async def test_links_that_fail(
    worker: WorkerProcess, pixels: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    """Each has an agent of its own. The black hole is waiting, nothing else: others go beside it.

    Those come one after the other.
    """

    async def over_a_link(fails: Callable[[Course, Relay], Awaitable[None]]) -> None:
        cache = tmp_path / fails.__name__
        async with (
            Relay(worker.address, LINK, seed=3) as relay,
            course(agent_of(relay.address, cache), pixels, expected) as running,
        ):
            await fails(running, relay)

    async def the_short_ones() -> None:
        for fails in (flaps_each_second, stalls_of_2_s, flipped_bytes):
            await over_a_link(fails)

    await asyncio.gather(over_a_link(black_hole_of_20_s), the_short_ones())


async def test_worker_that_answers_garbage(
    worker: WorkerProcess, pixels: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    async with (
        GarblingProxy(worker.address) as proxy,
        course(agent_of(proxy.address, tmp_path), pixels, expected) as running,
    ):
        proxy.garbling = True
        await until(lambda: proxy.garbled > 4)
        proxy.garbling = False
        await until_back(running, asyncio.sleep(0))


async def test_full_disk(
    worker: WorkerProcess, small_bundle: Bundle, pixels: np.ndarray, expected: np.ndarray,
    tmp_path: Path,
) -> None:  # fmt: skip
    """The segments behind the split cannot be kept: frames are answered, and said to be at risk."""
    async with agent_of(worker.address, tmp_path) as agent:
        await agent.session.finish.wait()
    folder = tmp_path / small_bundle.digest
    last = small_bundle.manifest.segments[-1]
    for name in (last.onnx, last.weights):
        (folder / name).unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with agent_of(worker.address, tmp_path) as agent:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        try:
            await agent.session.finish.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not agent.can_finish
        assert "cannot write to the cache" in str(agent.session.finish.error)
        result = await agent.infer({"pixels": pixels})
        assert result.outcome is Outcome.ANSWERED
        agent.session.finish.start()  # as with the next stream: there is room again
        await agent.session.finish.wait()
        assert agent.can_finish
    assert not list(folder.rglob("*.part-*"))


async def test_clock_set_an_hour_on(
    relay: Relay, pixels: np.ndarray, expected: np.ndarray, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Nothing leans on the time of day: no frame ends otherwise than before."""
    real = time.time

    def jump() -> None:
        monkeypatch.setattr(time, "time", lambda: real() + 3600)

    async with course(agent_of(relay.address, tmp_path), pixels, expected) as running:
        jump()
        at_s = time.perf_counter()
        await until_back(running, asyncio.sleep(1))
        assert running.count(Outcome.LOCAL, after_s=at_s) == 0


def test_sigterm_in_the_middle(worker: WorkerProcess, photos: Path, tmp_path: Path) -> None:
    """What was taken in ends, the counts add up, and the exit code is 0."""
    process = subprocess.Popen(
        [*MAIN, "run", "--server", worker.address, "--source", str(photos), "--split", "1",
         "--repeat", "100000", "--cache", str(tmp_path), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(20)]
    process.send_signal(signal.SIGTERM)
    rest, errors = rest_of(process)
    assert process.returncode == 0, errors
    import json

    documents = [json.loads(line) for line in [*lines, *rest.splitlines()]]
    frames, summary = documents[:-1], documents[-1]["summary"]
    assert summary["frames"] == len(frames) == sum(summary["outcomes"].values())
    assert {frame["outcome"] for frame in frames} == {"answered"}
