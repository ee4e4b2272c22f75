"""A device that is lost to the engine's process is lost to all who let clients in for it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ingest_workers import INGEST, ingest_processes, named_memory, on_each
from local_worker import local_worker
from patience import PATIENCE_S
from processes import rest_of
from raw_client import RawClient
from served import served
from splitpoint.cloud import backend
from splitpoint.cloud.engine import executor
from splitpoint.cloud.engine.engine import Engine
from splitpoint.cloud.fronts.port import hold_port
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import parse_server
from standin_cuda import ILLEGAL_ADDRESS, accelerator_error

STATUS = health_pb2.HealthCheckResponse
REFUSED = {pb.OVERLOADED, pb.STOPPING}

# `serve` on a device that fails once there is a file of that name.
FAILS = """
import sys
from pathlib import Path
from splitpoint.cli.main import main
from splitpoint.cloud.compute.runner import Runner
sys.path.append(sys.argv.pop(1))
from standin_cuda import ILLEGAL_ADDRESS, accelerator_error
fails, wait = Path(sys.argv.pop(1)), Runner.wait
def waits(self):
    if fails.exists():
        raise accelerator_error(*ILLEGAL_ADDRESS)
    wait(self)
Runner.wait = waits
main()
"""


def watch(client: RawClient) -> Any:
    """The health, of the process that the client is connected with."""
    return health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest())


def shared_memory() -> int:
    """How many pieces of it this process has open."""
    found = 0
    for one in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # as that of this very folder
            found += "memfd:splitpoint-frames" in os.readlink(one)
    return found


@pytest.mark.parametrize("how", ["fails", "hangs"])
async def test_clients_of_each_process_are_told_and_nothing_is_left(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    go_on = threading.Event()
    logging.disable()  # what is kept of it would keep the frame that failed, and its memory
    named, before = named_memory(), shared_memory()
    monkeypatch.setattr(executor, "WATCH_S", 0.02)
    monkeypatch.setattr(
        backend, "Engine", lambda **given: Engine(**given | {"on_gpu": True, "hung_s": PATIENCE_S})
    )

    def lost() -> None:
        if how == "fails":
            raise accelerator_error(*ILLEGAL_ADDRESS)
        go_on.wait(PATIENCE_S)

    entered = local_worker(small_bundle, ingest=INGEST)
    worker = await entered.__aenter__()
    try:
        async with on_each(worker) as clients:
            watches = [watch(client) for client in clients]
            for client, health in zip(clients, watches, strict=True):
                assert (await client.ask(client.frame(1))).status == pb.OK
                assert (await health.read()).status == STATUS.SERVING
            (model,) = worker.models.values()
            monkeypatch.setattr(model.runner, "wait", lost)
            (engine,) = worker.backend.engine.engines
            engine.executor.hung_s = 0.2
            reply = await clients[0].ask(clients[0].frame(2))
            assert reply.status == pb.INTERNAL
            assert await asyncio.wait_for(worker.until_lost(), PATIENCE_S)
            for client, health in zip(clients, watches, strict=True):
                assert (await health.read()).status == STATUS.NOT_SERVING
                for number in (3, 4):
                    assert (await client.ask(client.frame(number))).status in REFUSED
                health.cancel()
            assert len(ingest_processes()) == INGEST
            ending = asyncio.create_task(entered.__aexit__(None, None, None))
            for client in clients:
                data = await asyncio.wait_for(client.call.read(), PATIENCE_S)
                if data is not grpc.aio.EOF:
                    assert parse_server(data).WhichOneof("kind") == "draining"
            await asyncio.wait_for(ending, PATIENCE_S)
    finally:
        go_on.set()
        logging.disable(logging.NOTSET)
    assert not ingest_processes()
    assert not worker.backend.engine.queued_bytes
    assert not len(worker.backend.service.stream_places)
    gc.collect()
    assert shared_memory() == before
    assert named_memory() <= named
    hold_port(worker.address)[0].close()


def test_the_command_ends_with_all_its_processes(small_bundle: Bundle, tmp_path: Path) -> None:
    fails, tests = tmp_path / "fails", Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", FAILS, str(tests), str(fails), "serve", str(small_bundle.folder),
         "--listen", "127.0.0.1:0", "--device", "cpu", "--runtime", "torch", "--ingest", "2"],
        stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        address = next(
            line.split()[-1] for line in process.stderr if line.startswith("listening on")
        )
        children = ingest_processes(process.pid)
        assert len(children) == INGEST
        fails.touch()
        answers = asyncio.run(asked(address, small_bundle))
        _, alive = psutil.wait_procs(children, PATIENCE_S)
        assert not alive
        words = rest_of(process)[1]
    finally:
        process.kill()
    assert process.returncode == 1, words
    assert "the GPU is lost" in words
    assert "an ingest process" not in words, "none is started again, or has to be killed"
    assert answers[0] == pb.INTERNAL
    assert set(answers[1:]) <= REFUSED
    hold_port(address)[0].close()
    assert not [name for name in os.listdir("/dev/shm") if "splitpoint" in name]


async def asked(address: str, bundle: Bundle) -> list[int]:
    """What becomes of some frames of a client, as long as it is answered."""
    found = []
    worker: Any = None
    async with RawClient(worker, served(bundle), server=address) as client:
        await client.hello()
        for number in range(1, 4):
            try:
                await client.call.write(client.frame(number))
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                break  # it has ended
            data = await asyncio.wait_for(client.call.read(), PATIENCE_S)
            while data is not grpc.aio.EOF and parse_server(data).WhichOneof("kind") != "reply":
                data = await asyncio.wait_for(client.call.read(), PATIENCE_S)
            if data is grpc.aio.EOF:
                break
            found.append(parse_server(data).reply.status)
    return found
