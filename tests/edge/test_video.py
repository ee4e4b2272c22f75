"""Streams in `fkt-video`, from an agent to a worker and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from calibrated import album, calibrated_bundle, vivid
from splitpoint.codec.fkt.video import DIFFERENCE, KEY, VideoStream
from splitpoint.edge import EdgeAgent, FakeWorker
from splitpoint.edge.given import Given
from splitpoint.edge.result import Outcome
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.plan.plan import Plan
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import CheckedFrame


@pytest.fixture(scope="module")
def bundle(small: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("video")
    pictures = album(folder / "album")
    return calibrated_bundle(vivid(small, pictures), pictures, folder / "video.split")


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The kind of every payload that is written."""
    found: list[int] = []
    encode = VideoStream.encode

    def noted(self: VideoStream, array: np.ndarray, spec: object) -> bytes:
        payload = encode(self, array, spec)  # type: ignore[arg-type]
        found.append(payload[0])
        return payload

    monkeypatch.setattr(VideoStream, "encode", noted)
    return found


def agent_of(worker: FakeWorker, cache: Path) -> EdgeAgent:
    return EdgeAgent(
        worker.address, connect=worker.connect, split="1", codec="fkt-video@8", cache=cache
    )


def still(bundle: Bundle) -> np.ndarray:
    spec = bundle.manifest.boundaries[0].tensors[0]
    return np.random.default_rng(0).integers(0, 256, spec.shape).astype(np.uint8)


async def test_a_still_scene_costs_less_after_its_first_frame(
    bundle: Bundle, tmp_path: Path, kinds: list[int]
) -> None:
    pixels = still(bundle)
    async with agent_of(FakeWorker(bundle), tmp_path) as agent:
        frames = [Given(inputs={"pixels": pixels}) for _ in range(12)]
        results = [result async for result in agent.stream(frames)]
        await agent.switch(Plan(boundary=1, codec="raw"))
        exact = await agent.infer({"pixels": pixels})
    assert [result.outcome for result in results] == [Outcome.ANSWERED] * 12
    assert kinds == [KEY] + [DIFFERENCE] * 11
    assert max(result.bytes_up for result in results[1:]) < results[0].bytes_up
    for result in results:
        assert result.codec == "fkt-video@8"
        for name, value in result.outputs.items():
            assert np.abs(value - exact.outputs[name]).max() < np.abs(exact.outputs[name]).max()


async def test_a_worker_that_has_forgotten_gets_a_key_frame(
    bundle: Bundle, tmp_path: Path, kinds: list[int]
) -> None:
    """It asks for one between two frames, as after a loss or a restart."""

    async def forgets(frame: CheckedFrame) -> pb.Status:
        return pb.KEY_FRAME if len(worker.frames) == 3 else pb.OK

    pixels, worker = still(bundle), FakeWorker(bundle, script=forgets)
    async with agent_of(worker, tmp_path) as agent:
        for _ in range(4):
            assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
    assert kinds == [KEY, DIFFERENCE, DIFFERENCE, KEY, DIFFERENCE]


async def test_a_new_stream_begins_with_a_key_frame(
    bundle: Bundle, tmp_path: Path, kinds: list[int]
) -> None:
    pixels = still(bundle)
    async with agent_of(FakeWorker(bundle), tmp_path) as agent:
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
        stream = agent.session.workers.stream
        assert stream is not None
        await stream.close()
        for _ in range(3):
            assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
    # The frame that found the stream broken was coded before; the worker asked for it again.
    assert kinds[0] == KEY
    assert kinds[1:] in ([DIFFERENCE, KEY, DIFFERENCE, DIFFERENCE], [KEY, DIFFERENCE, DIFFERENCE])
