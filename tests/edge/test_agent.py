"""Edge to cloud over a real socket, against the unsplit model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import torch
from patience import PATIENCE_S, swallowing, until
from splitpoint.cli.emulate.relay import Relay
from splitpoint.cloud.worker import Worker
from splitpoint.codec import SpecError
from splitpoint.edge import AgentError, CacheError, EdgeAgent, Given, Outcome
from splitpoint.edge.store.cache import BundleCache
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.plan.link import parse_link
from splitpoint.partition.plan.plan import PlanError
from splitpoint.partition.relative_error import relative_error
from splitpoint.proto.status import RefusedError, UnreachableError

FAST = parse_link("1000mbps,0ms")


@pytest.fixture
async def worker(small_bundle: Bundle) -> AsyncIterator[Worker]:
    async with Worker([small_bundle.folder], listen="127.0.0.1:0", device="cpu") as running:
        yield running


def unsplit(spec: ModelSpec, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return spec.module(torch.tensor(pixels)).numpy()


@pytest.mark.parametrize("batch", [1, 3])
async def test_every_boundary_equals_the_unsplit_model(
    worker: Worker, small: ModelSpec, pixels: np.ndarray, tmp_path: Path, batch: int
) -> None:
    expected = unsplit(small, pixels[:batch])
    last = len(next(iter(worker.models.values())).boundaries) - 1
    for boundary in range(last + 1):
        async with EdgeAgent(
            worker.address, split=str(boundary), codec="raw", cache=tmp_path
        ) as agent:
            result = await agent.infer({"pixels": pixels[:batch]}, metadata="mine")
        assert result.outcome is (Outcome.LOCAL if boundary == last else Outcome.ANSWERED)
        assert relative_error(result.outputs["output"], expected) < 1e-4
        assert (result.boundary, result.metadata) == (boundary, "mine")
        assert agent.outcomes[result.outcome] == 1


async def test_stages_add_up(worker: Worker, pixels: np.ndarray, tmp_path: Path) -> None:
    async with EdgeAgent(worker.address, split="2", cache=tmp_path) as agent:
        results = [await agent.infer({"pixels": pixels}) for _ in range(20)]
    shares = []
    for result in results:
        stages = result.stages_ms
        total = sum(stages.to_json().values())
        shares.append(total / result.total_ms)
        assert all(ms >= 0 for ms in stages.to_json().values())
        assert total <= result.total_ms + 0.01
        assert stages.edge > 0
        assert stages.cloud > 0
        assert result.bytes_up > 0
    assert max(shares) > 0.5  # on a busy machine most frames wait between two stages


@pytest.mark.slow
async def test_lite0_with_real_weights(
    lite0: ModelSpec, lite0_bundle: Bundle, photos: Path, tmp_path: Path
) -> None:
    """Real photos, real weights: every boundary, batch 1 and 3, within 1e-4 of the unsplit."""
    assert lite0.picture is not None
    paths = sorted(photos.iterdir())  # noqa: ASYNC240
    pixels = np.stack([lite0.picture.read(path) for path in paths])
    expected = {n: unsplit(lite0, pixels[:n]) for n in (1, 3)}
    async with Worker([lite0_bundle.folder], listen="127.0.0.1:0", device="cpu") as worker:
        for boundary in range(len(lite0_bundle.manifest.boundaries)):
            async with EdgeAgent(
                worker.address,
                split=str(boundary),
                codec="raw",
                cache=tmp_path,
                budget_ms=1e3 * PATIENCE_S,
            ) as agent:
                for n, answer in expected.items():
                    result = await agent.infer({"pixels": pixels[:n]})
                    assert result.outcome in (Outcome.ANSWERED, Outcome.LOCAL), result.error
                    assert relative_error(result.outputs["output"], answer) < 1e-4
    assert [agent.labels[i] for i in expected[3].argmax(1)] == ["tiger cat", "espresso", "missile"]


async def test_stream_keeps_order_and_accounts_for_every_frame(
    worker: Worker, small: ModelSpec, pixels: np.ndarray, tmp_path: Path
) -> None:
    expected = unsplit(small, pixels)
    frames = [Given(inputs={"pixels": pixels[i % 3 : i % 3 + 1]}, metadata=i) for i in range(20)]
    frames[5] = Given(error=AgentError("broken"), metadata=5)
    frames[9] = Given(inputs={"pixels": pixels.astype(np.float32)}, metadata=9)
    async with EdgeAgent(worker.address, split="1", codec="raw", cache=tmp_path) as agent:
        results = [result async for result in agent.stream(frames)]
    assert [result.metadata for result in results] == list(range(20))
    for i, result in enumerate(results):
        if i in (5, 9):
            assert result.outcome is Outcome.FAILED
            assert result.error is not None
        else:
            assert relative_error(result.outputs["output"], expected[i % 3 : i % 3 + 1]) < 1e-4
    assert agent.outcomes == {
        Outcome.ANSWERED: 18, Outcome.LOCAL: 0, Outcome.EXPIRED: 0, Outcome.FAILED: 2,
        Outcome.SKIPPED: 0,
    }  # fmt: skip


async def test_two_models_two_edges(
    small_bundle: Bundle, worker: Worker, pixels: np.ndarray, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    other = ModelSpec(source="other", module=torch.nn.Linear(4, 2), args=(torch.randn(2, 4),))
    bundle = compile_model(other, tmp_path / "other.split")
    async with Worker([small_bundle.folder, bundle.folder], listen="127.0.0.1:0") as both:
        with pytest.raises(AgentError, match="several models"):
            async with EdgeAgent(both.address, cache=tmp_path):
                pass
        with pytest.raises(AgentError, match="does not serve"):
            async with EdgeAgent(both.address, model="third", cache=tmp_path):
                pass
        async with (
            EdgeAgent(both.address, model="small", split="1", cache=tmp_path) as first,
            EdgeAgent(
                both.address, model="other", split="input", codec="raw", cache=tmp_path
            ) as second,
        ):
            x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
            name = second.manifest.boundaries[0].tensors[0].name
            results = await asyncio.gather(
                *(first.infer({"pixels": pixels}) for _ in range(4)),
                *(second.infer({name: x}) for _ in range(4)),
            )
        assert {result.outcome for result in results} == {Outcome.ANSWERED}
        expected = other.module(torch.tensor(x)).detach().numpy()
        assert relative_error(results[-1].outputs["output"], expected) < 1e-4


async def test_inputs_that_do_not_fit(worker: Worker, pixels: np.ndarray, tmp_path: Path) -> None:
    async with EdgeAgent(worker.address, split="1", cache=tmp_path) as agent:
        for bad in ({}, {"pixels": pixels[0]}, {"pixels": np.repeat(pixels, 20, 0)}):
            with pytest.raises(SpecError):
                await agent.infer(bad)


async def test_wrong_names(worker: Worker, tmp_path: Path) -> None:
    for options in ({"split": "99"}, {"split": "-1"}, {"split": "1", "codec": "jpeg"}):
        with pytest.raises(PlanError):
            async with EdgeAgent(worker.address, cache=tmp_path, **options):
                pass
    with pytest.raises(UnreachableError, match="no worker answers"):
        async with EdgeAgent("127.0.0.1:9", cache=tmp_path):
            pass
    folder = next(iter(worker.models.values())).bundle.folder
    with pytest.raises(AgentError, match="needs a worker"):
        async with EdgeAgent(None, bundle=folder, split="1"):
            pass


async def test_other_digest_is_refused(worker: Worker, small: ModelSpec, tmp_path: Path) -> None:
    """A local bundle that is not the served one is refused in the handshake."""
    other = compile_model(small, tmp_path / "small.split", boundaries=3)
    with pytest.raises(RefusedError, match="give both ends the same bundle"):
        async with EdgeAgent(worker.address, bundle=other.folder, split="1"):
            pass


async def test_cache_resumes_and_verifies(
    worker: Worker, small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    folder = tmp_path / small_bundle.digest
    weights = small_bundle.manifest.segments[0].weights
    original = small_bundle.path(weights).read_bytes()
    (folder / "segments").mkdir(parents=True)
    dead = folder / f"{weights}.part-4194305"  # above the largest process id
    dead.write_bytes(original[:100])
    async with EdgeAgent(worker.address, split="2", cache=tmp_path, finish_locally=False) as agent:
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
    assert (folder / weights).read_bytes() == original
    assert not list(folder.rglob("*.part-*"))
    # a damaged file in the cache is fetched again
    (folder / weights).write_bytes(original[:-1] + b"x")
    async with EdgeAgent(worker.address, split="2", cache=tmp_path) as agent:
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
    assert (folder / weights).read_bytes() == original
    # and what the worker sends is not believed either
    (folder / weights).unlink()
    dead.write_bytes(b"y" * 100)
    with pytest.raises(CacheError, match="with digest"):
        async with EdgeAgent(worker.address, split="2", cache=tmp_path):
            pass
    assert not (folder / weights).exists()


async def test_lost_connection_is_an_outcome_and_heals(
    worker: Worker, pixels: np.ndarray, tmp_path: Path
) -> None:
    async with (
        Relay(worker.address, FAST) as relay,
        EdgeAgent(relay.address, split="1", cache=tmp_path, budget_ms=20_000) as agent,
    ):
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
        await relay.cut(0)
        outcomes: list[Outcome] = []
        while Outcome.ANSWERED not in outcomes and len(outcomes) < 20 * PATIENCE_S:
            outcomes.append((await agent.infer({"pixels": pixels})).outcome)
            await asyncio.sleep(0.05)
        assert outcomes[-1] is Outcome.ANSWERED
        assert sum(agent.outcomes.values()) == len(outcomes) + 1


async def test_black_hole_expires(worker: Worker, pixels: np.ndarray, tmp_path: Path) -> None:
    async with (
        Relay(worker.address, FAST) as relay,
        EdgeAgent(
            relay.address, split="1", cache=tmp_path, budget_ms=300, finish_locally=False
        ) as agent,
    ):
        async with swallowing(relay):  # for ever: it is the budget that ends the frame
            result = await agent.infer({"pixels": pixels})
        assert result.outcome is Outcome.EXPIRED
        assert result.total_ms > 250


async def test_draining_worker_answers_what_it_has(
    small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    worker = Worker([small_bundle.folder], listen="127.0.0.1:0", grace_s=5)
    await worker.__aenter__()
    async with EdgeAgent(
        worker.address, split="1", cache=tmp_path, budget_ms=20_000, finish_locally=False
    ) as agent:
        await agent.infer({"pixels": pixels})
        asking = [asyncio.create_task(agent.infer({"pixels": pixels})) for _ in range(3)]
        await asyncio.sleep(0)
        stopping = asyncio.create_task(worker.__aexit__(None, None, None))
        results = [await task for task in asking]
        await stopping
        late = await agent.infer({"pixels": pixels})
    assert late.outcome is Outcome.FAILED
    assert all(r.outcome in (Outcome.ANSWERED, Outcome.FAILED) for r in results)
    assert sum(agent.outcomes.values()) == 5


async def test_worker_that_falls_silent_costs_no_more_than_the_budget(
    worker: Worker, pixels: np.ndarray, tmp_path: Path
) -> None:
    """Also while connecting again: frames share the attempt and keep their own budgets."""
    async with (
        Relay(worker.address, FAST) as relay,
        EdgeAgent(
            relay.address, split="1", cache=tmp_path, budget_ms=300, finish_locally=False
        ) as agent,
    ):
        stream = agent.session.workers.stream
        assert stream is not None
        await relay.cut(0)
        await until(lambda: stream.session.broken is not None)  # else frames are lost with it
        async with swallowing(relay):  # for ever
            results = await asyncio.gather(*(agent.infer({"pixels": pixels}) for _ in range(4)))
        assert all(r.outcome in (Outcome.EXPIRED, Outcome.FAILED) for r in results)
        assert any(r.outcome is Outcome.EXPIRED for r in results)


async def test_cache_is_shared_and_keeps_to_its_folder(
    worker: Worker, small_bundle: Bundle, tmp_path: Path
) -> None:
    """Agents that start together on a cold cache do not spoil each other's downloads."""

    async def start() -> None:
        async with EdgeAgent(worker.address, split="local", cache=tmp_path / "cache"):
            pass

    await asyncio.gather(*(start() for _ in range(4)))
    for name, file in small_bundle.manifest.files.items():
        path = tmp_path / "cache" / small_bundle.digest / name
        if path.exists():
            assert path.stat().st_size == file.nbytes
    for digest in ("../../etc", str(tmp_path / "victim"), "0" * 63):
        with pytest.raises(CacheError, match="impossible digest"):
            BundleCache(tmp_path, digest, None)


async def test_a_result_does_not_wait_for_the_next_frame(
    small_bundle: Bundle, pixels: np.ndarray
) -> None:
    silence = asyncio.Event()

    async def frames() -> AsyncIterator[Given]:
        yield Given(inputs={"pixels": pixels[:1]}, metadata=1)
        yield Given(inputs={"pixels": pixels[:1]}, metadata=2)
        await silence.wait()
        yield Given(inputs={"pixels": pixels[:1]}, metadata=3)

    async with EdgeAgent(None, bundle=small_bundle.folder, split="local") as agent:
        results = agent.stream(frames())
        for number in (1, 2):
            assert (await asyncio.wait_for(anext(results), PATIENCE_S)).metadata == number
        silence.set()
        assert [result.metadata async for result in results] == [3]
