"""Several devices: a frame goes where it waits least, and nobody sees that there are several."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from local_worker import local_worker
from patience import until
from raw_client import RawClient
from slow_model import SlowModel, answered, status
from splitpoint.cloud import session as session_module
from splitpoint.cloud.engine import executor
from splitpoint.cloud.engine.engine import Engine
from splitpoint.cloud.engine.engines import Engines
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.proto import splitpoint_pb2 as pb

NEVER = 1 << 40


class Pair:
    """Two engines, and a model that is loaded for both."""

    def __init__(self, copies: Sequence[SlowModel]) -> None:
        self.copies = copies
        self.engines = Engines([Engine(max_batch=8, max_queued_bytes=NEVER) for _ in copies])

    async def __aenter__(self) -> Pair:
        self.model = await self.engines.load_model(lambda number: self.copies[number])
        self.engines.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.engines.stop()

    def runs(self) -> list[int]:
        return [len(copy.chain.runs) for copy in self.copies]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with Pair([SlowModel(2, ms=60), SlowModel(2, ms=60)]) as running:
        yield running


async def test_a_second_frame_goes_to_the_idle_device(pair: Pair) -> None:
    answers: list[object] = []
    for value in (1.0, 2.0):
        pair.engines.submit(pair.model.request(0, answers, value))
    await answered(answers, 2)
    assert pair.runs() == [2, 2]
    found = sorted(float(answer["t2"][0, 0]) for answer in answers)  # type: ignore[index]
    assert found == [float(pair.model.expected(0, np.float32(v))) for v in (1.0, 2.0)]


async def test_the_load_is_that_of_both(pair: Pair) -> None:
    answers: list[object] = []
    pair.engines.submit(pair.model.request(0, answers))
    await asyncio.sleep(0.01)
    one = pair.engines.load(pair.model)
    assert one.queued == 1
    assert list(one.wait_ms) == pytest.approx([0, 0], abs=1e-6)  # the other is idle
    pair.engines.submit(pair.model.request(0, answers))
    await asyncio.sleep(0.01)
    both = pair.engines.load(pair.model)
    assert both.queued == pair.engines.load().queued == 2
    assert both.wait_ms[0] > 30
    assert pair.engines.queued_bytes == 0  # these have no tensors' bytes
    await answered(answers, 2)


async def test_what_is_forgotten_is_gone(pair: Pair) -> None:
    pair.engines.forget(pair.model)
    with pytest.raises(KeyError):
        pair.engines.submit(pair.model.request(0, []))


async def test_a_worker_with_two_devices(
    small: ModelSpec, small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers are the unsplit model's, whichever device they come from."""
    two = [torch.device("cpu"), torch.device("cpu")]
    monkeypatch.setattr(session_module, "pick_devices", lambda name: two)
    async with (
        local_worker(small_bundle) as worker,
        RawClient(worker) as client,
    ):
        assert (await client.describe()).models[0].device == "2 x cpu"
        await client.hello()
        spec = small_bundle.manifest.boundaries[0].tensors[0]
        with torch.inference_mode():
            expected = small.module(torch.ones(spec.shape_at(1), dtype=torch.uint8)).numpy()
        for first in range(1, 200, 4):
            for number in range(first, first + 4):
                await client.call.write(client.frame(number))
            for _ in range(4):
                reply = await client.reply()
                assert reply.status == pb.OK, reply.reason
                found = np.frombuffer(reply.outputs[0].payload, np.float32)
                np.testing.assert_allclose(found, expected[0], rtol=1e-4, atol=1e-5)


async def test_devices_with_different_rooms_take_the_same_frames() -> None:
    copies = [SlowModel(2, ms=5, max_batch=room) for room in (2, 5)]
    engines = Engines([Engine(max_batch=4, max_queued_bytes=NEVER) for _ in copies])
    model: Any = await engines.load_model(lambda number: copies[number])  # type: ignore[arg-type, return-value]
    engines.start()
    answers: list[object] = []
    for value in range(8):
        engines.submit(model.request(0, answers, float(value), samples=7, client=str(value)))
    await until(lambda: len(answers) == 8)
    await engines.stop()
    assert all(isinstance(answer, dict) for answer in answers), answers
    rooms = [max(size for _, size in copy.chain.runs) for copy in copies]
    assert rooms == [2, 4]


async def test_a_device_that_cannot_compute_gets_no_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executor, "WATCH_S", 0.02)
    copies = [SlowModel(1, ms=5), SlowModel(1, ms=5)]
    own = [Engine(max_batch=4, max_queued_bytes=NEVER, hung_s=60) for _ in copies]
    engines = Engines(own)
    model: Any = await engines.load_model(lambda number: copies[number])  # type: ignore[arg-type, return-value]
    engines.start()
    answers: list[object] = []
    copies[0].chain.hangs.set()
    own[0].executor.hung_s = 0.2
    own[0].submit(copies[0].request(0, answers))
    await until(lambda: not own[0].can_compute(copies[0]))
    assert engines.can_compute
    assert list(engines.load(model).wait_ms) == pytest.approx([0.0], abs=1e-6)
    before = len(copies[0].chain.runs)
    for _ in range(4):
        engines.submit(model.request(0, answers))
    await until(lambda: len(answers) == 5)
    assert [status(answer) for answer in answers] == [pb.INTERNAL, *[pb.OK] * 4]
    assert len(copies[0].chain.runs) == before
    copies[0].chain.hangs.clear()
    await engines.stop()
