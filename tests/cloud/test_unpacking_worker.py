"""A worker whose device unpacks, here a CPU that does as a GPU would: answers, errors, bytes."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calibrated import calibrated_bundle, pixels_of
from conftest import LEARNED_AT
from local_worker import local_worker
from raw_client import RawClient
from splitpoint.cloud.compute.gpu_chain import GpuChain
from splitpoint.cloud.compute.runner import Runner
from splitpoint.cloud.compute.unpack import UnpackingChain
from splitpoint.cloud.compute.values import Values
from splitpoint.cloud.engine.request import Request
from splitpoint.cloud.worker import Worker
from splitpoint.codec import Array
from splitpoint.codec.fkt.video import DIFFERENCE, RINGS
from splitpoint.codec.learned import PackedLearned
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.run.chain import State
from splitpoint.partition.run.codecs import codecs_of
from splitpoint.partition.run.torch_chain import TorchChain
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import build_frame, check_frame, decode_reply, encode_tensors
from standin_cuda import StandInCuda

CPU = torch.device("cpu")


class NotingChain(UnpackingChain):
    """Notes what it is given to place."""

    placed: list[Values] = []  # noqa: RUF012 - of all of them

    def place(self, values: Values) -> State:
        self.placed.append(values)
        return super().place(values)


@pytest.fixture(scope="module")
def bundle(
    vivid_spec: ModelSpec, album_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    folder = tmp_path_factory.mktemp("unpacking") / "vivid.split"
    return calibrated_bundle(vivid_spec, album_folder, folder)


@pytest.fixture
def served_bundle(bundle: Bundle) -> Bundle:
    return bundle


@pytest.fixture
def worker_options(monkeypatch: pytest.MonkeyPatch, both_ways: None) -> dict[str, Any]:
    monkeypatch.setattr("splitpoint.cloud.compute.choose_chain.TorchChain", NotingChain)
    return {"runtime": "torch"}


@pytest.fixture
def worker(worker: Worker) -> Worker:
    NotingChain.placed.clear()
    return worker


def states(bundle: Bundle, pixels: Array) -> list[dict[str, Array]]:
    """The tensors at every boundary, as an edge has them."""
    chain = TorchChain(bundle, CPU)
    specs = [boundary.tensors for boundary in bundle.manifest.boundaries]
    state = chain.place({specs[0][0].name: pixels})
    found = []
    for index, tensors in enumerate(specs):
        found.append({spec.name: chain.fetch(state[spec.name]) for spec in tensors})
        if index < len(chain):
            chain.load(index)
            state |= chain.step(index, state)
    return found


@pytest.fixture(params=[0, 2], ids=["one-process", "ingest-2"])
async def learned_worker(
    learned_bundle: Bundle, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Worker]:
    monkeypatch.setattr("splitpoint.cloud.compute.choose_chain.TorchChain", NotingChain)
    async with local_worker(learned_bundle, runtime="torch", ingest=request.param) as running:
        NotingChain.placed.clear()
        yield running


@pytest.mark.parametrize("count", [1, 3])
async def test_what_was_learned_is_decoded_on_the_device(
    learned_worker: Worker,
    learned_bundle: Bundle,
    vivid_spec: ModelSpec,
    album_folder: Path,
    count: int,
) -> None:
    pixels = pixels_of(vivid_spec, album_folder)[:count]
    at = states(learned_bundle, pixels)
    host = Runner(
        TorchChain(learned_bundle, CPU), [b.tensors for b in learned_bundle.manifest.boundaries]
    )
    for segment in range(len(host.chain)):
        host.chain.load(segment)
    names = [level.codec for level in learned_bundle.manifest.boundaries[LEARNED_AT].ladder]
    names = [name for name in names if name.startswith("learned")]
    assert len(names) > 2
    async with RawClient(learned_worker) as client:
        await client.hello()
        model = client.model
        for number, name in enumerate(names, start=1):
            data = message(client, number, LEARNED_AT, name, at[LEARNED_AT])
            reply = await client.ask(data)
            assert reply.status == pb.OK, reply.reason
            (value,) = NotingChain.placed.pop().values()
            assert isinstance(value, PackedLearned)
            (got,) = decode_reply(reply, model.boundaries[-1], count).values()
            frame = check_frame(
                pb.ClientMessage.FromString(data).frame, model.boundaries, 8, model.codecs
            )
            (expected,) = answers(host, LEARNED_AT, [frame.decode()], [count])
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3)


async def test_learned_levels_meet_others_in_a_batch(
    learned_worker: Worker, learned_bundle: Bundle, vivid_spec: ModelSpec, album_folder: Path
) -> None:
    model = next(iter(learned_worker.models.values()))
    runner, chance = model.runner, random.Random(0)
    requests = []
    for picture in pixels_of(vivid_spec, album_folder):
        name = chance.choice(("raw", "fkt@8", "learned@1", "learned@3", "learned@3"))
        specs, codec = model.boundaries[LEARNED_AT], model.codecs.named(name, LEARNED_AT)
        tensors = encode_tensors(states(learned_bundle, picture[None])[LEARNED_AT], specs, codec)
        data = build_frame(id=1, boundary=LEARNED_AT, codec=name, tensors=tensors, budget_ms=0)
        frame = pb.ClientMessage.FromString(data).frame
        requests.append(check_frame(frame, model.boundaries, 8, model.codecs).packed())
    alone = [answers(runner, LEARNED_AT, [request], [1])[0] for request in requests]
    NotingChain.placed.clear()
    together = answers(runner, LEARNED_AT, requests, [1] * len(requests))
    for got, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3)
    assert 1 < len(NotingChain.placed) < len(requests)


def message(client: RawClient, frame_id: int, boundary: int, name: str, given: Any) -> bytes:
    """A frame in any of the bundle's codecs; `given` are tensors by name, or messages."""
    specs = client.model.boundaries[boundary]
    codec = client.model.codecs.named(name, boundary)
    tensors = encode_tensors(given, specs, codec) if isinstance(given, dict) else given
    return build_frame(id=frame_id, boundary=boundary, codec=name, tensors=tensors, budget_ms=0)


def packed_in(placed: Sequence[Values]) -> list[bool]:
    return [
        any(not isinstance(value, np.ndarray) for value in values.values()) for values in placed
    ]


@pytest.mark.parametrize("count", [1, 3])
async def test_answers_are_those_of_the_unsplit_model(
    worker: Worker, bundle: Bundle, vivid_spec: ModelSpec, album_folder: Path, count: int
) -> None:
    pixels = pixels_of(vivid_spec, album_folder)[:count]
    with torch.inference_mode():
        whole = vivid_spec.module(torch.from_numpy(pixels)).numpy()
    at = states(bundle, pixels)
    host = Runner(TorchChain(bundle, CPU), [b.tensors for b in bundle.manifest.boundaries])
    for segment in range(len(host.chain)):
        host.chain.load(segment)
    assert not host.unpacks
    async with RawClient(worker) as client:
        await client.hello()
        model, number = client.model, 0
        for boundary in range(1, len(at) - 1):
            for name in ("raw", "q8", "q4", "fkt@1", "fkt@8", "fkt-video@8"):
                if name == "fkt-video@8" and count > 1:
                    continue
                number += 1
                data = message(client, number, boundary, name, at[boundary])
                reply = await client.ask(data)
                assert reply.status == pb.OK, (boundary, name, reply.reason)
                assert packed_in(NotingChain.placed) == [name != "raw"], name
                NotingChain.placed.clear()
                (got,) = decode_reply(reply, model.boundaries[-1], count).values()
                if name == "raw":
                    np.testing.assert_allclose(got, whole, rtol=0, atol=1e-5 * abs(whole).max())
                # What another codec loses is lost on the host just as well.
                frame = pb.ClientMessage.FromString(data).frame
                checked = check_frame(frame, model.boundaries, 8, model.codecs)
                (expected,) = answers(host, boundary, [checked.decode()], [count])
                np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3)


async def test_frames_of_many_codecs_meet_in_a_batch(
    worker: Worker, bundle: Bundle, vivid_spec: ModelSpec, album_folder: Path
) -> None:
    model = next(iter(worker.models.values()))
    runner, chance = model.runner, random.Random(0)
    assert runner.unpacks
    for boundary in (1, 2):
        requests, samples = [], []
        for picture in pixels_of(vivid_spec, album_folder):
            name = chance.choice(("raw", "q4", "fkt@8", "fkt@8", "fkt@8", "fkt@1"))
            codec, specs = model.codecs.named(name, boundary), model.boundaries[boundary]
            pixels = np.stack([picture] * chance.choice((1, 2)))
            tensors = encode_tensors(states(bundle, pixels)[boundary], specs, codec)
            data = build_frame(id=1, boundary=boundary, codec=name, tensors=tensors, budget_ms=0)
            frame = pb.ClientMessage.FromString(data).frame
            requests.append(check_frame(frame, model.boundaries, 8, model.codecs).packed())
            samples.append(len(pixels))
        alone = [
            answers(runner, boundary, [request], [count])[0]
            for request, count in zip(requests, samples, strict=True)
        ]
        NotingChain.placed.clear()
        for got, expected in zip(answers(runner, boundary, requests, samples), alone, strict=True):
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3)
        assert 1 < len(NotingChain.placed) < len(requests)


def answers(
    runner: Runner, boundary: int, requests: Sequence[Values], samples: Sequence[int]
) -> list[Array]:
    """The model's one output for each request, from `boundary` on."""
    state = runner.enter(boundary, requests)
    for segment in range(boundary, len(runner.chain)):
        state = runner.step(segment, state, sum(samples))
    return [next(iter(found.values())) for found in runner.answers(state, samples)]


async def test_errors_and_streams_are_as_on_the_host(
    worker: Worker, bundle: Bundle, vivid_spec: ModelSpec, album_folder: Path
) -> None:
    at = states(bundle, pixels_of(vivid_spec, album_folder)[:1])[1]
    async with RawClient(worker) as client:
        await client.hello()
        specs, codecs = client.model.boundaries[1], client.model.codecs
        for number, name in enumerate(("q8", "q4", "fkt@2"), start=1):
            damaged = encode_tensors(at, specs, codecs.named(name, 1))
            damaged[0].payload = damaged[0].payload[:-1]
            reply = await client.ask(message(client, number, 1, name, damaged))
            assert reply.status == pb.UNDECODABLE, name
        (key,) = encode_tensors(at, specs, codecs.named("fkt-video@4", 1))
        difference = pb.Tensor()
        difference.CopyFrom(key)  # a share of 0 is kept in each ring: the same picture again
        body = key.payload[struct.calcsize("<BI") :]
        difference.payload = struct.pack("<BI", DIFFERENCE, 2) + bytes(RINGS) + body
        for number, tensor, status in [
            (11, difference, pb.KEY_FRAME), (12, key, pb.OK), (13, difference, pb.OK),
            (14, difference, pb.KEY_FRAME), (15, key, pb.OK),
        ]:  # fmt: skip
            reply = await client.ask(message(client, number, 1, "fkt-video@4", [tensor]))
            assert reply.status == status, number
        good = await client.ask(message(client, 20, 1, "q8", at))
        assert good.status == pb.OK
        await _until(lambda: worker.backend.engine.queued_bytes == 0)


async def test_limits_count_whole_tensors(
    worker: Worker,
    bundle: Bundle,
    vivid_spec: ModelSpec,
    album_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[Request] = []
    submit = worker.backend.engine.submit

    def noting(request: Request) -> None:
        taken.append(request)
        submit(request)

    monkeypatch.setattr(worker.backend.engine, "submit", noting)
    at = states(bundle, pixels_of(vivid_spec, album_folder)[:2])[1]
    async with RawClient(worker) as client:
        await client.hello()
        for number, name in enumerate(("raw", "q4", "fkt@1"), start=1):
            assert (await client.ask(message(client, number, 1, name, at))).status == pb.OK
    whole = sum(array.nbytes for array in at.values())
    assert [request.nbytes for request in taken] == [whole] * 3


async def _until(done: Any) -> None:
    for _ in range(500):
        if done():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen within 5 s")


# --- a GPU's copies, in order, without a GPU ---


def test_gpu_computes_on_what_has_been_copied(bundle: Bundle) -> None:
    cuda = StandInCuda()
    chain = GpuChain(bundle, cuda.gpu())
    assert Runner(chain, [boundary.tensors for boundary in bundle.manifest.boundaries]).unpacks
    (spec, *_), at = (
        bundle.manifest.boundaries[1].tensors,
        states(bundle, np.zeros((1, 24, 24, 3), np.uint8)),
    )
    codec = codecs_of(bundle.manifest, bundle.folder).named("q8", 1)
    payload = codec.encode(at[1][spec.name], spec)
    state = chain.place({spec.name: codec.packed(payload, spec, 1)})
    assert [what for _, what in cuda.calls] == ["pinned", "copy"] * 2 + ["used_on"] * 2
    assert not cuda.races
    decoded = codec.decode(payload, spec, 1)
    np.testing.assert_allclose(chain.fetch(state[spec.name]), decoded, rtol=1e-6, atol=1e-6)
