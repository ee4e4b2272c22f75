"""What a worker says while it is not ready yet, and when it is."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from local_worker import local_worker
from processes import free_port
from splitpoint.cloud import session
from splitpoint.cloud.compute.served_model import ServedModel
from splitpoint.cloud.errors import ServeError
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.limits import SERVICE

HEALTH = health_pb2.HealthCheckResponse


async def test_not_serving_until_it_is_warm(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm, loading = threading.Event(), threading.Event()
    load, address = session.load_served_model, f"127.0.0.1:{free_port()}"

    def slowly(*what: Any, **how: Any) -> ServedModel:
        loading.set()
        warm.wait(10)
        return load(*what, **how)

    monkeypatch.setattr(session, "load_served_model", slowly)
    worker = local_worker(small_bundle, listen=address)
    starting = asyncio.create_task(worker.__aenter__())
    await asyncio.to_thread(loading.wait, 10)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        names = ("", SERVICE)
        watches = [stub.Watch(health_pb2.HealthCheckRequest(service=name)) for name in names]
        assert [(await each.read()).status for each in watches] == [HEALTH.NOT_SERVING] * 2
        describe = channel.unary_unary(f"/{SERVICE}/Describe")
        for call in (describe(b""), channel.stream_stream(f"/{SERVICE}/Infer")().read()):
            with pytest.raises(grpc.aio.AioRpcError, match="is loading its models") as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        warm.set()
        await starting
        assert [(await each.read()).status for each in watches] == [HEALTH.SERVING] * 2
        assert len(pb.DescribeReply.FromString(await describe(b"")).models) == 1
        leaving = asyncio.create_task(worker.__aexit__(None, None, None))
        assert [(await each.read()).status for each in watches] == [HEALTH.NOT_SERVING] * 2
        for each in watches:
            each.cancel()
        await leaving


async def test_nothing_is_left_when_loading_fails(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> ServedModel:
        raise ServeError("it does not fit")

    monkeypatch.setattr(session, "load_served_model", fails)
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    worker = local_worker(small_bundle, listen=addresses[0], metrics=addresses[1])
    with pytest.raises(ServeError, match="does not fit"):
        await worker.__aenter__()
    for address in addresses:
        host, _, port = address.rpartition(":")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, int(port))


async def test_nothing_to_serve() -> None:
    with pytest.raises(ServeError, match="nothing to serve"):
        async with local_worker():
            pass
