"""Faults that nobody thought of, wherever a message passes: one message pays for each."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from local_worker import local_worker
from raw_client import RawClient
from splitpoint.cloud.access.quotas import ClientUse
from splitpoint.cloud.frames import answers as answers_module
from splitpoint.cloud.frames import intake as intake_module
from splitpoint.cloud.frames.services import StreamServices
from splitpoint.cloud.unexpected import Stage
from splitpoint.cloud.worker import Worker
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import CheckedFrame
from splitpoint.proto.session import worker_session as session_module

PROBE = pb.ClientMessage(probe=pb.Probe(id=7)).SerializeToString()
CANCEL = pb.ClientMessage(cancel=pb.Cancel(id=99)).SerializeToString()


class BrokenTraces:
    """Whoever looks at frames must not break them."""

    def answered(self, *_: object) -> None:
        raise RuntimeError("secret /path")

    def close(self) -> None:
        pass


def services_of(worker: Worker) -> StreamServices:
    return worker.backend.service.services


@pytest.fixture
def breaks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes an attribute raise when it is called next, and then work as ever."""

    def once(owner: Any, name: str, error: BaseException, *, after: bool = False) -> None:
        works = getattr(owner, name)
        left = [error]

        def call(*args: Any, **kwargs: Any) -> Any:
            result = works(*args, **kwargs) if after or not left else None
            if left:
                raise left.pop()
            return result

        monkeypatch.setattr(owner, name, call)

    return once


# What raises, in which message, and what it is counted as.
PLACES: dict[str, tuple[Callable[[Worker], Any], str, Stage]] = {
    "parsing": (lambda worker: session_module, "parse_client", Stage.RECEIVE),
    "checking": (lambda worker: intake_module, "check_frame", Stage.RECEIVE),
    "the limits": (lambda worker: ClientUse, "request", Stage.RECEIVE),
    "the bytes": (lambda worker: ClientUse, "hold", Stage.RECEIVE),
    "the quarantine": (
        lambda worker: worker.backend.service.services.quarantine,
        "holds",
        Stage.RECEIVE,
    ),
    "a check for room": (lambda worker: worker.backend.engine, "check", Stage.RECEIVE),
    "a place in the queue": (lambda worker: worker.backend.engine, "submit", Stage.DECODE),
    "decoding": (lambda worker: CheckedFrame, "decode", Stage.DECODE),
    "outputs": (lambda worker: answers_module, "encode_tensors", Stage.ANSWER),
    "a reply": (lambda worker: session_module, "build_reply", Stage.ANSWER),
}


@pytest.mark.parametrize("error", [IndexError("secret /path"), MemoryError()], ids=type)
@pytest.mark.parametrize("place", PLACES)
async def test_one_frame_pays(
    worker: Worker,
    breaks: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    place: str,
    error: Exception,
) -> None:
    owner, name, stage = PLACES[place]
    async with RawClient(worker) as client, RawClient(worker) as other:
        await client.hello()
        await other.hello()
        breaks(owner(worker), name, error)
        with caplog.at_level(logging.ERROR, "splitpoint.cloud"):
            reply = await client.ask(client.frame(1, 1, "q8"))
        assert (reply.message_index, reply.status) == (2, pb.INTERNAL)
        assert "secret" not in reply.reason
        assert type(error).__name__ in reply.reason
        assert worker.figures.unexpected.counts[stage] == 1
        assert sum(record.exc_info is not None for record in caplog.records) == 1
        for codec in ("q8", "raw"):  # the same id: nothing of the lost frame is left
            assert (await client.ask(client.frame(1, 1, codec))).status == pb.OK
        assert (await other.ask(other.frame(1, 1, "q8"))).status == pb.OK
        assert services_of(worker).decoders.nbytes == 0


async def test_a_decoder_that_wants_to_exit_ends_neither_its_thread_nor_the_worker(
    worker: Worker, breaks: Callable[..., None]
) -> None:
    async with RawClient(worker) as client:
        await client.hello()
        for number in range(5):  # more often than there are threads
            breaks(CheckedFrame, "decode", SystemExit(1))
            reply = await client.ask(client.frame(2 * number + 1, 1, "q8"))
            assert (reply.status, reply.reason) == (pb.INTERNAL, "decode failed (DecoderDied)")
            assert (await client.ask(client.frame(2 * number + 2, 1, "q8"))).status == pb.OK


async def test_a_raw_frame_that_cannot_be_queued_is_answered(
    worker: Worker, breaks: Callable[..., None]
) -> None:
    async with RawClient(worker) as client:
        await client.hello()
        breaks(worker.backend.engine, "submit", IndexError())
        assert (await client.ask(client.frame(1))).status == pb.INTERNAL
        assert (await client.ask(client.frame(1))).status == pb.OK


async def test_a_frame_that_was_queued_before_its_submission_failed_is_answered_once(
    worker: Worker, breaks: Callable[..., None]
) -> None:
    async with RawClient(worker) as client:
        await client.hello()
        breaks(worker.backend.engine, "submit", IndexError(), after=True)
        replies = [await client.ask(client.frame(1)), await client.ask(client.frame(2))]
        replies.append(await client.ask(client.frame(3)))
        assert [(r.id, r.status) for r in replies] == [
            (1, pb.INTERNAL), (2, pb.OK), (3, pb.OK),
        ]  # fmt: skip


async def test_a_load_that_cannot_be_told_is_left_out(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a welcome, an echo, an answer and a refusal."""

    def broken(*_: object) -> pb.Load:
        raise KeyError

    monkeypatch.setattr(worker.backend.engine, "load", broken)
    async with RawClient(worker) as client:
        assert not (await client.hello()).HasField("load")
        await client.call.write(PROBE)
        echo = (await client.message()).probe
        assert (echo.id, echo.HasField("load")) == (7, False)
        for frame, status in ((client.frame(1), pb.OK), (client.frame(0), pb.MALFORMED)):
            reply = await client.ask(frame)
            assert (reply.status, reply.HasField("load")) == (status, False)
    assert worker.figures.unexpected.counts[Stage.LOAD] == 4


async def test_a_tracer_that_fails_costs_nothing(small_bundle: Bundle) -> None:
    traces: Any = BrokenTraces()
    async with (
        local_worker(small_bundle, traces=traces) as worker,
        RawClient(worker) as client,
    ):
        await client.hello()
        assert (await client.ask(client.frame(1))).status == pb.OK
        assert (await client.ask(client.frame(2, named="nope"))).status == pb.UNKNOWN_CODEC
        assert (await client.ask(client.frame(3))).status == pb.OK
        assert worker.figures.unexpected.counts[Stage.TRACE] == 3


async def test_cancels_and_probes_that_fail_end_nothing(
    worker: Worker, breaks: Callable[..., None]
) -> None:
    async with RawClient(worker) as client:
        await client.hello()
        breaks(session_module.WorkerSession, "cancel", RuntimeError())
        assert (await client.ask(CANCEL)).status == pb.INTERNAL
        breaks(answers_module.Answers, "echo", RuntimeError())
        assert (await client.ask(PROBE)).status == pb.INTERNAL
        assert (await client.ask(client.frame(1))).status == pb.OK
