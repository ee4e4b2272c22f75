"""What a worker says of its load: that of the model that was asked for, whatever the answer."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from raw_client import RawClient
from splitpoint.cloud.worker import Worker
from splitpoint.proto import splitpoint_pb2 as pb

PROBE = pb.ClientMessage(probe=pb.Probe(id=7)).SerializeToString()

pytestmark = pytest.mark.usefixtures("slow_times")  # frames without a budget are refused


async def test_every_answer_tells_the_load_of_its_model(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model,) = worker.models.values()
    asked = []
    clients: set[str] = set()

    def load(of: object, client: str) -> pb.Load:
        asked.append(of)
        clients.add(client)
        return pb.Load(queued=4, queue_ms=60.0, slowdown=1.0, wait_ms=[60.0, 30.0, 10.0])

    monkeypatch.setattr(worker.backend.engine, "load", load)
    async with RawClient(worker) as client:
        loads = [(await client.hello()).load]
        await client.call.write(PROBE)
        loads.append((await client.message()).probe.load)
        for frame, status in (
            (client.frame(1, budget_ms=5), pb.OVERLOADED),
            (client.frame(2, 1, "q8", budget_ms=5), pb.OVERLOADED),
            (client.frame(0), pb.MALFORMED),
            (b"nonsense", pb.MALFORMED),
        ):
            reply = await client.ask(frame)
            assert reply.status == status
            loads.append(reply.load)
        described = await client.describe()
        loads += [described.load, *(info.load for info in described.models)]
    assert len(loads) == 8
    for told in loads:
        assert list(told.wait_ms) == [60.0, 30.0, 10.0]
        assert told.queue_ms == 60.0
    assert set(asked) == {model}
    assert len(clients) == 1, "its connection, in Describe as well"


async def test_describe_tells_a_load_for_each_model_and_the_longest_for_all(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (digest, model) = next(iter(worker.models.items()))
    other = replace(model)
    worker.models["0" * 64] = other
    waits = {model: 5.0, other: 70.0}
    monkeypatch.setattr(
        worker.backend.engine,
        "load",
        lambda of, _: pb.Load(queue_ms=waits[of], wait_ms=[waits[of]]),
    )
    async with RawClient(worker, model) as client:
        described = await client.describe()
    del worker.models["0" * 64]
    assert {info.digest: info.load.queue_ms for info in described.models} == {
        digest: 5.0, "0" * 64: 70.0,
    }  # fmt: skip
    assert described.load.queue_ms == 70.0
    assert math.isclose(described.load.wait_ms[0], 70.0)


async def test_describe_answers_where_a_load_cannot_be_told(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(of: object, client: str) -> pb.Load:
        raise KeyError

    monkeypatch.setattr(worker.backend.engine, "load", broken)
    async with RawClient(worker) as client:
        described = await client.describe()
    assert [info.HasField("load") for info in described.models] == [False]
    assert not described.HasField("load")
