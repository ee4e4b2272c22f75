"""Models that appear in a folder and vanish from it, while others are served."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from local_worker import local_worker
from patience import until
from raw_client import RawClient
from splitpoint.cloud import bundle_watch, session
from splitpoint.cloud.bundle_watch import BundleWatch
from splitpoint.cloud.compute.served_model import ServedModel
from splitpoint.cloud.worker import Worker
from splitpoint.partition.bundle.bundle import DIGEST, Bundle
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.errors import BundleError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.proto import splitpoint_pb2 as pb

HEALTH = health_pb2.HealthCheckResponse


class FakeSet:
    """A bundle's digest is what its digest file says; `bad` is damaged."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    async def add(self, folder: Path) -> str:
        digest = (folder / DIGEST).read_text()
        self.calls.append(("add", folder.name))
        if digest == "bad":
            raise BundleError(f"{folder} is damaged\nin two lines")
        if digest == "odd":
            raise RuntimeError("a runtime that cannot load it")
        return digest

    async def remove(self, digest: str) -> None:
        self.calls.append(("remove", digest))

    def taken(self) -> list[tuple[str, str]]:
        taken, self.calls = self.calls, []
        return taken


def put(folder: Path, name: str, digest: str | None) -> None:
    (folder / name).mkdir(exist_ok=True)
    if digest is not None:
        (folder / name / DIGEST).write_text(digest)


async def test_what_is_tried_and_when(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    served = FakeSet()
    watch = BundleWatch(tmp_path, served.add, served.remove)
    put(tmp_path, "a.split", "A")
    put(tmp_path, "b.split", "bad")
    put(tmp_path, "c.split", "odd")
    put(tmp_path, "unfinished.split", None)
    put(tmp_path, "other", "X")
    await watch.look(first=True)
    assert served.taken() == [("add", "a.split"), ("add", "b.split"), ("add", "c.split")]
    await watch.look()
    assert served.taken() == []
    assert len(caplog.messages) == 2  # once each, and in one line
    assert all("is not served" in line and "\n" not in line for line in caplog.messages)
    # One that is being copied is tried when it has settled.
    put(tmp_path, "b.split", "B")
    put(tmp_path, "d.split", "A")
    await watch.look()
    assert served.taken() == []
    (tmp_path / "d.split" / "more").write_text("another file")
    await watch.look()
    assert served.taken() == [("add", "b.split")]
    await watch.look()
    assert served.taken() == [("add", "d.split")]
    # The same bundle from two folders goes with the second.
    shutil.rmtree(tmp_path / "a.split")
    await watch.look()
    assert served.taken() == []
    shutil.rmtree(tmp_path / "d.split")
    await watch.look()
    assert served.taken() == [("remove", "A")]


async def test_a_bundle_is_replaced_in_place(tmp_path: Path) -> None:
    served = FakeSet()
    watch = BundleWatch(tmp_path, served.add, served.remove)
    put(tmp_path, "a.split", "old")
    await watch.look(first=True)
    put(tmp_path, "a.split", "bad")
    for _ in range(3):
        await watch.look()
    assert served.taken() == [("add", "a.split")] * 2  # what was served still is
    put(tmp_path, "a.split", "new!")
    await watch.look()
    await watch.look()
    assert served.taken() == [("add", "a.split"), ("remove", "old")]


async def test_a_folder_that_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served = FakeSet()
    folder = tmp_path / "share"
    watch = BundleWatch(folder, served.add, served.remove)
    await watch.look(first=True)
    await watch.look()
    assert len(caplog.messages) == 1
    put(tmp_path, "share", None)
    put(folder, "a.split", "A")
    await watch.look()
    await watch.look()
    folder.rename(tmp_path / "away")
    await watch.look()
    assert served.taken() == [("add", "a.split")]  # a share that comes back loses nothing
    assert len(caplog.messages) == 2


@pytest.fixture(scope="module")
def other_bundle(small: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same net, cut at other boundaries."""
    folder = tmp_path_factory.mktemp("bundles") / "other.split"
    return compile_model(small, folder, boundaries=3)


@pytest.fixture
async def watching(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, both_ways: None
) -> AsyncIterator[Worker]:
    monkeypatch.setattr(bundle_watch, "EVERY_S", 0.02)
    async with local_worker(small_bundle, watch=tmp_path, grace_s=5) as running:
        yield running


async def test_models_come_and_go(
    watching: Worker, small_bundle: Bundle, other_bundle: Bundle, tmp_path: Path
) -> None:
    worker = watching
    (tmp_path / "damaged.split").mkdir()
    shutil.copytree(other_bundle.folder, tmp_path / "damaged.split", dirs_exist_ok=True)
    damaged = next((tmp_path / "damaged.split" / "segments").glob("*.safetensors"))
    damaged.write_bytes(b"short")
    shutil.copytree(other_bundle.folder, tmp_path / "other.split")
    await until(lambda: other_bundle.digest in worker.models)
    assert worker.models.keys() == {small_bundle.digest, other_bundle.digest}
    async with (
        RawClient(worker, worker.models[small_bundle.digest]) as stays,
        RawClient(worker, worker.models[other_bundle.digest]) as goes,
    ):
        await stays.hello()
        await goes.hello()
        assert (await goes.ask(goes.frame(1))).status == pb.OK
        model = weakref.ref(worker.models[other_bundle.digest])
        chain = weakref.ref(worker.models[other_bundle.digest].runner.chain)
        shutil.rmtree(tmp_path / "other.split")
        assert (await goes.message()).draining.grace_ms == 5000
        assert await asyncio.wait_for(goes.call.code(), 10) is grpc.StatusCode.UNAVAILABLE
        assert (await stays.ask(stays.frame(1))).status == pb.OK
        del goes.model
        await until(lambda: model() is None and chain() is None)
        assert worker.models.keys() == {small_bundle.digest} == worker.figures.models.keys()
        async with RawClient(worker) as late:
            with pytest.raises(grpc.aio.AioRpcError, match="not served here"):
                await late.hello(digest=other_bundle.digest)
    gc.collect()


async def test_frames_of_a_model_that_goes_are_finished(
    watching: Worker, other_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = watching
    shutil.copytree(other_bundle.folder, tmp_path / "other.split")
    await until(lambda: other_bundle.digest in worker.models)
    model = worker.models[other_bundle.digest]
    computing, go_on, step = threading.Event(), threading.Event(), model.runner.step

    def held(segment: int, state: object, samples: int) -> object:
        computing.set()
        go_on.wait(10)
        return step(segment, state, samples)  # type: ignore[arg-type]

    monkeypatch.setattr(model.runner, "step", held)
    async with RawClient(worker, model) as client:
        await client.hello()
        await client.call.write(client.frame(1))
        await until(computing.is_set)
        shutil.rmtree(tmp_path / "other.split")
        assert (await client.message()).WhichOneof("kind") == "draining"
        assert (await client.ask(client.frame(2))).status == pb.STOPPING
        go_on.set()
        reply = (await client.message()).reply
        assert (reply.id, reply.status) == (1, pb.OK)


async def test_loading_does_not_hold_up_the_event_loop(
    watching: Worker, other_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = watching
    loading, go_on, load = threading.Event(), threading.Event(), session.load_served_model
    threads: list[str] = []

    def held(*what: Any, **how: Any) -> ServedModel:
        threads.append(threading.current_thread().name)
        loading.set()
        go_on.wait(10)
        return load(*what, **how)

    monkeypatch.setattr(session, "load_served_model", held)
    shutil.copytree(other_bundle.folder, tmp_path / "other.split")
    await until(loading.is_set)
    async with RawClient(worker) as client:
        await client.hello()
        probe = pb.ClientMessage(probe=pb.Probe(id=1)).SerializeToString()
        await client.call.write(probe)
        assert (await client.message()).probe.id == 1
        await client.call.write(client.frame(1))  # waits for the compute thread
        go_on.set()
        assert (await client.message()).reply.status == pb.OK
    await until(lambda: other_bundle.digest in worker.models)
    assert threads == ["splitpoint-compute"]


@pytest.mark.usefixtures("both_ways")
async def test_a_worker_without_models_is_not_asked(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_watch, "EVERY_S", 0.02)
    async with (
        local_worker(watch=tmp_path) as worker,
        grpc.aio.insecure_channel(worker.address) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == HEALTH.NOT_SERVING
        shutil.copytree(small_bundle.folder, tmp_path / "small.split")
        assert (await asyncio.wait_for(watch.read(), 30)).status == HEALTH.SERVING
        shutil.rmtree(tmp_path / "small.split")
        assert (await asyncio.wait_for(watch.read(), 30)).status == HEALTH.NOT_SERVING
        watch.cancel()
