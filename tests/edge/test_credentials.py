"""What a device proves itself with, and how often it knocks where it is not let in."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from splitpoint.cloud.worker import Worker
from splitpoint.edge import AgentError, Credentials
from splitpoint.edge.link.channel import WorkerChannel
from splitpoint.edge.link.connection import Connection
from splitpoint.edge.link.refused import LONGEST_PAUSE_S, MOST_ATTEMPTS, TurnedAway
from splitpoint.edge.transport.credentials import read_token
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.limits import SERVICE
from splitpoint.proto.status import PermissionDeniedError, UnauthenticatedError, UnreachableError
from splitpoint.proto.tls import TlsError


def test_what_does_not_go_together(tmp_path: Path) -> None:
    path = tmp_path / "x.pem"
    for fields, words in (
        ({"tls_cert": path}, "--tls-cert without --tls-key"),
        ({"tls_key": path}, "--tls-key without --tls-cert"),
        ({"tls_cert": path, "tls_key": path}, "--tls-cert without --tls-ca"),
        ({"token": "two words"}, "characters other than"),
        ({"token": "line\n"}, "characters other than"),
        ({"token": "tökén"}, "characters other than"),
    ):
        with pytest.raises(AgentError, match=words) as caught:
            Credentials(**fields)
        assert "line" not in str(caught.value)


def test_a_token_is_not_shown() -> None:
    credentials = Credentials(token="secret")
    assert "secret" not in repr(credentials)
    assert credentials.metadata == (("authorization", "Bearer secret"),)
    assert Credentials().metadata == ()


async def test_a_token_goes_nowhere_in_clear(tmp_path: Path) -> None:
    for server in ("192.0.2.1:7070", "worker.example:7070", "0.0.0.0:7070"):
        with pytest.raises(AgentError, match="without TLS: give --tls-ca, or say --insecure"):
            Credentials(token="secret").open_channel(server, [])
        await Credentials().open_channel(server, []).close()
        await Credentials(token="secret", insecure=True).open_channel(server, []).close()
    await Credentials(token="secret").open_channel("127.0.0.1:1", []).close()
    with pytest.raises(TlsError, match="No such file"):
        Credentials(tls_ca=tmp_path / "ca.pem").open_channel("127.0.0.1:1", [])


async def test_this_machine_is_reached_without_the_proxy(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    async with Worker([small_bundle.folder], listen="127.0.0.1:0") as worker:
        channel = WorkerChannel(worker.address)
        assert (await channel.describe()).models
        await channel.close()
    channel = WorkerChannel("192.0.2.1:7070")
    with pytest.raises(
        UnreachableError, match=r"through the proxy http://127\.0\.0\.1:9 "
    ) as caught:
        await channel.describe()
    assert "secret" not in str(caught.value)
    await channel.close()


async def test_a_download_that_gets_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fetch(request: bytes, context: grpc.aio.ServicerContext) -> None:
        await context.write(pb.Chunk(offset=0, data=b"first").SerializeToString())
        await asyncio.Event().wait()

    server = grpc.aio.server()
    handlers = {"Fetch": grpc.unary_stream_rpc_method_handler(fetch)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    channel = WorkerChannel(address)
    chunks = channel.fetch("0" * 64, "1" * 64, 0)
    assert await anext(chunks) == b"first"
    monkeypatch.setattr("splitpoint.edge.link.channel.STALL_S", 0.05)
    with pytest.raises(UnreachableError, match=r"has sent nothing of a file for 0\.05 s"):
        await anext(chunks)
    await channel.close()
    await server.stop(0)


def test_token_files(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("secret\n")
    assert read_token(path) == "secret"
    path.write_text("\n")
    with pytest.raises(AgentError, match="is empty"):
        read_token(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(AgentError, match="holds no token"):
        read_token(path)
    with pytest.raises(AgentError, match="No such file"):
        read_token(tmp_path / "nothing")


def test_pauses_grow_and_end(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    away = TurnedAway("worker:7070", lambda: now_s)
    away.check()
    error = UnauthenticatedError("worker:7070 refuses: no")
    pauses = []
    for _ in range(MOST_ATTEMPTS - 1):
        away.again(error)
        began_s = now_s
        while True:
            try:
                away.check()
                break
            except UnauthenticatedError:
                now_s += 0.5
        pauses.append(now_s - began_s)
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(pauses) == LONGEST_PAUSE_S
    assert "not asked again" not in caplog.text
    away.again(error)
    assert "not asked again" in caplog.text
    now_s += 1e9
    for _ in range(3):
        with pytest.raises(UnauthenticatedError) as caught:
            away.check()
        assert len(caught.traceback) == 2  # it does not grow with each frame
    away.let_in()
    away.check()


class Bouncer:
    """Stands in for a channel to a worker that lets nobody in."""

    server = "worker:7070"
    outdated = False

    def __init__(self) -> None:
        self.asked = 0

    async def open_stream(self, *_: str) -> None:
        self.asked += 1
        raise PermissionDeniedError(f"{self.server} refuses: no")

    async def close(self) -> None:
        pass


async def test_frames_do_not_knock_one_by_one() -> None:
    bouncer = Bouncer()
    connection = Connection(bouncer, "small", "0" * 64, lambda stream: None)  # type: ignore[arg-type]
    for _ in range(20):
        with pytest.raises(PermissionDeniedError, match="refuses: no"):
            await connection.live()
    assert bouncer.asked == 1
    await connection.close()
