"""A worker that decodes what was learned: what it holds, what it promises, what it refuses."""

from __future__ import annotations

import json
import shutil
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from calibrated import pixels_of
from conftest import LEARNED_AT
from local_worker import local_worker
from patience import PATIENCE_S
from raw_client import RawClient
from splitpoint.cloud.compute import unpack
from splitpoint.cloud.compute.served_model import ServedModel
from splitpoint.cloud.compute.unpack import UnpackingChain
from splitpoint.cloud.engine.request import Request
from splitpoint.cloud.frames import frame_work
from splitpoint.codec import Array, CodecError
from splitpoint.codec.learned import LearnedStream, PackedLearned
from splitpoint.partition.bundle.bundle import Bundle, Manifest, open_bundle
from splitpoint.partition.errors import BundleError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.run.codecs import codecs_of
from splitpoint.partition.run.latent_networks import OnnxNetworks
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.partition.run.onnx_segment import OnnxSegment
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import build_frame, decode_reply, encode_tensors

CPU = torch.device("cpu")


def crossing(bundle: Bundle, pixels: Array) -> dict[str, Array]:
    """What the device has at the boundary."""
    chain = OnnxChain(bundle, threads=1)
    state = {bundle.manifest.boundaries[0].tensors[0].name: pixels}
    for index in range(LEARNED_AT):
        chain.load(index)
        state = dict(state) | dict(chain.step(index, state))
    return {spec.name: state[spec.name] for spec in bundle.manifest.boundaries[LEARNED_AT].tensors}


def message(model: ServedModel, number: int, codec: str, values: dict[str, Array]) -> bytes:
    specs = model.boundaries[LEARNED_AT]
    tensors = encode_tensors(values, specs, model.codecs.named(codec, LEARNED_AT))
    return build_frame(id=number, boundary=LEARNED_AT, codec=codec, tensors=tensors, budget_ms=0)


@pytest.fixture
def video(values: dict[str, Array]) -> Callable[[ServedModel], Callable[..., bytes]]:
    """Frames of one stream, by their numbers."""

    def of(model: ServedModel) -> Callable[..., bytes]:
        codec: Any = model.codecs.named("learned-video@2", LEARNED_AT)
        specs, stream = model.boundaries[LEARNED_AT], codec.new_stream()

        def frame(number: int, budget_ms: int = 0) -> bytes:
            tensors = encode_tensors(values, specs, stream)
            return build_frame(
                id=number, boundary=LEARNED_AT, codec=codec.name, tensors=tensors,
                budget_ms=budget_ms,
            )  # fmt: skip

        return frame

    return of


@pytest.fixture
def values(learned_bundle: Bundle, vivid_spec: ModelSpec, album_folder: Path) -> dict[str, Array]:
    return crossing(learned_bundle, pixels_of(vivid_spec, album_folder)[:1])


@pytest.mark.parametrize("ingest", [0, 2])
async def test_files_that_change_while_it_serves_change_no_answer(
    learned_bundle: Bundle, values: dict[str, Array], tmp_path: Path, ingest: int
) -> None:
    """Also at a later start, when times are known and nothing is measured."""
    folder = Path(shutil.copytree(learned_bundle.folder, tmp_path / "mine.split"))
    bundle = open_bundle(folder)
    for _ in range(2):
        async with local_worker(bundle, ingest=ingest) as worker, RawClient(worker) as client:
            for path in (folder / "learned").rglob("*.*"):
                path.write_bytes(b"damaged")
            await client.hello()
            model = replace(client.model, codecs=codecs_of(bundle.manifest, learned_bundle.folder))
            reply = await client.ask(message(model, 1, "learned@2", values))
            assert reply.status == pb.OK, reply.reason
            (found,) = decode_reply(reply, model.boundaries[-1], 1).values()
            assert np.isfinite(found).all()
        shutil.rmtree(folder)
        shutil.copytree(learned_bundle.folder, folder)


@pytest.mark.parametrize("opens", [False, True])
def test_a_network_that_failed_is_not_tried_again(
    learned_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opens: bool
) -> None:
    """Nor does what it says hold the tensors of those that have asked."""
    files = learned_bundle.manifest.boundaries[LEARNED_AT].learned
    assert files is not None
    tried: list[Path] = []

    def fails(self: OnnxSegment, path: Path, *_: object) -> None:
        tried.append(path)
        if not opens:
            raise BundleError(f"cannot load {path}")
        self.inputs, self.outputs = ["tensor"], ["tensor"]  # of something else

    monkeypatch.setattr(OnnxSegment, "__init__", fails)
    networks = OnnxNetworks(LEARNED_AT, files, tmp_path)
    asked = []
    for _ in range(3):
        tensor = np.zeros((1, 16, 6, 6), np.float32)
        with pytest.raises(BundleError, match=r"cannot load|no network"):
            networks.decoded(tensor, 0.0)
        asked.append(weakref.ref(tensor))
        del tensor
    assert len(tried) == 1
    assert [tensor() for tensor in asked] == [None] * 3


def packed(bundle: Bundle, values: dict[str, Array], codec: str = "learned@2") -> PackedLearned:
    found: Any = codecs_of(bundle.manifest, bundle.folder).named(codec, LEARNED_AT)
    (spec,) = bundle.manifest.boundaries[LEARNED_AT].tensors
    value = found.packed(found.encode(values[spec.name], spec), spec, len(values[spec.name]))
    assert isinstance(value, PackedLearned)
    return value


@pytest.fixture
def short_of_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Has decoders run out of memory above so many samples; what they were given is noted."""
    load, within, given = unpack.load_decoder, [1 << 30], list[int]()

    def loaded(*what: Any) -> Any:
        decoder = load(*what)

        def decode(latent: torch.Tensor, octaves: torch.Tensor) -> Any:
            given.append(len(latent))
            if len(latent) > within[0]:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return decoder(latent, octaves)

        return decode

    monkeypatch.setattr(unpack, "load_decoder", loaded)

    def has_room_for(samples: int) -> list[int]:
        within[0] = samples
        given.clear()
        return given

    return has_room_for


def test_a_decoder_without_room_takes_fewer_at_a_time(
    learned_bundle: Bundle,
    vivid_spec: ModelSpec,
    album_folder: Path,
    short_of_memory: Callable[[int], list[int]],
) -> None:
    """And no batch of the model becomes smaller for it."""
    value = packed(
        learned_bundle, crossing(learned_bundle, pixels_of(vivid_spec, album_folder)[:12])
    )
    chain = UnpackingChain(learned_bundle, CPU)
    chain.load(LEARNED_AT)
    (name,) = (spec.name for spec in learned_bundle.manifest.boundaries[LEARNED_AT].tensors)
    whole = chain.place({name: value})[name]
    given = short_of_memory(2)
    np.testing.assert_allclose(chain.place({name: value})[name], whole, atol=1e-5)
    assert given == [8, 4, *[2] * 6]
    short_of_memory(0)
    with pytest.raises(CodecError, match="no memory for a decoder"):
        chain.place({name: value})


def test_a_decoder_that_gives_nan_is_not_served(
    learned_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it computes."""

    def loaded(*_: object) -> Any:
        return lambda latent, octaves: (latent * torch.nan,)

    monkeypatch.setattr(unpack, "load_decoder", loaded)
    with pytest.raises(BundleError, match="gives NaN or infinity"):
        UnpackingChain(learned_bundle, CPU).load(LEARNED_AT)


async def test_what_a_decoder_takes_of_the_device_is_planned(
    learned_bundle: Bundle, values: dict[str, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("splitpoint.cloud.compute.choose_chain.TorchChain", UnpackingChain)
    taken: list[Request] = []
    for ingest in (0, 2):
        async with (
            local_worker(learned_bundle, runtime="torch", ingest=ingest) as worker,
            RawClient(worker) as client,
        ):
            submit = worker.backend.engine.submit

            def noting(request: Request, submit: Any = submit) -> None:
                taken.append(request)
                submit(request)

            monkeypatch.setattr(worker.backend.engine, "submit", noting)
            await client.hello()
            model = client.model
            for number, name in enumerate(("raw", "learned@2", "learned-video@2"), start=1):
                assert (await client.ask(message(model, number, name, values))).status == pb.OK
            said = model.times.decode_ms[LEARNED_AT, "learned@2"] / 1e3
            assert said > 0
            assert [request.enter_s for request in taken] == [0.0, said, said]
            taken.clear()


async def test_a_cancelled_frame_of_a_stream_keeps_its_order_and_computes_nothing(
    learned_bundle: Bundle,
    video: Callable[[ServedModel], Callable[..., bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded, go_on = list[int](), threading.Event()
    real = PackedLearned.unpack

    def noting(self: PackedLearned) -> Array:
        decoded.append(1)
        go_on.wait(PATIENCE_S)
        return real(self)

    async with local_worker(learned_bundle) as worker, RawClient(worker) as client:
        monkeypatch.setattr(PackedLearned, "unpack", noting)
        await client.hello()
        frame, statuses = video(client.model), {}
        for number in (1, 2, 3):
            await client.call.write(frame(number))
        cancel, probe = pb.Cancel(id=2), pb.Probe(id=9)
        for words in (pb.ClientMessage(cancel=cancel), pb.ClientMessage(probe=probe)):
            await client.call.write(words.SerializeToString())
        assert (await client.message()).probe.id == 9  # by then it has read all that
        go_on.set()
        for _ in range(3):
            reply = await client.reply()
            statuses[reply.id] = reply.status
    assert statuses == {1: pb.OK, 2: pb.CANCELLED, 3: pb.OK}
    assert len(decoded) == 2


@pytest.mark.parametrize(("took_s", "status"), [(39.0, pb.OK), (61.0, pb.EXPIRED)])
async def test_what_is_decoded_of_a_frame_of_a_stream_is_not_planned_again(
    learned_bundle: Bundle,
    video: Callable[[ServedModel], Callable[..., bytes]],
    monkeypatch: pytest.MonkeyPatch,
    took_s: float,
    status: int,
) -> None:
    """The entropy stage is most of what decoding takes, and over when the frame may be given up."""
    real, late_s = LearnedStream.packed, 0.0

    def packed(self: LearnedStream, *given: Any) -> PackedLearned:
        nonlocal late_s
        found = real(self, *given)
        late_s += took_s
        return found

    clock = SimpleNamespace(perf_counter=lambda: time.perf_counter() + late_s)
    async with local_worker(learned_bundle) as worker, RawClient(worker) as client:
        await client.hello()
        times = dict.fromkeys(client.model.times.decode_ms, 40_000.0)
        client.model.times = replace(client.model.times, decode_ms=times)
        monkeypatch.setattr(LearnedStream, "packed", packed)
        monkeypatch.setattr(frame_work, "time", clock)
        reply = await client.ask(video(client.model)(1, budget_ms=60_000))
        assert reply.status == status, reply.reason


def changed(bundle: Bundle, change: Callable[[dict[str, Any]], None]) -> bytes:
    record = json.loads(bundle.manifest.to_bytes())
    change(record)
    return json.dumps(record).encode()


def _other_levels(record: dict[str, Any]) -> None:
    record["boundaries"][LEARNED_AT]["learned"]["levels"] = 1


def _at_the_input(record: dict[str, Any]) -> None:
    record["boundaries"][0]["learned"] = record["boundaries"][LEARNED_AT]["learned"]


def _of_a_vector(record: dict[str, Any]) -> None:
    record["boundaries"][3]["learned"] = record["boundaries"][LEARNED_AT]["learned"]


def _older(record: dict[str, Any]) -> None:
    record["schema"] = 3


def _elsewhere(record: dict[str, Any]) -> None:
    record["boundaries"][LEARNED_AT]["learned"]["decoder"]["onnx"] = "../decoder.onnx"


@pytest.mark.parametrize("change", [_other_levels, _at_the_input, _of_a_vector, _older, _elsewhere])
def test_manifests_that_do_not_fit(
    learned_bundle: Bundle, change: Callable[[dict[str, Any]], None]
) -> None:
    Manifest.from_bytes(changed(learned_bundle, lambda record: None), "it")
    with pytest.raises(BundleError):
        Manifest.from_bytes(changed(learned_bundle, change), "it")
