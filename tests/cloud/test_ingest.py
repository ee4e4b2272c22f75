"""Ingest processes beside the engine: the same answers, and what becomes of those that are lost."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import grpc
import numpy as np
import psutil
import pytest
import torch
from ingest_workers import INGEST, ingest_processes, named_memory, on_each
from local_worker import local_worker
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    add_TraceServiceServicer_to_server,
)
from patience import FOREVER_S, PATIENCE_S, until
from processes import MAIN, free_port, rest_of
from raw_client import RawClient
from splitpoint.cloud import bundle_watch
from splitpoint.cloud.access.certs import make_certificates
from splitpoint.cloud.access.security import Security
from splitpoint.cloud.errors import ServeError
from splitpoint.cloud.fronts import ingest_processes as processes_module
from splitpoint.cloud.fronts.port import hold_port
from splitpoint.cloud.worker import Worker
from splitpoint.codec import codecs_for
from splitpoint.edge import AgentError, Credentials, EdgeAgent, Outcome
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.relative_error import relative_error
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.status import WireError
from splitpoint.proto.tls import TlsError
from token_files import bearer, token_file


def once_listening(*command: str) -> subprocess.Popen[str]:
    """A worker in a process of its own, once it listens."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    assert process.stderr is not None
    for line in process.stderr:
        if "listening on" in line:
            break
    return process


@pytest.fixture
def worker_options() -> dict[str, object]:
    return {"ingest": INGEST, "http": "127.0.0.1:0", "metrics": "127.0.0.1:0"}


class Held(threading.Event):
    """What is set when the model may go on."""

    computing = False


@asynccontextmanager
async def held_up(worker: Worker, digest: str = "") -> AsyncIterator[Held]:
    """A model, the first, does not come to an end of its first step before it is told to."""
    model = worker.models[digest or next(iter(worker.models))]
    step, go_on = model.runner.step, Held()

    def held(segment: int, state: object, samples: int) -> object:
        go_on.computing = True
        go_on.wait(PATIENCE_S)
        return step(segment, state, samples)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.runner, "step", held)
        try:
            yield go_on
        finally:
            go_on.set()


async def test_answers_are_those_of_the_model(
    worker: Worker, small: ModelSpec, small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    """At each boundary, in each codec."""
    with torch.inference_mode():
        expected = small.module(torch.tensor(pixels)).numpy()
    for boundary in small_bundle.manifest.boundaries[:-1]:
        for codec in codecs_for(boundary.tensors):
            agent = EdgeAgent(
                worker.address, split=str(boundary.id), codec=codec, cache=tmp_path, threads=1
            )
            async with agent:
                result = await agent.infer({"pixels": pixels})
            assert result.outcome is Outcome.ANSWERED, result.why
            limit = 1e-6 if codec in ("raw", "png") else 0.3
            assert relative_error(result.outputs["output"], expected) < limit, (boundary.id, codec)
            if codec == "raw":
                np.testing.assert_allclose(result.outputs["output"], expected, atol=1e-6)


@pytest.mark.parametrize("codec", ["fkt@1", "fkt@3", "fkt-video@2"])
async def test_calibrated_codecs_are_those_of_one_process(
    vivid_bundle: Bundle, codec: str, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 24, 24, 3)).astype(np.uint8)
    found = []
    for ingest in (0, INGEST):
        async with (
            local_worker(vivid_bundle, ingest=ingest) as worker,
            EdgeAgent(worker.address, split="1", codec=codec, cache=tmp_path) as agent,
        ):
            for _ in range(2):
                result = await agent.infer({"pixels": pixels})
                assert result.outcome is Outcome.ANSWERED, result.why
                found.append(result.outputs["output"])
    np.testing.assert_array_equal(found[:2], found[2:])


async def test_many_clients_at_once(worker: Worker) -> None:
    """Each gets its own answers, in batches with those of the other process."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(RawClient(worker)) for _ in range(6)]

        async def drive(client: RawClient) -> set[bytes]:
            await client.hello()
            answers = set()
            for number in range(1, 31):
                reply = await client.ask(client.frame(number))
                assert (reply.id, reply.status) == (number, pb.OK), reply.reason
                answers.add(reply.outputs[0].payload)
            return answers

        found = [
            np.frombuffer(payload, np.float32)
            for answers in await asyncio.gather(*map(drive, clients))
            for payload in answers
        ]
    for values in found:
        np.testing.assert_allclose(values, found[0], rtol=1e-4, atol=1e-5)


async def test_a_process_that_is_killed_costs_its_streams_a_reconnect(
    worker: Worker, pixels: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with on_each(worker) as (lost, stays), AsyncExitStack() as stack:
        victim, other = ingest_processes()
        for number in range(1, 4):
            await lost.call.write(lost.frame(number))
        assert (await stays.ask(stays.frame(1))).status == pb.OK
        victim.kill()
        with suppress(grpc.aio.AioRpcError):
            while (await asyncio.wait_for(lost.call.read(), PATIENCE_S)) is not grpc.aio.EOF:
                pass
        for number in range(2, 20):  # the others go on
            assert (await stays.ask(stays.frame(number))).status == pb.OK
        assert other.is_running()
        await until(lambda: len(ingest_processes()) == INGEST)
        await until(lambda: not worker.backend.engine.queued_bytes)
        await until(lambda: len(worker.backend.service.stream_places) == 1)  # its places are free
        assert (
            "has ended (exit code -9) and is started again; its clients connect anew" in caplog.text
        )
        agent = await stack.enter_async_context(
            EdgeAgent(worker.address, split="1", codec="q8", cache=tmp_path)
        )
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED


async def test_frames_of_a_killed_process_are_finished_by_their_devices(
    worker: Worker, small: ModelSpec, pixels: np.ndarray, tmp_path: Path
) -> None:
    """One process after the other is killed under four agents that go on."""
    with torch.inference_mode():
        expected = small.module(torch.tensor(pixels)).numpy()
    stop, count = asyncio.Event(), 0

    async def drive() -> None:
        nonlocal count
        async with EdgeAgent(worker.address, split="1", codec="raw", cache=tmp_path) as agent:
            await until(lambda: agent.can_finish)
            while not stop.is_set():
                result = await agent.infer({"pixels": pixels})
                assert result.outcome in (Outcome.ANSWERED, Outcome.LOCAL), result.why
                assert relative_error(result.outputs["output"], expected) < 1e-4
                count += 1

    driving = asyncio.gather(*[drive() for _ in range(4)])
    try:
        for _ in range(2):
            before = count
            await until(lambda before=before: count > before + 20)
            victim = ingest_processes()[0]
            victim.kill()
            await until(lambda gone=victim.pid: gone not in [p.pid for p in ingest_processes()])
            await until(lambda: len(ingest_processes()) == INGEST)
    finally:
        stop.set()
        await driving
    assert not worker.backend.engine.queued_bytes
    assert worker.backend.service.services.figures.ingest_restarts == 2


async def test_a_process_that_hangs_is_replaced(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    victim, other = ingest_processes()
    monkeypatch.setattr(processes_module, "SILENT_S", 3.0)
    victim.suspend()
    await until(lambda: victim.pid not in [process.pid for process in ingest_processes()])
    await until(lambda: len(ingest_processes()) == INGEST)
    assert "does not answer any more" in caplog.text
    assert other.is_running()


async def test_a_process_that_hangs_at_its_start_is_replaced(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    victim, other = ingest_processes()
    monkeypatch.setattr(processes_module, "START_S", 3.0)
    victim.kill()
    await until(lambda: len(ingest_processes()) == INGEST and victim not in ingest_processes())
    (hangs,) = set(ingest_processes()) - {other}
    hangs.suspend()
    await until(lambda: "was not ready in 3 s" in caplog.text)
    monkeypatch.undo()
    await until(lambda: hangs not in ingest_processes() and len(ingest_processes()) == INGEST)
    assert other.is_running()


def test_nobody_is_replaced_for_what_a_stopped_worker_did_not_hear(small_bundle: Bundle) -> None:
    """It looks at its clock first, when it goes on, and then at what was said meanwhile."""
    code = (
        "from splitpoint.cloud.fronts import ingest_processes; ingest_processes.SILENT_S = 5.0; "
        "from splitpoint.cli.main import main; main()"
    )
    process = once_listening(
        sys.executable, "-c", code, "serve", str(small_bundle.folder), "--listen", "127.0.0.1:0",
        "--device", "cpu", "--ingest", "2",
    )  # fmt: skip
    before = ingest_processes(process.pid)
    process.send_signal(signal.SIGSTOP)
    time.sleep(6.0)
    process.send_signal(signal.SIGCONT)
    time.sleep(1.0)
    after = ingest_processes(process.pid)
    process.send_signal(signal.SIGTERM)
    words = rest_of(process)[1]
    assert after == before, words
    assert "does not answer" not in words


async def test_a_process_that_hangs_does_not_keep_a_worker_from_its_end(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(processes_module, "SILENT_S", FOREVER_S)
    entered = local_worker(small_bundle, ingest=INGEST, grace_s=0.5)
    await entered.__aenter__()
    hangs, _ = ingest_processes()
    hangs.suspend()
    try:
        await asyncio.wait_for(entered.__aexit__(None, None, None), PATIENCE_S)
    finally:
        with suppress(psutil.Error):
            hangs.kill()
    assert not ingest_processes()
    assert "does not answer any more" in caplog.text


async def test_where_all_stood_still_nobody_was_silent(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when a container is paused."""
    monkeypatch.setattr(processes_module, "SILENT_S", 3.0)
    before = ingest_processes()
    for process in before:
        process.suspend()
    time.sleep(4.0)  # noqa: ASYNC251 - nothing goes on here either
    for process in before:
        process.resume()
    await asyncio.sleep(4 * processes_module.LOADS_S)
    assert "does not answer any more" not in caplog.text
    assert ingest_processes() == before


async def test_a_model_that_goes_is_unknown_to_who_starts_meanwhile(
    small: ModelSpec, small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """One process has a frame of it, and the other one ends and is started again."""
    monkeypatch.setattr(bundle_watch, "EVERY_S", 0.02)
    goes = compile_model(small, tmp_path / "goes.split", boundaries=3)
    async with (
        local_worker(small_bundle, watch=tmp_path, ingest=INGEST, grace_s=PATIENCE_S) as worker,
        held_up(worker, goes.digest) as go_on,
        RawClient(worker, worker.models[goes.digest]) as client,
        AsyncExitStack() as stack,
    ):
        port = int(worker.address.rpartition(":")[2])

        def is_connected(process: psutil.Process) -> bool:
            ends = [c for c in process.net_connections() if c.status == "ESTABLISHED"]
            return port in [end.laddr.port for end in ends]

        await client.hello()
        await client.call.write(client.frame(1))
        await until(lambda: go_on.computing)
        before = ingest_processes()
        shutil.rmtree(goes.folder)
        assert (await client.message()).WhichOneof("kind") == "draining"
        (victim,) = [process for process in before if not is_connected(process)]
        victim.kill()
        await until(lambda: victim.pid not in [process.pid for process in ingest_processes()])
        await until(lambda: len(ingest_processes()) == INGEST)
        (newcomer,) = [process for process in ingest_processes() if process not in before]
        for _ in range(1000):
            late = await stack.enter_async_context(RawClient(worker))
            with suppress(grpc.aio.AioRpcError):  # it is not open yet
                await late.hello()
                if is_connected(newcomer):
                    break
            await late.__aexit__()
        assert is_connected(newcomer)
        go_on.set()
        assert (await client.reply()).status == pb.OK
        await until(lambda: worker.figures.models.keys() == {small_bundle.digest})
        async with late:  # one more stream on that connection
            with pytest.raises(grpc.aio.AioRpcError, match="not served here"):
                await late.hello(digest=goes.digest)
    assert "is not served by all" not in caplog.text  # its files are gone


async def test_limits_hold_over_all_processes(small_bundle: Bundle, tmp_path: Path) -> None:
    tokens = token_file(tmp_path, gate="max_streams = 3\nmax_requests_per_s = 5", other="")
    security = Security(tokens=tokens)
    async with local_worker(small_bundle, ingest=INGEST, security=security) as worker:
        async with AsyncExitStack() as stack:

            async def client(name: str) -> RawClient:
                found = RawClient(worker, metadata=bearer(name))
                await stack.enter_async_context(found)
                await found.hello()
                return found

            gates = [await client("gate") for _ in range(3)]
            for _ in range(4):  # whichever process they come to
                async with RawClient(worker, metadata=bearer("gate")) as one_too_many:
                    code, words = await one_too_many.ended()
                assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert "gate has 3 streams, its limit" in words
            others = [await client("other") for _ in range(4)]
            begin_s = time.monotonic()
            statuses = [
                (await gate.ask(gate.frame(number))).status
                for number in range(1, 6)
                for gate in gates
            ]
            later = 5 * (time.monotonic() - begin_s)  # of the same second's frames, and after it
            assert 5 <= statuses.count(pb.OK) <= 5 + later
            assert set(statuses) == {pb.OK, pb.OVERLOADED}
            for other in others:
                assert (await other.ask(other.frame(1))).status == pb.OK
            await until(lambda: worker.refusals.counts["rate"] > 0)
        await until(lambda: not len(worker.backend.service.stream_places))
        async with RawClient(worker, metadata=bearer("gate")) as again:
            await again.hello()


async def test_certificates_are_those_of_all_processes(
    small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    make_certificates(tmp_path, servers=["127.0.0.1"], devices=["cam"])
    security = Security(
        tls_cert=tmp_path / "server.pem",
        tls_key=tmp_path / "server.key",
        client_ca=tmp_path / "ca.pem",
    )
    known = Credentials(
        tls_ca=tmp_path / "ca.pem", tls_cert=tmp_path / "cam.pem", tls_key=tmp_path / "cam.key"
    )
    async with local_worker(small_bundle, ingest=INGEST, security=security) as worker:
        for _ in range(6):  # whichever process they come to
            agent = EdgeAgent(
                worker.address, split="1", codec="raw", cache=tmp_path / "c", credentials=known
            )
            async with agent:
                assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
            stranger = EdgeAgent(
                worker.address, split="1", codec="raw", cache=tmp_path / "none",
                credentials=Credentials(tls_ca=tmp_path / "ca.pem"),
            )  # fmt: skip
            with pytest.raises((WireError, AgentError, TlsError)):
                await stranger.__aenter__()


async def test_files_of_credentials_are_read_once(
    small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    """Whatever stands there when a process is started again: all let the same clients in."""
    make_certificates(tmp_path, servers=["127.0.0.1"])
    tokens = token_file(tmp_path, gate="")
    security = Security(
        tls_cert=tmp_path / "server.pem", tls_key=tmp_path / "server.key", tokens=tokens
    )
    known = Credentials(tls_ca=tmp_path / "ca.pem", token="gate")
    async with local_worker(small_bundle, ingest=1, security=security) as worker:
        (first,) = ingest_processes()
        for path in (tmp_path / "server.pem", tokens):
            path.write_text("what is no use to anybody")
        first.kill()
        await until(lambda: not worker.backend.service.open)
        await until(lambda: worker.backend.service.open)
        agent = EdgeAgent(
            worker.address, split="1", codec="raw", cache=tmp_path / "c", credentials=known
        )
        async with agent:
            assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED


async def test_figures_are_those_of_all(worker: Worker) -> None:
    async with on_each(worker) as each, aiohttp.ClientSession() as session:
        for client in each:
            for number in range(1, 6):
                assert (await client.ask(client.frame(number))).status == pb.OK
            await client.ask(b"nonsense")

        async def stats_with(streams: int) -> dict[str, Any]:
            """Once that many are open: a process tells of the end of a stream a little later."""
            for _ in range(int(PATIENCE_S / 0.01)):
                async with session.get(f"http://{worker.http_address}/stats") as response:
                    found: dict[str, Any] = await response.json()
                if found["streams_open"] == streams:
                    return found
                await asyncio.sleep(0.01)
            pytest.fail(f"{found['streams_open']} streams are open, not {streams}")

        found = await stats_with(INGEST)
        assert sorted(stream["frames"] for stream in found["streams"]) == [5, 5]
        (model,) = found["models"]
        assert model["answers"] == {"ok": 5 * INGEST}
        assert model["refused_elsewhere"] == {"malformed": INGEST}
        async with session.get(f"http://{worker.metrics_address}/metrics") as response:
            text = await response.text()
        assert re.search(r'frames_total{boundary="0".*status="ok"} 10.0', text)
        assert re.search(r"open_streams{.*} 2.0", text)
        async with session.get(f"http://{worker.http_address}/healthz") as response:
            assert response.status == 200

        # What one has told is not lost with it.
        ingest_processes()[0].kill()
        await until(lambda: len(ingest_processes()) == INGEST)
        found = await stats_with(1)
        assert found["models"][0]["answers"] == {"ok": 5 * INGEST}


async def test_spans_come_from_the_process_that_took_the_frame(small_bundle: Bundle) -> None:
    """With the times that the engine's process measured."""
    found: list[Any] = []

    async def export(request: Any, context: Any) -> ExportTraceServiceResponse:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                found.extend(scope.spans)
        return ExportTraceServiceResponse()

    collector = grpc.aio.server()
    add_TraceServiceServicer_to_server(SimpleNamespace(Export=export), collector)
    port = collector.add_insecure_port("127.0.0.1:0")
    await collector.start()
    async with (
        local_worker(small_bundle, ingest=1, traces_to=f"127.0.0.1:{port}") as worker,
        RawClient(worker) as client,
    ):
        await client.hello()
        assert (await client.ask(client.frame(1))).status == pb.OK
    await collector.stop(None)  # what ends has sent its spans
    names = {span.name: span for span in found}
    assert names.keys() == {"splitpoint.frame", "receive", "decode", "queue", "compute", "reply"}
    stages = [names[name] for name in ("receive", "decode", "queue", "compute", "reply")]
    for before, after in itertools.pairwise(stages):
        assert before.start_time_unix_nano <= before.end_time_unix_nano
        assert before.end_time_unix_nano == after.start_time_unix_nano


async def test_a_frame_that_broke_a_batch_is_known_to_all(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = next(iter(worker.models.values()))
    step = model.runner.step

    def broken(segment: int, state: object, samples: int) -> object:
        raise ValueError("a kernel that cannot")

    async with on_each(worker) as (first, second):
        monkeypatch.setattr(model.runner, "step", broken)
        assert (await first.ask(first.frame(1))).status == pb.INTERNAL
        monkeypatch.setattr(model.runner, "step", step)
        await until(lambda: worker.backend.service.services.quarantine.added)
        for client in (first, second):
            reply = await client.ask(client.frame(2))
            assert (reply.status, reply.reason) == (
                pb.INTERNAL, "the same frame broke a batch a moment ago",
            )  # fmt: skip


async def test_cancelled_frames_are_not_computed(worker: Worker) -> None:
    async with held_up(worker) as go_on, RawClient(worker) as client:
        await client.hello()
        await client.call.write(client.frame(1))
        await until(lambda: go_on.computing)
        for number in (2, 3):
            await client.call.write(client.frame(number))
        cancel = pb.ClientMessage(cancel=pb.Cancel(id=3))
        await client.call.write(cancel.SerializeToString())
        await client.call.write(client.frame(4))  # who has this one has been told
        await until(lambda: worker.backend.engine.load().queued == 4)
        go_on.set()
        replies = {reply.id: reply.status for reply in [await client.reply() for _ in range(4)]}
    assert replies == {1: pb.OK, 2: pb.OK, 3: pb.CANCELLED, 4: pb.OK}


async def test_what_was_taken_is_answered_when_it_drains(small_bundle: Bundle) -> None:
    entered = local_worker(small_bundle, ingest=INGEST)
    worker = await entered.__aenter__()
    async with held_up(worker) as go_on, RawClient(worker) as client:
        await client.hello()
        await client.call.write(client.frame(1))
        await until(lambda: worker.backend.engine.load().queued == 1)
        ending = asyncio.create_task(entered.__aexit__(None, None, None))
        assert (await client.message()).WhichOneof("kind") == "draining"
        assert (await client.ask(client.frame(2))).status == pb.STOPPING
        go_on.set()
        reply = await client.reply()
        assert (reply.id, reply.status) == (1, pb.OK)
    await ending
    assert not ingest_processes()


def test_nobody_is_left_where_the_worker_is_killed(small_bundle: Bundle) -> None:
    """Neither processes nor memory; and each of those says why it ends."""
    process = subprocess.Popen(
        [*MAIN, "serve", str(small_bundle.folder), "--listen", "127.0.0.1:0", "--ingest", "2"],
        stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stderr is not None
    shared = named_memory()
    for line in process.stderr:
        if "listening on" in line:
            break
    children = ingest_processes(process.pid)
    assert len(children) == INGEST
    process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, PATIENCE_S)
    assert not alive
    words = rest_of(process)[1]
    assert words.count("an ingest process ends: the engine's process is gone") == INGEST
    assert named_memory() <= shared


def test_a_signal_to_the_whole_group_drains(small_bundle: Bundle) -> None:
    """As a service manager sends it: ingest processes leave that to the worker."""
    process = once_listening(
        *MAIN, "serve", str(small_bundle.folder), "--listen", "127.0.0.1:0", "--ingest", "2"
    )
    children = ingest_processes(process.pid)
    for one in (*children, psutil.Process(process.pid)):
        one.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(children, PATIENCE_S)
    assert not alive
    words = rest_of(process)[1]
    assert process.returncode == 0, words
    assert "draining\nstopped" in words
    assert "error" not in words


async def test_ports_are_not_shared_with_another_worker(
    worker: Worker, small_bundle: Bundle
) -> None:
    for ingest in (0, 1):
        with pytest.raises(ServeError, match="is the port in use"):
            async with local_worker(small_bundle, listen=worker.address, ingest=ingest):
                pass
    assert len(ingest_processes()) == INGEST


def test_a_port_is_held_for_processes_of_one_worker() -> None:
    port = free_port()
    held, address = hold_port(f"127.0.0.1:{port}")
    assert address == f"127.0.0.1:{port}"
    with held, socket.create_server(("127.0.0.1", port), reuse_port=True):
        pass
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ServeError, match="in use"):
        hold_port(address)


def test_a_held_port_is_no_other_workers() -> None:
    """Also while no process of its worker listens: before the first does, and when all are gone."""
    with socket.create_server(("127.0.0.1", 0)) as server:  # leaves a connection in TIME_WAIT
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            server.accept()[0].close()
            assert client.recv(1) == b""
    for host in ("127.0.0.1", "0.0.0.0"):
        with hold_port(f"{host}:{port}")[0]:
            for other in ("127.0.0.1", "0.0.0.0"):
                with pytest.raises(ServeError, match="is the port in use"):
                    hold_port(f"{other}:{port}")
                with pytest.raises(OSError, match="in use"):
                    socket.create_server((other, port))
            with (
                socket.create_server((host, port), reuse_port=True),
                socket.create_server((host, port), reuse_port=True),
            ):
                pass
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))


async def test_nothing_is_imported_from_the_current_folder(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may be anybody's, and has no say in what a worker runs."""
    (tmp_path / "asyncio.py").write_text("raise SystemExit('not what was meant')")
    monkeypatch.chdir(tmp_path)
    async with local_worker(small_bundle, ingest=1):
        assert len(ingest_processes()) == 1


@pytest.mark.parametrize(
    ("cores", "ingest", "remedy"),
    [(1, 1, "leave out --ingest"), (2, 2, "give --ingest 1"), (3, 2, None)],
)
async def test_processes_that_take_all_cores(
    small_bundle: Bundle,
    cores: int,
    ingest: int,
    remedy: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    async with local_worker(small_bundle, ingest=ingest):
        assert len(ingest_processes()) == ingest
    said = [line for line in caplog.messages if "takes all cores" in line]
    assert [line.rpartition(": ")[2] for line in said] == ([remedy] if remedy else [])


async def test_what_cannot_be_served_is_said_as_by_one_process(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(ServeError, match="give 0 to"):
        local_worker(small_bundle, ingest=-1)
    with pytest.raises(ServeError, match="cannot listen on"):
        async with local_worker(
            small_bundle, ingest=1, listen="192.0.2.1:7070", security=Security(insecure=True)
        ):
            pass
    assert not ingest_processes()
