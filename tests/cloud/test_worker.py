"""A worker's life: health, reflection, limits, drain, and what it refuses to serve."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from local_worker import local_worker
from splitpoint.cloud.compute import load as load_model
from splitpoint.cloud.engine.request import Request
from splitpoint.cloud.errors import ServeError
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.bundle.samples import synthetic_samples
from splitpoint.partition.errors import DeviceError
from splitpoint.partition.profile.measure import measure
from splitpoint.partition.run.torch_chain import TorchChain
from splitpoint.proto.address import AddressError
from splitpoint.proto.limits import SERVICE


async def test_health_and_reflection(small_bundle: Bundle) -> None:
    async with (
        local_worker(small_bundle, reflection=True) as worker,
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
        ({"listen": "127.0.0.1:99999"}, "no valid port"),
        ({"listen": "7070"}, "has no port"),
        ({"runtime": "java"}, "unknown runtime"),
        ({"precision": "fp8"}, "unknown precision"),
        ({"precision": "bf16", "device": "cpu"}, "needs a GPU"),
    ):
        threads = own_threads()
        with pytest.raises((ServeError, DeviceError, AddressError), match=words):
            async with local_worker(small_bundle, **options):
                pass
        assert own_threads() <= threads


def own_threads() -> set[threading.Thread]:
    """Without asyncio's pool and gRPC's poller, which stay for the next work."""
    theirs = ("asyncio", "_poll_wrapper")
    return {t for t in threading.enumerate() if not any(name in t.name for name in theirs)}


async def test_a_model_that_does_not_fit_into_memory(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(load_model, "measure_server", too_large)
    with pytest.raises(ServeError, match="small does not fit into the memory of cpu"):
        async with local_worker(small_bundle, measure=True):
            pass


async def test_a_given_profile_is_announced(small_bundle: Bundle, tmp_path: Path) -> None:
    chain = TorchChain(small_bundle, torch.device("cpu"))
    samples = synthetic_samples(small_bundle.manifest)
    found = measure(small_bundle, chain, samples, max_seconds=0.5)
    segments = tuple(replace(s, ms=1000.0 + s.id, p95_ms=2000.0) for s in found.segments)
    path = tmp_path / "p.json"
    replace(found, segments=segments).save(path)
    async with local_worker(small_bundle, profiles=[path]) as worker:
        (model,) = worker.models.values()
    assert model.times.segment_ms == tuple(1000.0 + s.id for s in segments)
    for change, words in (
        ({"digest": "0" * 64}, "not served"),
        ({"runtime": "onnxruntime-int8"}, "unknown runtime"),
    ):
        replace(found, **change).save(path)
        with pytest.raises(ServeError, match=words):
            async with local_worker(small_bundle, profiles=[path]):
                pass


async def test_same_bundle_twice_is_served_once(small_bundle: Bundle, tmp_path: Path) -> None:
    async with local_worker(small_bundle, small_bundle) as worker:
        assert list(worker.models) == [small_bundle.digest]


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
    async with local_worker(small_bundle, runtime="torch") as worker:
        model = worker.models[small_bundle.digest]
        spec = small_bundle.manifest.boundaries[0].tensors[0]
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        worker.backend.engine.submit(Request(
            model=model, boundary=0, samples=1, deadline_s=float("inf"), client="",
            values={spec.name: np.zeros(spec.shape_at(1), spec.numpy_dtype)},
            answer=lambda request, result: answer.set_result(result), broke=lambda: None,
        ))  # fmt: skip
        assert isinstance(await asyncio.wait_for(answer, 10), dict)
    assert len(threads) == 1, threads
