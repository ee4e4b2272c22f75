"""A worker's life: health, reflection, limits, drain, and what it refuses to serve."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from splitpoint.cloud.engine import Engine, Job
from splitpoint.cloud.errors import ServeError
from splitpoint.cloud.worker import Worker
from splitpoint.codec import Array
from splitpoint.partition.bundle import Bundle
from splitpoint.partition.costs import CloudTimes
from splitpoint.partition.errors import DeviceError
from splitpoint.partition.measure import measure
from splitpoint.partition.samples import synthetic_samples
from splitpoint.partition.torch_chain import TorchChain
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError
from splitpoint.proto.limits import SERVICE


async def test_health_and_reflection(small_bundle: Bundle) -> None:
    async with (
        Worker(
            [small_bundle.folder], listen="127.0.0.1:0", device="cpu", reflection=True
        ) as worker,
        grpc.aio.insecure_channel(worker.address) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            reply = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services="*"))
        reply = await call.read()
        await call.done_writing()
        names = {service.name for service in reply.list_services_response.service}
        assert SERVICE in names


async def test_what_cannot_be_served(small_bundle: Bundle) -> None:
    for options, words in (
        ({"device": "abacus"}, "unknown device"),
        ({"listen": "256.0.0.1:1"}, "cannot listen"),
    ):
        threads = threading.active_count()
        with pytest.raises((ServeError, DeviceError), match=words):
            async with Worker([small_bundle.folder], **options):
                pass
        assert threading.active_count() <= threads + 1  # asyncio's own pool for loading


class SlowRunner:
    """Counts what runs together."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []

    def run(self, boundary: int, values: Mapping[str, Array]) -> dict[str, Array]:
        return self.run_together(boundary, [values])[0]

    def run_together(
        self, boundary: int, requests: list[Mapping[str, Array]]
    ) -> list[dict[str, Array]]:
        time.sleep(0.02)
        self.batches.append((boundary, len(requests)))
        return [{} for _ in requests]


async def test_a_given_profile_is_announced(small_bundle: Bundle, tmp_path: Path) -> None:
    chain = TorchChain(small_bundle, torch.device("cpu"))
    samples = synthetic_samples(small_bundle.manifest)
    found = measure(small_bundle, chain, samples, max_seconds=0.5)
    segments = tuple(replace(s, ms=1000.0 + s.id, p95_ms=2000.0) for s in found.segments)
    path = tmp_path / "p.json"
    replace(found, segments=segments).save(path)
    options = {"listen": "127.0.0.1:0", "device": "cpu", "profiles": [path]}
    async with Worker([small_bundle.folder], **options) as worker:
        (model,) = worker.models.values()
    assert model.times.segment_ms == tuple(1000.0 + s.id for s in segments)
    for change, words in (
        ({"digest": "0" * 64}, "not served"),
        ({"runtime": "x"}, "measured in x"),
    ):
        replace(found, **change).save(path)
        with pytest.raises(ServeError, match=words):
            async with Worker([small_bundle.folder], **options):
                pass


class SlowModel:
    def __init__(self) -> None:
        self.runner = SlowRunner()
        self.times = CloudTimes(segment_ms=(10.0, 10.0, 10.0))


def job(model: SlowModel, boundary: int, answers: list[object], **over: object) -> Job:
    fields = {
        "model": model, "boundary": boundary, "batch": 1, "values": {},
        "deadline": float("inf"), "answer": lambda job, result: answers.append(result),
    }  # fmt: skip
    return Job(**(fields | over))


async def answered(answers: list[object], count: int) -> None:
    for _ in range(1000):
        if len(answers) >= count:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{len(answers)} of {count} answers")


async def test_what_waits_together_is_computed_together() -> None:
    model, answers = SlowModel(), []
    engine = Engine(max_batch=3, max_queued=100)
    engine.start()
    engine.submit(job(model, 0, answers))
    await asyncio.sleep(0.005)  # it is being computed while these come
    for boundary in (1, 0, 1, 1, 1, 0):
        engine.submit(job(model, boundary, answers))
    await answered(answers, 7)
    await engine.stop()
    # The oldest group first, the batch limit kept, boundaries never mixed.
    assert model.runner.batches == [(0, 1), (1, 3), (0, 2), (1, 1)]
    assert answers == [{}] * 7


async def test_full_queue_refuses_and_stop_answers_the_rest() -> None:
    model, answers = SlowModel(), []
    engine = Engine(max_batch=1, max_queued=2)
    engine.start()
    engine.submit(job(model, 0, answers))
    await asyncio.sleep(0.005)
    engine.submit(job(model, 0, answers))
    engine.submit(job(model, 0, answers))
    with pytest.raises(FrameError) as caught:
        engine.submit(job(model, 0, answers))
    assert caught.value.status == pb.OVERLOADED
    assert engine.load().queued == 2
    await engine.stop()
    assert answers[0] == {}
    assert [error.status for error in answers[1:]] == [pb.STOPPING, pb.STOPPING]


async def test_utilisation_rises_and_falls() -> None:
    model, answers = SlowModel(), []
    engine = Engine(max_batch=1, max_queued=100)
    engine.start()
    for _ in range(20):
        engine.submit(job(model, 0, answers))
    await answered(answers, 20)
    busy = engine.load().utilisation
    await asyncio.sleep(0.3)
    assert 0.2 < busy <= 1
    assert engine.load().utilisation < busy
    await engine.stop()


async def test_expired_while_waiting() -> None:
    model, answers = SlowModel(), []
    engine = Engine(max_batch=4, max_queued=100)
    engine.start()
    engine.submit(job(model, 0, answers, deadline=time.perf_counter() - 1))
    engine.submit(job(model, 0, answers, cancelled=True))
    engine.submit(job(model, 0, answers))
    await answered(answers, 3)
    await engine.stop()
    assert [a.status if isinstance(a, FrameError) else pb.OK for a in answers] == [
        pb.EXPIRED, pb.CANCELLED, pb.OK,
    ]  # fmt: skip


async def test_same_bundle_twice_is_served_once(small_bundle: Bundle, tmp_path: Path) -> None:
    async with Worker(
        [small_bundle.folder, small_bundle.folder], listen="127.0.0.1:0", device="cpu"
    ) as worker:
        assert list(worker.models) == [small_bundle.digest]


async def test_answer_that_fails_does_not_stop_the_engine() -> None:
    model, answers = SlowModel(), []
    engine = Engine(max_batch=1, max_queued=100)
    engine.start()

    def broken(job: Job, result: object) -> None:
        raise ValueError("a stream that is gone")

    engine.submit(job(model, 0, answers, answer=broken))
    engine.submit(job(model, 0, answers))
    await answered(answers, 1)
    await engine.stop()
    assert answers == [{}]


async def test_torch_runs_in_one_thread_only(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second thread's helpers would get in the way of the first's."""
    threads = set()
    step = TorchChain.step

    def noted(self: TorchChain, index: int, state: dict[str, object]) -> dict[str, object]:
        threads.add(threading.current_thread().name)
        return step(self, index, state)

    monkeypatch.setattr(TorchChain, "step", noted)
    monkeypatch.setattr("splitpoint.cloud.engine.INLINE_MS", 0)
    async with Worker([small_bundle.folder], listen="127.0.0.1:0", device="cpu") as worker:
        model = worker.models[small_bundle.digest]
        spec = small_bundle.manifest.boundaries[0].tensors[0]
        answers: list[object] = []
        values = {spec.name: np.zeros(spec.shape_at(1), spec.numpy_dtype)}
        worker._engine.submit(job(model, 0, answers, values=values))
        await answered(answers, 1)
    assert len(threads) == 1, threads
