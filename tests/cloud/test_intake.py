"""What a stream's messages cost the others: their order, their turns, and what is not done."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from patience import until
from raw_client import RawClient
from splitpoint.cloud.access.quotas import StreamUse
from splitpoint.cloud.access.security import Security
from splitpoint.cloud.frames import answers as answers_module
from splitpoint.cloud.frames import frame_work as frame_work_module
from splitpoint.cloud.frames import intake as intake_module
from splitpoint.cloud.frames.decoders import Decoders
from splitpoint.cloud.schedule.batch_times import BatchTimes
from splitpoint.cloud.schedule.job import Job
from splitpoint.cloud.worker import Worker
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import CheckedFrame, check_frame, encode_tensors
from splitpoint.proto.limits import MAX_CREDITS

PROBE = pb.ClientMessage(probe=pb.Probe(id=7)).SerializeToString()


def cancel(frame_id: int) -> bytes:
    return pb.ClientMessage(cancel=pb.Cancel(id=frame_id)).SerializeToString()


def token(name: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {name}")]


@pytest.fixture
def worker_options(tmp_path: Path) -> dict[str, Any]:
    """It knows the clients `hog`, `neighbour`, and `slow`, who may hardly ask."""
    lines = []
    for name, line in (("hog", ""), ("neighbour", ""), ("slow", "max_requests_per_s = 0.001")):
        digest = hashlib.sha256(name.encode()).hexdigest()
        lines.append(f'[{name}]\ntoken_sha256 = "{digest}"\n{line}\n')
    tokens = tmp_path / "tokens.toml"
    tokens.write_text("".join(lines))
    return {"security": Security(tokens=tokens)}


@pytest.fixture
def worker(worker: Worker) -> Worker:
    """It decodes two frames at a time, however many cores there are.

    One stream must be able to keep all decoders busy.
    """
    worker.backend.service.services.decoders.threads = 2
    return worker


class Decoding:
    """Stands in for decoding: notes each frame's id, and waits until it is let go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ids: list[int] = []
        self.gate = threading.Event()
        decode, gate, ids = CheckedFrame.decode, self.gate, self.ids

        def note(frame: CheckedFrame) -> Any:
            ids.append(frame.id)
            assert gate.wait(60)
            return decode(frame)

        monkeypatch.setattr(CheckedFrame, "decode", note)


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Decoding:
    return Decoding(monkeypatch)


def waiting(worker: Worker) -> int:
    decoders: Decoders = worker.backend.service.services.decoders
    return decoders.waiting


async def test_a_neighbour_of_many_streams_is_decoded_next(
    worker: Worker, decoding: Decoding
) -> None:
    async with AsyncExitStack() as stack:
        hogs = [
            await stack.enter_async_context(RawClient(worker, metadata=token("hog")))
            for _ in range(12)
        ]
        other = await stack.enter_async_context(RawClient(worker, metadata=token("neighbour")))
        for client in (*hogs, other):
            await client.hello()
        for client in hogs:
            for frame_id in range(1, MAX_CREDITS + 1):
                await client.call.write(client.frame(frame_id, codec="png"))
        at_hand = worker.backend.service.services.decoders.threads + 1
        await until(lambda: waiting(worker) == 12 * MAX_CREDITS - at_hand)
        await other.call.write(other.frame(99, codec="png"))
        await until(lambda: waiting(worker) == 12 * MAX_CREDITS - at_hand + 1)
        decoding.gate.set()
        assert (await other.reply()).status == pb.OK
        for client in hogs:
            for _ in range(MAX_CREDITS):
                assert (await client.reply()).status == pb.OK
    assert decoding.ids.index(99) <= at_hand


async def test_what_waits_for_a_decoder_counts_in_its_clients_share(
    worker: Worker, decoding: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, float]] = []
    check = worker.backend.engine.check

    def note(model: Any, job: Job) -> None:
        seen.append((job.client, job.decoding_s))
        check(model, job)

    monkeypatch.setattr(worker.backend.engine, "check", note)
    (model,) = worker.models.values()
    frame_s = model.batch_times.suffix_s(0, 1)
    async with (
        RawClient(worker, metadata=token("hog")) as one,
        RawClient(worker, metadata=token("hog")) as two,
        RawClient(worker, metadata=token("neighbour")) as other,
    ):
        for number, client in enumerate((one, two, other, one)):
            if number < 3:
                await client.hello()
            await client.call.write(client.frame(number + 1, codec="png"))
            await until(lambda number=number: len(seen) == number + 1)
        decoding.gate.set()
        for client in (one, one, two, other):
            assert (await client.reply()).status == pb.OK
    assert [client for client, _ in seen] == ["hog", "hog", "neighbour", "hog"]
    shares = [decoding_s for _, decoding_s in seen]
    assert shares == pytest.approx([0.0, frame_s, 0.0, 2 * frame_s])


@pytest.mark.parametrize(
    ("codec", "takes_ms", "in_place"),
    [("q8", 0.05, True), ("q8", 0.9, False), ("fp16", 0.05, True), ("png", 0.05, False)],
)
async def test_what_takes_no_longer_than_the_way_to_a_thread_is_decoded_in_place(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, codec: str, takes_ms: float, in_place: bool
) -> None:
    """A picture never: what it takes follows from its payload."""
    threads: list[bool] = []
    boundary = 0 if codec == "png" else 1

    def note(frame: CheckedFrame) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return decode(frame)

    decode = CheckedFrame.decode
    monkeypatch.setattr(CheckedFrame, "decode", note)
    async with RawClient(worker, metadata=token("neighbour")) as client:
        times = client.model.times
        client.model.times = replace(times, decode_ms={(boundary, codec): takes_ms})
        await client.hello()
        assert (await client.ask(client.frame(1, boundary, codec))).status == pb.OK
    assert threads == [in_place]


async def test_what_is_late_or_cancelled_is_not_decoded(worker: Worker, decoding: Decoding) -> None:
    async with (
        RawClient(worker, metadata=token("hog")) as hog,
        RawClient(worker, metadata=token("hog")) as client,
    ):
        await hog.hello()
        await client.hello()
        at_hand = worker.backend.service.services.decoders.threads + 1
        assert at_hand <= MAX_CREDITS
        for frame_id in range(1, at_hand + 1):
            await hog.call.write(hog.frame(frame_id, codec="png"))
        await until(lambda: worker.backend.service.services.decoders.running == at_hand)
        await client.call.write(client.frame(50, codec="png", budget_ms=100))
        await client.call.write(client.frame(51, codec="png"))
        await client.call.write(client.frame(52, codec="png"))
        await client.call.write(cancel(51))
        await client.call.write(PROBE)  # its echo says that the cancel has been read
        assert (await client.message()).probe.id == 7
        await asyncio.sleep(0.15)  # the budget of the first ends meanwhile
        decoding.gate.set()
        statuses = {r.id: r.status for r in [await client.reply() for _ in range(3)]}
        for _ in range(at_hand):
            assert (await hog.reply()).status == pb.OK
    assert statuses == {50: pb.EXPIRED, 51: pb.CANCELLED, 52: pb.OK}
    assert not {50, 51} & set(decoding.ids)


async def test_what_is_in_time_as_computing_goes_now_is_decoded(worker: Worker) -> None:
    """The times were measured while others had the cores, and it has been seen since."""
    (model,) = worker.models.values()
    (engine,) = worker.backend.engine.engines
    segments = len(model.batch_times)
    model.batch_times = BatchTimes([{1: 5000.0 / segments}] * segments, 1)
    async with RawClient(worker, metadata=token("hog")) as client:
        await client.hello()
        for number, codec in enumerate(("raw", "png"), 1):
            engine.schedule.rates.slowdown = 0.2
            reply = await client.ask(client.frame(number, codec=codec, budget_ms=4500))
            assert reply.status == pb.OK, (codec, reply.reason)


async def test_a_large_frame_is_checked_in_a_thread_and_nothing_overtakes_it(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, threads = threading.Event(), []

    def checked(*given: Any) -> CheckedFrame:
        threads.append(threading.current_thread())
        if threads[-1] is not threading.main_thread():
            assert gate.wait(60)
        return check_frame(*given)

    monkeypatch.setattr(intake_module, "check_frame", checked)
    async with (
        RawClient(worker, metadata=token("hog")) as client,
        RawClient(worker, metadata=token("neighbour")) as other,
    ):
        await client.hello()
        await other.hello()
        assert (await client.ask(client.frame(1))).status == pb.OK
        assert threads == [threading.main_thread()]
        monkeypatch.setattr(intake_module, "LARGE_BYTES", len(client.frame(2)) - 1)
        await client.call.write(client.frame(2))
        await client.call.write(PROBE)
        await until(lambda: len(threads) == 2)
        assert threads[1] is not threading.main_thread()
        await other.call.write(PROBE)  # the loop is free
        assert (await other.message()).probe.id == 7
        gate.set()
        kinds = [(await client.message()).WhichOneof("kind") for _ in range(2)]
        assert sorted(kinds) == ["probe", "reply"]


@pytest.mark.parametrize("fails", [False, True], ids=["good", "failing"])
async def test_a_large_answer_is_encoded_in_a_thread(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    gate, threads = threading.Event(), []

    def encode(*given: Any) -> list[pb.Tensor]:
        threads.append(threading.current_thread())
        if threads[-1] is not threading.main_thread():
            assert gate.wait(60)
            if fails:
                raise IndexError("broken")
        return encode_tensors(*given)

    monkeypatch.setattr(answers_module, "encode_tensors", encode)
    async with (
        RawClient(worker, metadata=token("hog")) as client,
        RawClient(worker, metadata=token("neighbour")) as other,
    ):
        await client.hello()
        await other.hello()
        assert (await client.ask(client.frame(1))).status == pb.OK
        assert threads == [threading.main_thread()]
        monkeypatch.setattr(frame_work_module, "LARGE_BYTES", 0)
        await client.call.write(client.frame(2))
        await until(lambda: len(threads) == 2)
        assert threads[1] is not threading.main_thread()
        await other.call.write(PROBE)  # the loop is free
        assert (await other.message()).probe.id == 7
        gate.set()
        reply = await client.reply()
        assert (reply.id, reply.status) == (2, pb.INTERNAL if fails else pb.OK)
        assert bool(reply.outputs) is not fails
        monkeypatch.undo()
        assert (await client.ask(client.frame(2))).status == pb.OK  # nothing is left of it


async def test_which_messages_count_towards_a_pause(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a rate limit and without: all that bring no frame, and nothing else."""
    counted = 0
    in_vain = StreamUse.in_vain

    def count(use: StreamUse) -> None:
        nonlocal counted
        counted += 1
        in_vain(use)

    monkeypatch.setattr(StreamUse, "in_vain", count)
    async with (
        RawClient(worker, metadata=token("neighbour")) as client,
        RawClient(worker, metadata=token("slow")) as slow,
    ):
        for one in (client, slow):
            await one.hello()
            assert (await one.ask(one.frame(1))).status == pb.OK
            await one.call.write(PROBE)
            await one.message()
        assert counted == 0
        assert (await slow.ask(slow.frame(2))).status == pb.OVERLOADED  # for its rate
        assert counted == 1
        for message, status in (
            (b"nonsense", pb.MALFORMED),
            (client.frame(0), pb.MALFORMED),
            (client.frame(3, named="nope"), pb.UNKNOWN_CODEC),
            (client.frame(3, codec="raw", named="png"), pb.UNDECODABLE),
            (pb.ClientMessage(hello=pb.Hello()).SerializeToString(), pb.MALFORMED),
        ):
            before = counted
            assert (await client.ask(message)).status == status
            assert counted == before + 1
        before = counted
        await client.call.write(cancel(77))
        await client.call.write(PROBE)
        await client.message()
        assert counted == before + 1
        assert (await client.ask(client.frame(4, codec="png"))).status == pb.OK
        for _ in range(60):  # more at once than anybody needs
            await client.call.write(PROBE)
            await client.message()
        assert counted > before + 1


async def test_a_frame_beyond_the_credits_counts_too(
    worker: Worker, decoding: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RawClient(worker, metadata=token("neighbour")) as client:
        await client.hello()
        for frame_id in range(1, MAX_CREDITS + 1):
            await client.call.write(client.frame(frame_id, codec="png"))
        counted = []
        monkeypatch.setattr(StreamUse, "in_vain", lambda use: counted.append(use))
        assert (await client.ask(client.frame(9, codec="png"))).status == pb.OVERLOADED
        assert (await client.ask(client.frame(1, codec="png"))).status == pb.MALFORMED
        assert len(counted) == 2
        await client.call.write(cancel(4))
        await client.call.write(cancel(4))  # says nothing new
        await until(lambda: len(counted) == 3)
        decoding.gate.set()
