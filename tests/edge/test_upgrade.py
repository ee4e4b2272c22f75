"""The worker gets a newer model while devices run the old one, are off, or are cut off half-way."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from built import built
from local_network import FakeNetwork, record
from newer_model import NEW_LABELS
from splitpoint.edge import (
    AgentError,
    CacheError,
    Credentials,
    EdgeAgent,
    FakeWorker,
    Given,
    Outcome,
    Result,
)
from splitpoint.edge.discovery import search as search_module
from splitpoint.edge.meaning import classes_in
from splitpoint.edge.store.bundles import bundles_in, remove_bundle
from splitpoint.partition.bundle.bundle import MANIFEST, Bundle, Manifest
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.compile.verify import relative_error
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.picture import PictureInput
from splitpoint.proto.status import UnreachableError
from workers_in_turn import WorkersInTurn


@pytest.fixture
def turns(small_bundle: Bundle) -> WorkersInTurn:
    return WorkersInTurn(FakeWorker(small_bundle))


def agent_at(turns: WorkersInTurn, cache: Path, **options: Any) -> EdgeAgent:
    return EdgeAgent(turns.worker.address, connect=turns.connect, cache=cache, **options)


def outputs_of(spec: ModelSpec, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return spec.module(torch.tensor(pixels)).numpy()


async def until_upgraded(agent: EdgeAgent, pixels: np.ndarray, digest: str) -> list[Result]:
    """Frames, until the agent has that bundle and the cloud answers with it."""
    results = []
    for _ in range(1000):
        at = agent.digest
        results.append(await agent.infer({"pixels": pixels}))
        if at == digest and results[-1].outcome is Outcome.ANSWERED:
            return results
        await asyncio.sleep(0.01)
    pytest.fail("the agent does not go on with the newer model")


@pytest.mark.parametrize("split", ["1", "auto", "local"])
async def test_frames_go_on_while_the_newer_model_is_fetched_and_then_through_it(
    turns: WorkersInTurn,
    small: ModelSpec,
    newer: ModelSpec,
    newer_bundle: Bundle,
    pixels: np.ndarray,
    tmp_path: Path,
    split: str,
) -> None:
    old, new = outputs_of(small, pixels), outputs_of(newer, pixels)
    async with agent_at(turns, tmp_path, split=split, codec="raw") as agent:
        switched: list[str] = []
        agent.on_switch = switched.append
        await agent.settled()
        old_digest = agent.digest
        await agent.infer({"pixels": pixels})
        turns.replace(FakeWorker(newer_bundle))
        results = []
        if split == "local":
            agent.session.workers.look_for_all()  # nothing else asks for a worker then
        for _ in range(1000):
            results.append(await agent.infer({"pixels": pixels}))
            if agent.digest == newer_bundle.digest and len(results) > 3:
                break
            await asyncio.sleep(0.01)
        results.append(await agent.infer({"pixels": pixels}))
    assert {result.outcome for result in results} <= {Outcome.ANSWERED, Outcome.LOCAL}
    names = [tuple(result.labels) for result in results]
    assert names == sorted(names)  # the old ones' come first in the alphabet
    for result in results:
        expected = new if tuple(result.labels) == NEW_LABELS else old
        assert relative_error(result.outputs["output"], expected) < 1e-4
        assert classes_in(result, 1)[0].label == result.labels[int(expected[0].argmax())]
    assert tuple(results[-1].labels) == NEW_LABELS
    assert [result.id for result in results] == list(range(2, len(results) + 2))
    told = [line for line in switched if newer_bundle.digest[:12] in line]
    assert len(told) == 1
    assert old_digest[:12] in told[0]


@pytest.mark.parametrize("live", [False, True])
async def test_a_stream_loses_no_frame_and_keeps_its_order(
    turns: WorkersInTurn,
    newer_bundle: Bundle,
    pixels: np.ndarray,
    tmp_path: Path,
    live: bool,
) -> None:
    given = 0

    async with agent_at(turns, tmp_path, split="1", codec="raw") as agent:
        await agent.settled()

        async def frames() -> AsyncIterator[Given]:
            nonlocal given
            upgraded_at = 0
            while not upgraded_at or given < upgraded_at + 20:
                yield Given(inputs={"pixels": pixels}, metadata=given)
                given += 1
                if given == 10:
                    turns.replace(FakeWorker(newer_bundle))
                if agent.digest == newer_bundle.digest:
                    upgraded_at = upgraded_at or given
                await asyncio.sleep(0.01)

        results = [result async for result in agent.stream(frames(), live=live)]
    assert sorted(result.metadata for result in results) == list(range(given))
    if not live:
        assert [result.metadata for result in results] == list(range(given))
        assert {result.outcome for result in results} <= {Outcome.ANSWERED, Outcome.LOCAL}
    assert tuple(results[-1].labels) == NEW_LABELS
    assert sum(agent.outcomes.values()) == given
    assert agent.outcomes[Outcome.FAILED] == 0


async def test_workers_that_go_to_and_fro_are_followed_with_pauses(
    turns: WorkersInTurn,
    small_bundle: Bundle,
    newer_bundle: Bundle,
    pixels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They always serve the model that the device has just left."""
    monkeypatch.setattr("splitpoint.edge.upgrade.LOOK_S", 0.01)
    monkeypatch.setattr("splitpoint.edge.upgrade.FIRST_PAUSE_S", 0.4)
    async with agent_at(turns, tmp_path, split="1", codec="raw") as agent:
        await agent.settled()
        switched: list[str] = []
        agent.on_switch = switched.append
        end_s = time.monotonic() + 4
        while time.monotonic() < end_s:
            other = newer_bundle if agent.digest == small_bundle.digest else small_bundle
            if turns.worker.bundle.digest != other.digest:
                turns.replace(FakeWorker(other))
            result = await agent.infer({"pixels": pixels})
            assert result.outcome in (Outcome.ANSWERED, Outcome.LOCAL)
            await asyncio.sleep(0.01)
    assert 1 <= len(switched) <= 6


async def test_what_begins_in_the_old_model_ends_in_it(
    turns: WorkersInTurn, small: ModelSpec, newer_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    """A frame that the old worker never answers is finished with the old segments."""
    asked = asyncio.Event()

    async def never(frame: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with agent_at(turns, tmp_path, split="1", codec="raw", budget_ms=3000) as agent:
        await agent.settled()
        await agent.infer({"pixels": pixels})
        turns.worker.script = never
        slow = asyncio.create_task(agent.infer({"pixels": pixels}))
        await asyncio.wait_for(asked.wait(), 5)
        turns.replace(FakeWorker(newer_bundle))
        await until_upgraded(agent, pixels, newer_bundle.digest)
        result = await slow
    assert result.outcome is Outcome.LOCAL
    assert relative_error(result.outputs["output"], outputs_of(small, pixels)) < 1e-4


async def test_a_newer_model_that_is_damaged_changes_nothing(
    turns: WorkersInTurn,
    small: ModelSpec,
    newer_bundle: Bundle,
    pixels: np.ndarray,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with agent_at(turns, tmp_path, split="1", codec="raw") as agent:
        await agent.settled()
        digest = agent.digest
        await agent.infer({"pixels": pixels})
        files = newer_bundle.manifest.files
        last = newer_bundle.manifest.segments[-1].weights  # which only a finish needs
        damaged = FakeWorker(newer_bundle)
        damaged.bundle = replace(newer_bundle, folder=tmp_path / "damaged")
        for name in [MANIFEST, *files]:
            path = tmp_path / "damaged" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            data = newer_bundle.path(name).read_bytes()
            path.write_bytes(data[:-1] + b"?" if name == last else data)
        turns.replace(damaged)
        for _ in range(1000):
            result = await agent.infer({"pixels": pixels})
            assert result.outcome is Outcome.LOCAL
            if "goes on with" in caplog.text:
                break
            await asyncio.sleep(0.01)
        assert agent.digest == digest
        assert relative_error(result.outputs["output"], outputs_of(small, pixels)) < 1e-4
        # Mended, it is taken after all.
        turns.replace(FakeWorker(newer_bundle))
        await until_upgraded(agent, pixels, newer_bundle.digest)
    # The one that failed was said once, and left the cache with what an offline start needs.
    said = [record.getMessage() for record in caplog.records if "goes on with" in record.message]
    assert len(said) == len(set(said))


async def test_a_model_with_other_inputs_is_named_and_not_taken(
    turns: WorkersInTurn,
    small: ModelSpec,
    pixels: np.ndarray,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wider = ModelSpec.of_picture_model(
        "wider", small.module.model, PictureInput(resize_px=40, height_px=32, width_px=32),
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), labels=NEW_LABELS,
    )  # fmt: skip
    bundle = built("wider", lambda path: compile_model(wider, path, boundaries=3))
    async with agent_at(turns, tmp_path, split="1", codec="raw") as agent:
        await agent.settled()
        await agent.infer({"pixels": pixels})
        turns.replace(FakeWorker(bundle))
        for _ in range(1000):
            assert (await agent.infer({"pixels": pixels})).outcome is Outcome.LOCAL
            if "other inputs" in caplog.text:
                break
            await asyncio.sleep(0.01)
    assert bundle.digest[:12] in caplog.text
    assert "start the agent again" in caplog.text


async def test_a_device_that_was_off_goes_on_with_what_is_served_now(
    turns: WorkersInTurn, newer_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    """It was updated while the device was off, and comes when the device runs from its cache."""
    async with agent_at(turns, tmp_path) as agent:
        await agent.settled()
    turns.worker.cut()
    async with agent_at(turns, tmp_path, codec="raw") as agent:
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.LOCAL
        turns.replace(FakeWorker(newer_bundle))
        for _ in range(1000):
            result = await agent.infer({"pixels": pixels})
            assert result.outcome in (Outcome.LOCAL, Outcome.ANSWERED)
            if tuple(result.labels) == NEW_LABELS:
                break
            await asyncio.sleep(0.01)
        assert tuple(result.labels) == NEW_LABELS


async def test_one_that_announced_itself_is_followed_too(
    turns: WorkersInTurn,
    newer_bundle: Bundle,
    pixels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search_module, "LOOK_S", 0.05)
    network = FakeNetwork()

    def announce(bundle: Bundle) -> None:
        network.announce("gate", record({bundle.digest: bundle.manifest.name}, host="192.0.2.10"))

    announce(turns.worker.bundle)
    trusting = Credentials(insecure=True)
    async with EdgeAgent(
        "auto", connect=turns.connect, network=network, cache=tmp_path, credentials=trusting,
        split="1", codec="raw",
    ) as agent:  # fmt: skip
        await agent.settled()
        await agent.infer({"pixels": pixels})
        turns.replace(FakeWorker(newer_bundle))
        announce(newer_bundle)
        await until_upgraded(agent, pixels, newer_bundle.digest)


@pytest.mark.parametrize("fetches", [1, 2, 3, 5])
async def test_power_that_fails_while_it_is_fetched_leaves_the_old_model_whole(
    turns: WorkersInTurn,
    newer_bundle: Bundle,
    pixels: np.ndarray,
    tmp_path: Path,
    fetches: int,
) -> None:
    """A start on that cache, without a network, runs what was there before."""
    async with agent_at(turns, tmp_path) as agent:
        await agent.settled()
        old = agent.digest
    updated = FakeWorker(newer_bundle)
    turns.replace(updated)
    left = fetches
    connect = turns.connect

    class Failing:
        def __init__(self, server: str, most: int) -> None:
            self._inner = connect(server, most)

        def open(self, method: str, *rest: Any) -> Any:
            nonlocal left
            left -= method == "Fetch"
            if left < 0:
                updated.cut()
            return self._inner.open(method, *rest)

        async def close(self, grace_s: float | None = None) -> None:
            await self._inner.close(grace_s)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "connect", Failing)
        try:
            async with agent_at(turns, tmp_path, split="2", finish_locally=True) as agent:
                await agent.settled()
        except UnreachableError:
            pass
    assert left < 0
    updated.cut()
    async with agent_at(turns, tmp_path) as agent:
        assert agent.digest == old
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.LOCAL


async def test_a_pinned_bundle_is_run_whatever_the_worker_serves(
    turns: WorkersInTurn,
    small: ModelSpec,
    newer_bundle: Bundle,
    pixels: np.ndarray,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The way back: the old one is in the cache still."""
    async with agent_at(turns, tmp_path) as agent:
        await agent.settled()
        old = agent.digest
    turns.replace(FakeWorker(newer_bundle))
    async with agent_at(turns, tmp_path) as agent:
        await agent.settled()
        assert agent.digest == newer_bundle.digest
    with caplog.at_level(logging.WARNING, "splitpoint"):
        async with agent_at(turns, tmp_path, pin=old[:12], split="1", codec="raw") as agent:
            assert agent.digest == old
            result = await agent.infer({"pixels": pixels})
            assert result.outcome is Outcome.LOCAL
            assert relative_error(result.outputs["output"], outputs_of(small, pixels)) < 1e-4
            assert f"no worker serves the bundle {old[:12]}" in caplog.text
            turns.replace(FakeWorker(agent.session.prepared.bundle()))
            for _ in range(1000):
                result = await agent.infer({"pixels": pixels})
                if result.outcome is Outcome.ANSWERED:
                    break
                await asyncio.sleep(0.01)
            assert result.outcome is Outcome.ANSWERED
    # Served, it is asked for; what the worker serves beside is not.
    async with agent_at(turns, tmp_path, pin=old) as agent:
        assert agent.session.prepared.serving is not None


async def test_a_pin_that_nobody_has_is_named(turns: WorkersInTurn, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=r"neither in the cache .* nor served"):
        async with agent_at(turns, tmp_path, pin="0123456789ab"):
            pass
    with pytest.raises(CacheError, match="is no digest"):
        agent_at(turns, tmp_path, pin="the old one")
    with pytest.raises(AgentError, match="both"):
        EdgeAgent(None, bundle=tmp_path, pin="0123456789ab")


async def test_the_cache_says_what_is_in_it_and_lets_it_go(
    turns: WorkersInTurn, newer_bundle: Bundle, tmp_path: Path
) -> None:
    assert bundles_in(tmp_path / "none") == []
    async with agent_at(turns, tmp_path) as agent:
        await agent.settled()
        old = agent.digest
    turns.replace(FakeWorker(newer_bundle))
    async with agent_at(turns, tmp_path) as agent:
        await agent.settled()
        latest, before = bundles_in(tmp_path)
        assert (latest.digest, before.digest) == (newer_bundle.digest, old)
        assert latest.name == newer_bundle.manifest.name
        assert latest.servers == (turns.worker.address,)
        assert 0 < latest.nbytes <= latest.of_bytes
        with pytest.raises(CacheError, match="in use"):
            remove_bundle(tmp_path, latest.digest)
        remove_bundle(tmp_path, old)
        assert [each.digest for each in bundles_in(tmp_path)] == [latest.digest]
    (tmp_path / latest.digest / MANIFEST).write_text("{}")
    assert bundles_in(tmp_path)[0].name == ""


async def test_a_bundle_that_goes_while_the_cache_is_read_hides_no_other(
    turns: WorkersInTurn, newer_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where `splitpoint cache --remove` or an agent that makes room is at it."""
    async with agent_at(turns, tmp_path) as agent:
        await agent.settled()
        old = agent.digest
    turns.replace(FakeWorker(newer_bundle))
    async with agent_at(turns, tmp_path) as agent:
        await agent.settled()
    read = Manifest.from_bytes

    def read_and_remove(data: bytes, where: str) -> Manifest:
        if old in where and (tmp_path / old).exists():
            remove_bundle(tmp_path, old)
        return read(data, where)

    monkeypatch.setattr(Manifest, "from_bytes", read_and_remove)
    assert newer_bundle.digest in [each.digest for each in bundles_in(tmp_path)]
    (tmp_path / newer_bundle.digest / MANIFEST).unlink()
    (tmp_path / newer_bundle.digest / MANIFEST).mkdir()
    assert [each.name for each in bundles_in(tmp_path)] == [""]
