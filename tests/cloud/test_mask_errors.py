"""What goes wrong inside a worker is for its log; clients learn that, not where its files lie."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from raw_client import RawClient
from splitpoint.cloud.compute.served_model import ServedModel
from splitpoint.cloud.metrics import WorkerCollector
from splitpoint.cloud.wire import stream as stream_module
from splitpoint.cloud.wire.abort import abort
from splitpoint.cloud.wire.mask_errors import mask_errors
from splitpoint.cloud.wire.unary import Answering
from splitpoint.cloud.worker import Worker
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.proto import splitpoint_pb2 as pb

SECRET = "/srv/secret/place"


@pytest.fixture
def served_bundle(small_bundle: Bundle, tmp_path: Path) -> Bundle:
    """The worker's own, which may vanish."""
    return open_bundle(shutil.copytree(small_bundle.folder, tmp_path / "own.split"))


class Gone:
    """The context of a call whose client hung up: gRPC fails at whatever it is to send."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:4242"

    async def abort(self, *_: object) -> None:
        raise grpc.aio.InternalError('Failed "execute_batch"')

    async def write(self, message: object) -> None:
        raise grpc.aio.InternalError('Failed "execute_batch"')


async def test_who_hangs_up_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def refuses(_self: object, _requests: object, context: Any) -> None:
        await abort(context, grpc.StatusCode.UNAUTHENTICATED, "who are you")

    async def writes(_self: object, _requests: object, _context: Any) -> None:
        raise grpc.aio.InternalError('Failed "execute_batch"')

    for method in (refuses, writes):
        with pytest.raises(asyncio.CancelledError):
            await mask_errors(method)(None, None, Gone())

    async def answers(_requests: object, _context: Any) -> pb.DescribeReply:
        return pb.DescribeReply()

    with pytest.raises(asyncio.CancelledError):
        await Answering().method(answers)(None, Gone())
    assert not caplog.records


async def test_an_unexpected_error_is_told_to_the_log_only(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object) -> None:
        raise RuntimeError(f"[Errno 5] {SECRET}")

    def fails_at_once(*_: object) -> None:
        raise RuntimeError(f"[Errno 5] {SECRET}")

    monkeypatch.setattr(ServedModel, "file", fails_at_once)
    monkeypatch.setattr("splitpoint.cloud.wire.service.read_request", fails)
    monkeypatch.setattr(stream_module, "shake_hands", fails)
    async with RawClient(worker) as client:
        for asking in (client.describe(), client.fetch(client.digest, client.digest)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asking
            assert caught.value.code() is grpc.StatusCode.INTERNAL
            assert "log" in str(caught.value.details())
            assert SECRET not in str(caught.value)
        await client.grpc_call.done_writing()
        assert await asyncio.wait_for(client.call.code(), 30) is grpc.StatusCode.INTERNAL
        assert SECRET not in str(await client.call.details())
    failed = {name for name in ("describe", "fetch", "infer") if f"{name} failed" in caplog.text}
    assert failed == {"describe", "fetch", "infer"}
    assert SECRET in caplog.text


async def test_a_bundle_whose_folder_has_vanished_is_still_described_and_served(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    (model,) = worker.models.values()
    folder = model.bundle.folder
    shutil.rmtree(folder)
    async with RawClient(worker) as client:
        (described,) = (await client.describe()).models
        assert described.digest == client.digest
        assert described.manifest_bytes > 0
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.fetch(client.digest, client.digest)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert str(folder) not in str(caught.value)
        await client.hello()
    assert str(folder) in caplog.text


async def test_what_a_client_calls_itself_stays_in_its_line(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    hostile = "x)\nWARNING  gate-1 is refused: the token\x1b[31m" + "y" * 150
    with caplog.at_level(logging.INFO, "splitpoint"):
        async with RawClient(worker) as client:
            await client.hello(client=hostile)
        async with RawClient(worker) as client:
            with pytest.raises(grpc.aio.AioRpcError):
                await client.hello(digest=hostile[:64], model=hostile[:90])
    assert any("uses small" in line for line in caplog.messages)
    for line in caplog.messages:
        assert line.isprintable()
        assert len(line) < 300


async def test_a_model_that_was_replaced_during_a_handshake_is_not_used(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was removed and added again: what is served by its digest is another copy."""
    (digest,) = worker.models
    shake_hands = stream_module.shake_hands

    async def slow(*arguments: Any) -> ServedModel:
        model = await shake_hands(*arguments)
        worker.models[digest] = dataclasses.replace(model)
        return model

    monkeypatch.setattr(stream_module, "shake_hands", slow)
    before = worker.models[digest]
    async with RawClient(worker) as client:
        await client.hello()
        assert await asyncio.wait_for(client.call.code(), 30) is grpc.StatusCode.UNAVAILABLE
        assert "not served any more" in str(await client.call.details())
    worker.models[digest] = before


class Watched(Mapping[str, ServedModel]):
    """Says in which thread it is looked at."""

    def __init__(self, models: Mapping[str, ServedModel]) -> None:
        self._models, self.threads = models, set[int]()

    def __getitem__(self, digest: str) -> ServedModel:
        return self._models[digest]

    def __iter__(self) -> Iterator[str]:
        self.threads.add(threading.get_ident())
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)


async def test_metrics_are_put_together_where_they_change(worker: Worker) -> None:
    """Models come and go on the event loop; Prometheus asks in a thread."""
    models = Watched(worker.models)
    service = worker.backend.service
    collector = WorkerCollector(
        worker.figures, models, worker.backend.engine, service.services.quarantine
    )
    families = await asyncio.to_thread(lambda: list(collector.collect()))
    assert any("predicted_wait" in family.name for family in families)
    assert models.threads == {threading.get_ident()}
