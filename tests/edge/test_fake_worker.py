"""The worker in memory behaves as a real one, and does what a test says."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from patience import until
from splitpoint.edge import EdgeAgent, FakeWorker, Given, Outcome
from splitpoint.edge.transport.fake_call import FakeCall, FakeLink
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import CheckedFrame
from splitpoint.proto.limits import MAX_BATCH_PER_FRAME
from splitpoint.proto.status import RefusedError, UnauthenticatedError


def agent_of(worker: FakeWorker, cache: Path, **options: object) -> EdgeAgent:
    given: dict[str, object] = {"split": "1", "codec": "raw", "budget_ms": 60_000, **options}
    return EdgeAgent("fake:7070", connect=worker.connect, cache=cache, **given)


async def test_it_serves_files_and_finishes_frames(
    small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    worker = FakeWorker(small_bundle)
    async with agent_of(worker, tmp_path) as agent:
        answered = await agent.infer({"pixels": pixels})
        assert agent.digest == small_bundle.digest
        assert worker.streams == 1
        await agent.settled()
        worker.cut()
        finished = await agent.infer({"pixels": pixels})
    assert answered.outcome is Outcome.ANSWERED
    assert finished.outcome is Outcome.LOCAL
    assert [frame.boundary for frame in worker.frames] == [1]
    np.testing.assert_allclose(answered.outputs["output"], finished.outputs["output"], rtol=1e-5)
    assert worker.streams == 0


@pytest.mark.parametrize("status", [pb.INTERNAL, pb.OVERLOADED], ids=pb.Status.Name)
async def test_the_script_decides_how_a_frame_ends(
    small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path, status: pb.Status
) -> None:
    async def script(frame: CheckedFrame) -> pb.Status | None:
        return status if len(worker.frames) == 2 else pb.OK

    worker = FakeWorker(small_bundle, script=script)
    async with agent_of(worker, tmp_path, finish_locally=False) as agent:
        frames = [Given(inputs={"pixels": pixels}) for _ in range(3)]
        results = [result async for result in agent.stream(frames, 1)]
    outcomes = [result.outcome for result in results]
    assert outcomes == [Outcome.ANSWERED, Outcome.FAILED, Outcome.ANSWERED]
    assert pb.Status.Name(status) in results[1].why


async def test_a_frame_is_cancelled_whose_budget_ends(
    small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    async def never(frame: CheckedFrame) -> pb.Status | None:
        return None

    worker = FakeWorker(small_bundle, script=never)
    async with agent_of(worker, tmp_path, finish_locally=False, budget_ms=100) as agent:
        result = await agent.infer({"pixels": pixels})
        assert result.outcome is Outcome.EXPIRED
        await until(lambda: worker.cancelled == [frame.id for frame in worker.frames])


async def test_a_stalled_link_loses_nothing(
    small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    worker = FakeWorker(small_bundle)
    async with agent_of(worker, tmp_path, finish_locally=False) as agent:
        worker.link.stall()
        asking = asyncio.create_task(agent.infer({"pixels": pixels}))
        await until(
            lambda: agent.session.workers.current.connection.stream.session.bytes_under_way > 0
        )
        assert not worker.frames
        worker.link.go_on()
        assert (await asking).outcome is Outcome.ANSWERED


async def test_messages_stay_in_order_on_a_link_that_changes() -> None:
    link = FakeLink()
    came: list[bytes] = []

    async def serve(call: FakeCall) -> tuple[grpc.StatusCode, str]:
        while True:
            came.append(await call.arrived())

    link.round_trip_ms = 60.0
    call = FakeCall(link, serve)
    await call.write(b"first")
    await asyncio.sleep(0.005)
    link.round_trip_ms = 0.0
    await call.write(b"second")
    await until(lambda: len(came) == 2)
    link.round_trip_ms = 20.0
    await call.write(b"third")
    await asyncio.sleep(0.005)
    link.stall()
    await asyncio.sleep(0.03)
    assert came == [b"first", b"second"]  # what is on its way is stalled, too
    link.go_on()
    await until(lambda: len(came) == 3)
    call.cancel()
    await call.ended()


async def test_a_script_that_fails_ends_the_stream_and_says_so(
    small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    async def script(frame: CheckedFrame) -> pb.Status | None:
        raise ZeroDivisionError("a mistake in the test")

    worker = FakeWorker(small_bundle, script=script)
    async with agent_of(worker, tmp_path, finish_locally=False) as agent:
        result = await agent.infer({"pixels": pixels})
    assert result.outcome is Outcome.FAILED
    assert "a mistake in the test" in result.why


async def test_a_call_may_take_its_time_and_no_longer(small_bundle: Bundle) -> None:
    worker = FakeWorker(small_bundle)
    worker.link.stall()
    transport = worker.connect("fake:7070", 1 << 20)
    call = transport.open("Describe", b"", timeout_s=0.02)
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await call.read()
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await transport.close()


async def test_the_link_is_measured_as_it_is_set(small_bundle: Bundle, tmp_path: Path) -> None:
    worker = FakeWorker(small_bundle)
    worker.link.uplink_mbps, worker.link.round_trip_ms = 2.0, 40.0
    async with agent_of(worker, tmp_path, split="auto", codec="auto") as agent:
        assert agent.link is not None
        assert agent.link.round_trip_ms >= 40
        assert agent.link.uplink_mbps <= 2.1


async def test_it_turns_away_and_lets_in(
    small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    worker = FakeWorker(small_bundle)
    worker.cut(grpc.StatusCode.UNAUTHENTICATED, "who is that?")
    with pytest.raises(UnauthenticatedError, match="who is that"):
        await agent_of(worker, tmp_path).__aenter__()
    worker.mend()
    async with agent_of(worker, tmp_path) as agent:
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED


async def test_another_bundle_is_refused(
    small_bundle: Bundle, int8_bundle: Bundle, tmp_path: Path
) -> None:
    worker = FakeWorker(small_bundle)
    with pytest.raises(RefusedError, match="is not served here"):
        await agent_of(worker, tmp_path, bundle=int8_bundle.folder).__aenter__()


async def test_a_frame_has_no_more_samples_than_a_test_says(
    small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    worker = FakeWorker(small_bundle, max_batch=2)
    outcomes = []
    async with agent_of(worker, tmp_path, finish_locally=False) as agent:
        for samples in (2, 3):
            result = await agent.infer({"pixels": np.concatenate([pixels[:1]] * samples)})
            outcomes.append((result.outcome, [frame.batch for frame in worker.frames]))
    assert outcomes == [(Outcome.ANSWERED, [2]), (Outcome.FAILED, [2])]


def test_it_takes_one_sample_of_a_model_that_takes_no_more(small_bundle: Bundle) -> None:
    first, *others = small_bundle.manifest.boundaries
    alone = replace(first, tensors=tuple(replace(spec, one_sample=True) for spec in first.tensors))
    manifest = replace(small_bundle.manifest, boundaries=(alone, *others))
    assert FakeWorker(small_bundle).max_batch == MAX_BATCH_PER_FRAME
    assert FakeWorker(replace(small_bundle, manifest=manifest)).max_batch == 1
