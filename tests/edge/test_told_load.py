"""What a worker says of its load, and what a device makes of it: a full one never looks idle."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from scripted_worker import ScriptedCall, frame, manners
from splitpoint.edge.dispatch.auto_plan import plan_now
from splitpoint.edge.link import workers as workers_module
from splitpoint.edge.link.frame_stream import FrameStream
from splitpoint.edge.link.workers import REFUSED_S, WorkerLink
from splitpoint.edge.store.prepare import prepare
from splitpoint.partition.bundle.bundle import MANIFEST, Bundle
from splitpoint.partition.plan.link import parse_link
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import build_reply
from splitpoint.proto.session.told_load import MOST_WAITS, told_load
from splitpoint.proto.status import OverloadedError

BUSY = pb.Load(queued=9, queue_ms=80.0, slowdown=1.5, wait_ms=[80.0, 40.0])
NAN = float("nan")


@pytest.mark.parametrize(
    "load",
    [
        pb.Load(),
        pb.Load(queued=3, utilisation=0.5, slowdown=1.0),
        pb.Load(queue_ms=NAN, wait_ms=[1.0]),
        pb.Load(slowdown=NAN, wait_ms=[1.0]),
        pb.Load(wait_ms=[1.0, NAN]),
        pb.Load(wait_ms=[math.inf]),
        pb.Load(wait_ms=[-5.0]),
        pb.Load(queue_ms=-1e9, wait_ms=[0.0]),
    ],
    ids=str,
)
def test_says_nothing(load: pb.Load) -> None:
    assert told_load(load) is None


def test_says_something() -> None:
    assert told_load(BUSY) is BUSY
    idle = pb.Load(wait_ms=[0.0])
    assert told_load(idle) is idle
    assert told_load(pb.Load(wait_ms=[0.0] * 10 * MOST_WAITS)) is not None


async def stream_of(load: pb.Load, status: pb.Status) -> FrameStream:
    """One whose echoes tell the busy load, and whose one answer has that status and load."""

    def answer(message: pb.ClientMessage, index: int) -> list[bytes]:
        if message.WhichOneof("kind") == "probe":
            echo = pb.ProbeReply(id=message.probe.id, load=BUSY)
            return [pb.ServerMessage(probe=echo).SerializeToString()]
        if message.WhichOneof("kind") == "frame":
            reply = pb.Reply(id=message.frame.id, message_index=index, status=status, load=load)
            return [build_reply(reply)]
        return manners(message)

    return await FrameStream.opened("scripted", ScriptedCall(answer), pb.Hello())


async def test_a_refusal_without_waits_does_not_make_a_queue_empty() -> None:
    for load in (pb.Load(), pb.Load(queued=9, slowdown=1.0)):
        stream = await stream_of(load, pb.OVERLOADED)
        assert stream.session.load == BUSY
        with pytest.raises(OverloadedError):
            await stream.ask(frame, 5000)
        assert stream.session.load == BUSY
        await stream.close()


async def test_an_answer_with_waits_is_believed() -> None:
    idle = pb.Load(wait_ms=[0.0, 0.0], slowdown=1.0)
    stream = await stream_of(idle, pb.OK)
    await stream.ask(frame, 5000)
    assert stream.session.load == idle
    await stream.close()


async def test_a_worker_that_refuses_is_not_the_idlest(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now_s=100.0)
    monkeypatch.setattr(workers_module, "time", SimpleNamespace(perf_counter=lambda: clock.now_s))
    idle = pb.Load(wait_ms=[0.0], slowdown=1.0)
    stream = await stream_of(idle, pb.OVERLOADED)
    link = WorkerLink(cast(Any, SimpleNamespace(stream=stream, server="a:1")))
    assert link.wait_ms == pytest.approx(80.0 + stream.session.round_trip_ms)
    with pytest.raises(OverloadedError):  # for its rate, say: others do not wait there
        await stream.ask(frame, 5000)
    assert stream.session.load == idle
    clock.now_s = stream.session.refused_s + 0.1
    assert link.wait_ms == math.inf
    clock.now_s = stream.session.refused_s + REFUSED_S
    assert link.wait_ms == pytest.approx(stream.session.round_trip_ms)
    await stream.close()


class Channel:
    """A worker that describes itself."""

    def __init__(self, server: str, *models: pb.ModelInfo, load: pb.Load | None = None) -> None:
        self.server, self._reply = server, pb.DescribeReply(models=models, load=load)

    async def describe(self) -> pb.DescribeReply:
        await asyncio.sleep(0)
        return self._reply


async def test_the_first_plan_goes_to_the_worker_where_its_model_waits_least(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    digest = small_bundle.digest

    def info(name: str, queue_ms: float) -> pb.ModelInfo:
        load = pb.Load(queue_ms=queue_ms, wait_ms=[queue_ms], slowdown=1.0)
        return pb.ModelInfo(name=name, digest=digest if name == "small" else "", load=load)

    full = Channel("full:1", info("other", 0.0), info("small", 90_000.0), load=pb.Load())
    free = Channel("free:1", info("other", 90_000.0), info("small", 30_000.0), load=BUSY)
    channels: Any = [full, free]
    found = await prepare(
        channels, bundle=small_bundle.folder, model="", cache=tmp_path, known_as=()
    )
    assert found.serving is not None
    assert (found.serving.server, found.serving.load.queue_ms) == ("free:1", 30_000.0)


async def test_a_worker_without_the_model_is_not_the_idlest(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    """It has no queue for it, and is not asked for it."""

    class Holder(Channel):
        async def fetch(self, digest: str, sha256: str, offset: int) -> AsyncIterator[bytes]:
            names = {file.sha256: name for name, file in small_bundle.manifest.files.items()}
            path = small_bundle.folder / names.get(sha256, MANIFEST)
            yield path.read_bytes()[offset:]

    load = pb.Load(queue_ms=90_000.0, wait_ms=[90_000.0], slowdown=1.0)
    nbytes = (small_bundle.folder / MANIFEST).stat().st_size
    info = pb.ModelInfo(name="small", digest=small_bundle.digest, manifest_bytes=nbytes, load=load)
    channels: Any = [Channel("other:1", pb.ModelInfo(name="other")), Holder("busy:1", info)]
    found = await prepare(channels, bundle=None, model="small", cache=tmp_path, known_as=())
    assert found.use is not None
    found.use.close()
    assert found.serving is not None
    assert found.serving.server == "busy:1"


async def test_an_older_worker_has_no_load_of_its_model(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    info = pb.ModelInfo(name="small", digest=small_bundle.digest)
    for load, expected in ((BUSY, BUSY), (pb.Load(queued=2), pb.Load())):
        channels: Any = [Channel("a:1", info, load=load)]
        found = await prepare(
            channels, bundle=small_bundle.folder, model="", cache=tmp_path, known_as=()
        )
        assert found.serving is not None
        assert found.serving.load == expected


def test_the_first_plan_waits_in_the_announced_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(
        "splitpoint.edge.dispatch.auto_plan.make_plan", lambda *_, **how: told.update(how)
    )
    auto: Any = SimpleNamespace(objective=None, constraints=None)
    bundle: Any = SimpleNamespace(manifest=None)
    # Without anything in its plan a worker may still be busy with the step that runs.
    load = pb.Load(queued=0, queue_ms=80.0, wait_ms=[80.0])
    plan_now(bundle, auto, cast(Any, None), load, parse_link("10mbps,10ms"))
    assert told["queue_ms"] == 80.0
