"""What a worker says of itself: models, streams with their cuts, queue, batches and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_client import RawClient
from splitpoint.cloud import stats as stats_module
from splitpoint.cloud.fronts.front import OwnFront
from splitpoint.cloud.stats import WorkerStats
from splitpoint.cloud.wire.health import Health
from splitpoint.cloud.worker import Worker
from splitpoint.edge import EdgeAgent, Outcome
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.energy.gpu_state import GpuReading
from splitpoint.partition.strict_json import to_json
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.limits import PROTOCOL


def front_of(worker: Worker) -> OwnFront:
    return OwnFront(worker.backend, Health())


async def test_frames_are_told_by_stream_and_by_boundary(
    worker: Worker, small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    stats = WorkerStats(worker.backend, front_of(worker))
    before = await stats.to_json()
    assert (before["serving"], before["streams"], before["queued_frames"]) == (True, [], 0)
    assert before["models"][0]["answers"] == {}
    async with EdgeAgent(worker.address, split="1", codec="raw", cache=tmp_path) as agent:
        for _ in range(3):
            assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
        now = await stats.to_json()
    (model,), (stream,) = now["models"], now["streams"]
    assert (model["name"], model["digest"], model["streams"]) == ("small", small_bundle.digest, 1)
    assert model["answers"] == {"ok": 3}
    first, second, *_ = model["boundaries"]
    assert (first["answered"], first["after"], first["mean_batch"]) == (0, "the input", None)
    assert second["answered"] == 3
    assert second["mean_batch"] >= len(pixels)
    assert second["mean_compute_ms"] > 0
    assert second["mb_received"] > 0
    assert stream["cuts"] == {"1": 3}
    assert (stream["model"], stream["frames"]) == ("small", 3)
    assert now["streams_open"] == 1
    assert now["seconds"] >= before["seconds"]
    assert json.loads(to_json(now)) == now


async def test_refusals_are_told(worker: Worker) -> None:
    hello = pb.Hello(protocol=PROTOCOL, digest="0" * 64)
    async with RawClient(worker) as client:
        await client.call.write(pb.ClientMessage(hello=hello).SerializeToString())
        await client.ended()
    document = await WorkerStats(worker.backend, front_of(worker)).to_json()
    assert document["refusals"] == {"unknown_model": 1}


async def test_many_streams_are_counted_and_some_are_told(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats_module, "MOST_STREAMS", 1)
    async with (
        EdgeAgent(worker.address, split="1", cache=tmp_path),
        EdgeAgent(worker.address, split="1", cache=tmp_path),
    ):
        document = await WorkerStats(worker.backend, front_of(worker)).to_json()
    assert document["streams_open"] == 2
    assert len(document["streams"]) == 1


async def test_gpus_are_told_and_one_that_is_lost_is_not(worker: Worker) -> None:
    class Gpu:
        def __init__(self, reading: GpuReading | None) -> None:
            self._reading = reading

        def read(self) -> GpuReading | None:
            return self._reading

    there = Gpu(GpuReading(memory_used_bytes=10**9, memory_total_bytes=8 * 10**10, utilisation=0.5))
    part = GpuReading(memory_used_bytes=10**9, memory_total_bytes=10**10, utilisation=None)
    gpus: Any = [there, Gpu(None), Gpu(part)]
    document = await WorkerStats(worker.backend, front_of(worker), gpus).to_json()
    assert document["gpus"] == [
        {"memory_used_mb": 1000, "memory_mb": 80000, "utilisation": 0.5},
        {"memory_used_mb": 1000, "memory_mb": 10000, "utilisation": None},
    ]  # fmt: skip
    assert document["device"]
