"""A device that boots while no worker answers runs from its cache, and finds the worker later."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from splitpoint.codec import SplitpointError
from splitpoint.edge import AutoPlan, EdgeAgent, FakeWorker, Given, Outcome, Result
from splitpoint.edge.store.known_models import MOST_KNOWN, KnownModel, recall, remember
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.compile.verify import relative_error
from splitpoint.partition.errors import PlanError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.plan.link import parse_link
from splitpoint.partition.plan.objective import Constraints
from splitpoint.proto.status import UnreachableError

# A slow device on a fast link, whose best plan is never to do it all itself.
ASKS = {"auto": AutoPlan(link=parse_link("100000mbps,0.001ms")), "slowdown": 50.0}


@pytest.fixture
def expected(small: ModelSpec, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return small.module(torch.tensor(pixels)).numpy()


def agent_of(worker: FakeWorker, cache: Path, **options: Any) -> EdgeAgent:
    return EdgeAgent(worker.address, connect=worker.connect, cache=cache, **options)


async def seen_once(bundle: Bundle, cache: Path, **options: Any) -> FakeWorker:
    """A worker that is gone, and was there once, as long as it took to fetch everything."""
    worker = FakeWorker(bundle)
    async with agent_of(worker, cache, **options) as agent:
        await agent.settled()
    worker.cut()
    return worker


async def answered(agent: EdgeAgent, pixels: np.ndarray) -> Result:
    """Frames, until one of them goes to the cloud."""
    for _ in range(1000):
        result = await agent.infer({"pixels": pixels})
        if result.outcome is Outcome.ANSWERED:
            return result
        assert result.outcome is Outcome.LOCAL, result.why
        await asyncio.sleep(0.02)
    pytest.fail("frames do not go to the worker")


@pytest.mark.parametrize("adapt", [True, False])
async def test_the_plan_is_made_when_the_worker_is_there(
    small_bundle: Bundle,
    pixels: np.ndarray,
    expected: np.ndarray,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    adapt: bool,
) -> None:
    worker = await seen_once(small_bundle, tmp_path, **ASKS)
    switched: list[str] = []
    caplog.clear()
    with caplog.at_level(logging.WARNING, "splitpoint"):
        async with agent_of(worker, tmp_path, adapt=adapt, **ASKS) as agent:
            agent.on_switch = switched.append
            said = [record.getMessage() for record in caplog.records]
            assert len(said) == 1
            assert "no worker answers" in said[0]
            assert "this device alone" in said[0]
            assert agent.is_local
            for _ in range(3):
                result = await agent.infer({"pixels": pixels})
                assert result.outcome is Outcome.LOCAL
                assert result.why == "no worker is there"
                assert relative_error(result.outputs["output"], expected) < 1e-4
            worker.mend()
            result = await answered(agent, pixels)
            assert relative_error(result.outputs["output"], expected) < 0.1
            assert not agent.is_local
            assert agent.report is not None
            assert (agent.uplink_mbps is not None) == adapt
            assert agent.outcomes[Outcome.FAILED] == agent.outcomes[Outcome.EXPIRED] == 0
    assert worker.address in switched[0]
    assert "is there" in switched[0]


@pytest.mark.parametrize("split", ["0", "2", "local"])
async def test_a_named_split_is_finished_here_until_the_worker_is_there(
    small_bundle: Bundle,
    pixels: np.ndarray,
    expected: np.ndarray,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    split: str,
) -> None:
    worker = await seen_once(small_bundle, tmp_path, split="2", codec="raw")
    options: dict[str, Any] = {"split": split}
    if split != "local":
        options["codec"] = "raw"
    async with agent_of(worker, tmp_path, **options) as agent:
        for _ in range(3):
            result = await agent.infer({"pixels": pixels})
            assert result.outcome is Outcome.LOCAL
            assert relative_error(result.outputs["output"], expected) < 1e-4
            if split != "local":
                assert result.why == ("finished on the device: the worker has not answered lately")
        if split != "local":
            worker.mend()
            result = await answered(agent, pixels)
            assert relative_error(result.outputs["output"], expected) < 1e-4
            assert str(result.boundary) == split
    assert caplog.text.count("a worker is there") == (split != "local")


@pytest.mark.parametrize(
    "options",
    [
        {"split": "2", "codec": "raw"},
        {"split": "local"},
        {"split": "local", "runtime": "onnxruntime-int8", "finish_locally": False},
    ],
)
async def test_a_named_split_needs_the_files_that_it_runs(
    int8_bundle: Bundle, pixels: np.ndarray, tmp_path: Path, options: dict[str, Any]
) -> None:
    """And no others: those of another runtime were never fetched for it."""
    worker = await seen_once(int8_bundle, tmp_path, **options)
    async with agent_of(worker, tmp_path, **options) as agent:
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.LOCAL


async def test_a_stream_goes_on_from_the_device_to_the_cloud(
    small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    """Without a word from whoever reads its results."""
    worker = await seen_once(small_bundle, tmp_path, split="1", codec="raw")
    enough = asyncio.Event()

    async def frames() -> AsyncIterator[Given]:
        while not enough.is_set():
            yield Given(inputs={"pixels": pixels})
            await asyncio.sleep(0.01)

    outcomes: list[Outcome] = []
    async with agent_of(worker, tmp_path, split="1", codec="raw") as agent:
        async for result in agent.stream(frames()):
            outcomes.append(result.outcome)
            if len(outcomes) == 5:
                worker.mend()
            if result.outcome is Outcome.ANSWERED or len(outcomes) > 5000:
                enough.set()
    assert outcomes[:5] == [Outcome.LOCAL] * 5
    assert Outcome.ANSWERED in outcomes
    assert set(outcomes) <= {Outcome.ANSWERED, Outcome.LOCAL}


async def test_what_answers_and_is_no_worker_is_as_good_as_nobody(
    small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The page of a hotspot, or a proxy: the worker is behind it once somebody has logged in."""
    worker = await seen_once(small_bundle, tmp_path, split="1", codec="raw")
    page = "Received http2 header with status: 404"
    worker.cut(grpc.StatusCode.UNIMPLEMENTED, page)
    async with agent_of(worker, tmp_path, split="1", codec="raw") as agent:
        assert page in caplog.text
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.LOCAL
        worker.mend()
        await answered(agent, pixels)


async def test_a_local_bundle_needs_no_worker_and_no_cache(
    small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    worker = FakeWorker(small_bundle)
    worker.cut()
    async with agent_of(worker, tmp_path / "new", bundle=small_bundle.folder, **ASKS) as agent:
        assert agent.is_local
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.LOCAL
        worker.mend()
        await answered(agent, pixels)


async def test_the_model_is_the_one_that_was_asked_for(
    small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    """By its own name, too, where it was the worker's only one."""
    worker = await seen_once(small_bundle, tmp_path, split="local")
    another = FakeWorker(small_bundle, address="another:7070")
    another.cut()
    async with agent_of(worker, tmp_path, model="small", split="local") as agent:
        assert agent.digest == small_bundle.digest
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.LOCAL
    with pytest.raises(UnreachableError, match=r"the cache has no model 'other'"):
        async with agent_of(worker, tmp_path, model="other", split="local"):
            pass
    with pytest.raises(UnreachableError, match=r"the cache has no model of it") as caught:
        async with agent_of(another, tmp_path, split="local"):
            pass
    assert "splitpoint serve" in caught.value.remedy


@pytest.mark.parametrize(
    ("harm", "split"),
    [
        ("missing", "auto"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)  # each waits for a worker first
            for case in [
                ("missing", "1"),
                ("missing", "local"),
                ("damaged", "auto"),
                ("damaged", "1"),
                ("damaged", "local"),
            ]
        ),
    ],
)
async def test_a_model_that_is_here_in_part_is_named_with_what_is_missing(
    small_bundle: Bundle, tmp_path: Path, harm: str, split: str
) -> None:
    worker = await seen_once(small_bundle, tmp_path, **ASKS)
    path = tmp_path / small_bundle.digest / small_bundle.manifest.segments[2].weights
    if harm == "missing":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    with pytest.raises(UnreachableError) as caught:
        async with agent_of(worker, tmp_path, split=split):
            pass
    assert "no worker answers" in caught.value.what
    assert "splitpoint serve" in caught.value.remedy
    assert f"{small_bundle.manifest.segments[2].weights} is missing" in caught.value.what
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"split": "1", "finish_locally": False}, UnreachableError, "may not or cannot finish"),
        ({"split": "1", "max_edge_mb": 1.0}, UnreachableError, "may not or cannot finish"),
        (
            {"auto": AutoPlan(constraints=Constraints(max_edge_mb=0.001))},
            PlanError,
            "on the device breaks a limit",
        ),
    ],
)
async def test_what_the_user_forbids_is_not_done_without_a_worker_either(
    small_bundle: Bundle,
    tmp_path: Path,
    options: dict[str, Any],
    error: type[SplitpointError],
    words: str,
) -> None:
    worker = await seen_once(small_bundle, tmp_path)
    with pytest.raises(error, match=words):
        async with agent_of(worker, tmp_path, **options):
            pass


def test_what_is_remembered_is_kept_by_server_and_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = (KnownModel(digest=c * 64, manifest_bytes=7) for c in "ab")
    (tmp_path / "cache").mkdir()
    remember(tmp_path / "cache", ["x:1", "y:1"], {"", "one"}, one)
    remember(tmp_path / "cache", ["x:1"], {"two"}, two)
    cache = tmp_path / "cache"
    assert recall(cache, ["x:1"], "") == recall(cache, ["y:1"], "one") == one
    assert recall(cache, ["x:1"], "two") == two
    assert recall(cache, ["y:1"], "two") is None
    assert recall(cache, ["z:1", "x:1"], "two") == two
    remember(cache, ["x:1"], {"one"}, two)
    assert recall(cache, ["x:1"], "one") == two
    assert recall(cache, ["x:1"], "") == one
    before = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    remember(cache, ["x:1"], {"one"}, two)
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == before
    endless = json.dumps({"digest": "a" * 64, "manifest_bytes": float("inf")})
    nested = "[" * 5000
    for damaged in ("", "{", "[]", nested, '{"digest": "../../etc", "manifest_bytes": 7}', endless):
        for path in cache.iterdir():
            path.write_text(damaged)
        caplog.clear()
        assert recall(cache, ["x:1", "y:1"], "") is None
        assert "cannot be used" in caplog.text
    assert not caplog.text.count("cannot keep")
    (tmp_path / "file").touch()
    remember(tmp_path / "file", ["x:1"], {""}, one)
    assert "cannot keep" in caplog.text


def test_names_without_end_do_not_fill_the_cache(tmp_path: Path) -> None:
    known = KnownModel(digest="1" * 64, manifest_bytes=1)
    for number in range(2 * MOST_KNOWN):
        remember(tmp_path, ["x:1"], {f"model {number}"}, known)
    assert len(list(tmp_path.iterdir())) == MOST_KNOWN
    assert recall(tmp_path, ["x:1"], f"model {2 * MOST_KNOWN - 1}") == known
