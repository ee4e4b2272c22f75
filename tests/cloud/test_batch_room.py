"""A worker whose batches are smaller than frames may be: any frame is answered all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from local_worker import local_worker
from raw_client import RawClient
from slow_model import SlowModel
from splitpoint.cloud.compute.runner import Runner
from splitpoint.cloud.worker import Worker
from splitpoint.codec import codec_named
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import build_frame, encode_tensors
from standin_cuda import ILLEGAL_ADDRESS, accelerator_error

STATUS = health_pb2.HealthCheckResponse


def frame(client: RawClient, frame_id: int, values: np.ndarray) -> bytes:
    """The model's inputs."""
    specs = client.model.boundaries[0]
    tensors = encode_tensors({specs[0].name: values}, specs, codec_named("raw"))
    return build_frame(id=frame_id, boundary=0, codec="raw", tensors=tensors, budget_ms=0)


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
async def test_as_many_samples_as_are_announced_are_answered(
    runtime: str, small: ModelSpec, small_bundle: Bundle
) -> None:
    async with (
        local_worker(small_bundle, runtime=runtime, max_batch=3) as worker,
        RawClient(worker) as client,
    ):
        most = (await client.hello()).max_batch
        assert client.model.batch_times.max_batch <= 3 < most
        spec = client.model.boundaries[0][0]
        values = np.random.default_rng(0).integers(0, 256, spec.shape_at(most)).astype(np.uint8)
        with torch.inference_mode():
            expected = small.module(torch.from_numpy(values)).numpy()
        for number, samples in enumerate((most, 3, 4, 1), 1):
            reply = await client.ask(frame(client, number, values[:samples]))
            assert reply.status == pb.OK, reply.reason
            found = np.frombuffer(reply.outputs[0].payload, np.float32).reshape(samples, -1)
            np.testing.assert_allclose(found, expected[:samples], rtol=1e-4, atol=1e-5)


def test_pieces_are_filled_up_to_the_sizes_that_a_gpu_has_captured() -> None:
    model = SlowModel(1, ms=0)
    runner = Runner(model.chain, model.boundaries, [1, 2, 4])
    value = np.arange(44, dtype=np.float32).reshape(11, 4)
    (found,) = runner.run(0, {"t0": value}, 11, 4).values()
    np.testing.assert_array_equal(found, model.expected(0, value))
    assert [size for _, size in model.chain.runs] == [4, 4, 4]


async def test_a_worker_that_cannot_compute_says_so(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step fails, until the device is there again; balancers ask the health service."""
    async with (
        RawClient(worker) as client,
        grpc.aio.insecure_channel(worker.address) as channel,
    ):
        await client.hello()
        watch: Any = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == STATUS.SERVING
        step: Callable[..., Any] = client.model.runner.step

        def lost(*args: Any) -> Any:
            raise RuntimeError("the accelerator does not answer")

        monkeypatch.setattr(client.model.runner, "step", lost)
        spec = client.model.boundaries[0][0]
        for number in range(1, 9):
            reply = await client.ask(
                frame(client, number, np.full(spec.shape_at(1), 90 + number, "u1"))
            )
            assert (reply.status, reply.reason) == (pb.INTERNAL, "computing failed (RuntimeError)")
        assert (await watch.read()).status == STATUS.NOT_SERVING
        assert (await client.ask(client.frame(20))).status == pb.OVERLOADED
        monkeypatch.setattr(client.model.runner, "step", step)
        assert (await watch.read()).status == STATUS.SERVING
        assert (await client.ask(client.frame(21))).status == pb.OK
        watch.cancel()


async def test_a_worker_whose_device_is_lost_says_so_and_is_to_be_started_again(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        RawClient(worker) as client,
        grpc.aio.insecure_channel(worker.address) as channel,
    ):
        await client.hello()
        watch: Any = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == STATUS.SERVING

        def lost() -> None:
            raise accelerator_error(*ILLEGAL_ADDRESS)

        monkeypatch.setattr(client.model.runner, "wait", lost)
        reply = await client.ask(client.frame(1))
        assert (reply.status, reply.reason) == (pb.INTERNAL, "computing failed (AcceleratorError)")
        assert (await watch.read()).status == STATUS.NOT_SERVING
        assert "illegal memory access" in await worker.until_lost()
        assert (await client.ask(client.frame(2))).status == pb.OVERLOADED
        assert not len(worker.backend.service.services.quarantine)
        watch.cancel()


async def test_no_batch_is_larger_than_was_asked_for(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when the runtime is chosen or batches are timed either: memory may be short."""
    seen, step = set(), Runner.step

    def noted(self: Runner, segment: int, state: Any, samples: int) -> Any:
        seen.add(samples)
        return step(self, segment, state, samples)

    monkeypatch.setattr(Runner, "step", noted)
    async with local_worker(small_bundle, max_batch=2) as worker, RawClient(worker) as client:
        await client.hello()
        spec = client.model.boundaries[0][0]
        reply = await client.ask(frame(client, 1, np.ones(spec.shape_at(5), np.uint8)))
        assert reply.status == pb.OK
    assert max(seen) <= 2
