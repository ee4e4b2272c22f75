"""What serving on Ray consists of, without Ray."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from processes import splitpoint
from splitpoint.cloud.errors import ServeError
from splitpoint.cloud.ray.call import RayCall
from splitpoint.cloud.ray.options import RayOptions
from splitpoint.cloud.ray.policy import BUSY, MOST_WAIT_MS, replicas_for_wait
from splitpoint.cloud.ray.servicer import HEALTH_SERVICE, SERVICER_FUNCTION, add_split_to_server
from splitpoint.cloud.wire.abort import Aborted
from splitpoint.proto.limits import SERVICE


@dataclass
class Info:
    code: grpc.StatusCode | None = None
    details: str = ""

    def peer(self) -> str:
        return "ipv4:192.0.2.1:1234"

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return [("authorization", "Bearer x")]

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details


async def messages(*items: bytes, silent: bool = False) -> AsyncIterator[bytes]:
    for item in items:
        yield item
    if silent:
        await asyncio.sleep(60)


async def test_a_call_is_read_written_and_ended() -> None:
    call = RayCall(messages(b"a", b"b"), Info())

    async def echo() -> None:
        while (data := await call.read()) is not grpc.aio.EOF:
            await call.write(data + data)

    assert [raw.SerializeToString() async for raw in call.answers(echo())] == [b"aa", b"bb"]


async def test_a_closed_call_ends_a_stream_that_is_silent() -> None:
    call = RayCall(messages(b"a", silent=True), Info())
    seen = []

    async def take() -> None:
        while (data := await call.read()) is not grpc.aio.EOF:
            seen.append(data)
            asyncio.get_running_loop().call_later(0.05, call.close)

    assert [raw async for raw in call.answers(take())] == []
    assert seen == [b"a"]


async def test_an_abort_sets_the_status_of_the_call() -> None:
    info = Info()
    call = RayCall(messages(), info)

    async def refuse() -> None:
        await call.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such model")

    with pytest.raises(Aborted, match="no such model"):
        async for _ in call.answers(refuse()):
            pass
    assert info.code is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_client_that_leaves_ends_the_work() -> None:
    call, ended = RayCall(messages(silent=True), Info()), asyncio.Event()

    async def work() -> None:
        try:
            await call.write(b"x")
            await asyncio.sleep(60)
        finally:
            ended.set()

    answers = call.answers(work())
    await anext(answers)
    await answers.aclose()
    assert ended.is_set()


def test_the_servicer_names_all_calls_and_leaves_their_bytes_alone() -> None:
    class Server:
        def __init__(self) -> None:
            self.handlers: list[grpc.GenericRpcHandler] = []

        def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
            self.handlers += handlers

        def handler(self, path: str) -> Any:
            call: Any = SimpleNamespace(method=path)
            return next(filter(None, (each.service(call) for each in self.handlers)))

    class Servicer:
        Describe = Fetch = Infer = Check = None

    server = Server()
    add_split_to_server(Servicer(), server)
    names = [f"/{SERVICE}/{name}" for name in ("Describe", "Fetch", "Infer")]
    found = [server.handler(path) for path in (*names, f"/{HEALTH_SERVICE}/Check")]
    assert [(each.request_streaming, each.response_streaming) for each in found] == [
        (False, False), (False, True), (True, True), (False, False),
    ]  # fmt: skip
    assert all(each.request_deserializer is None for each in found)
    module, _, name = SERVICER_FUNCTION.rpartition(".")
    assert getattr(sys.modules[module], name) is add_split_to_server


@dataclass
class Context:
    current_num_replicas: int
    wait_ms: list[float] = field(default_factory=list)
    utilisation: list[float] = field(default_factory=list)
    target_num_replicas: int = 3

    @property
    def aggregated_metrics(self) -> dict[str, dict[Any, float]]:
        return {
            "wait_ms": dict(enumerate(self.wait_ms)),
            "utilisation": dict(enumerate(self.utilisation)),
        }


def wanted(*arguments: Any) -> float:
    return replicas_for_wait(Context(*arguments))[0]


def test_replicas_follow_the_wait_and_the_work() -> None:
    assert wanted(2, [5, 5], [BUSY, BUSY]) == pytest.approx(2)
    assert wanted(4, [5] * 4, [0.3 * BUSY] * 4) == pytest.approx(1.2)
    assert wanted(2, [1.5 * MOST_WAIT_MS] * 2, [BUSY] * 2) == pytest.approx(3)
    assert wanted(8, [20 * MOST_WAIT_MS] * 8, [1.0] * 8) == pytest.approx(16)
    assert wanted(1, [2000], [1.0]) == pytest.approx(2)
    # Frames wait, if little: no replica goes.
    assert wanted(4, [0.6 * MOST_WAIT_MS] * 4, [0.3] * 4) == pytest.approx(4)


def test_without_reports_nothing_changes() -> None:
    assert wanted(2, [], []) == 3
    assert wanted(0, [], []) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [({"bundles": []}, "no bundle"), ({"replicas": 0}, "cannot be run"),
     ({"replicas": "many"}, "cannot be run"), ({"min_replicas": 9}, "no range")],
)  # fmt: skip
def test_options_that_make_no_sense(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ServeError, match=words):
        RayOptions(**{"bundles": ["a.split"], **change})


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 1, "Ray's proxy listens on every interface"),
        (("--listen", "0.0.0.0:0"), 1, "0.0.0.0:0"),
        (("--listen", "0.0.0.0:7070"), 1, "without TLS"),
        (("--listen", "0.0.0.0:7070", "--insecure", "--replicas", "few"), 1, "'few' replicas"),
        (("--listen", "0.0.0.0:7070", "--reflection"), 2, "not for --ray: --reflection"),
    ],
)
def test_the_command_refuses_what_ray_cannot_do(
    arguments: tuple[str, ...], code: int, words: str
) -> None:
    found = splitpoint("serve", "any.split", "--ray", *arguments)
    assert found.returncode == code
    assert words in found.stderr


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_the_command_names_the_extra_where_ray_is_missing() -> None:
    found = splitpoint("serve", "any.split", "--ray", "--listen", "0.0.0.0:7070", "--insecure")
    assert found.returncode == 1
    assert found.stderr.strip() == 'error: ray is not installed: pip install "splitpoint[ray]"'
