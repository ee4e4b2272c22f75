"""An agent whose frames go in the learned codec: fetched, sent, answered, finished here."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from calibrated import pixels_of
from conftest import LEARNED_AT
from local_worker import local_worker
from splitpoint.codec import Array
from splitpoint.edge import EdgeAgent, FakeWorker, Given, Outcome
from splitpoint.edge.figures.drift import Drift
from splitpoint.edge.frames.edge_half import EdgeHalf
from splitpoint.partition.bundle.bundle import Bundle, Manifest
from splitpoint.partition.bundle.samples import synthetic_samples
from splitpoint.partition.errors import BundleError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.plan.plan import Plan, coarser, default_level, named_plan
from splitpoint.partition.profile.measure_codecs import measure_codecs
from splitpoint.partition.relative_error import relative_error
from splitpoint.partition.run.codecs import codecs_of
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.partition.run.slowdown import Slowdown
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import CheckedFrame

AT = str(LEARNED_AT)


@pytest.fixture(scope="module")
def pictures(vivid_spec: ModelSpec, album_folder: Path) -> Array:
    return pixels_of(vivid_spec, album_folder)


def whole(spec: ModelSpec, pixels: Array) -> Array:
    with torch.inference_mode():
        found: Array = spec.module(torch.tensor(pixels)).numpy()
    return found


def by_hand(bundle: Bundle, pixels: Array, codec: str) -> Array:
    """The answer where the boundary's tensor went through the codec in this process."""
    manifest, chain = bundle.manifest, OnnxChain(bundle, threads=1)
    (spec,) = manifest.boundaries[LEARNED_AT].tensors
    coder = codecs_of(manifest, bundle.folder).named(codec, LEARNED_AT)
    state = {manifest.boundaries[0].tensors[0].name: pixels}
    for index in range(len(chain)):
        chain.load(index)
        if index == LEARNED_AT:
            payload = coder.encode(state[spec.name], spec)
            state[spec.name] = coder.decode(payload, spec, len(pixels))
        state = dict(state) | dict(chain.step(index, state))
    return state[next(iter(manifest.outputs.values()))]


def contents(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("codec", ["learned@1", "learned@3", "learned", "learned-video@2"])
async def test_an_answer_is_that_of_the_codec(
    learned_bundle: Bundle, vivid_spec: ModelSpec, pictures: Array, codec: str, tmp_path: Path
) -> None:
    async with (
        local_worker(learned_bundle) as worker,
        EdgeAgent(worker.address, split=AT, codec=codec, cache=tmp_path) as agent,
    ):
        for picture in pictures[:3]:
            result = await agent.infer({"pixels": picture[None]})
            assert result.outcome is Outcome.ANSWERED, result.why
            level = codec
            if codec == "learned":
                level = default_level(learned_bundle.manifest, LEARNED_AT, "learned")
            assert result.codec == level
            if "video" not in codec:
                expected = by_hand(learned_bundle, picture[None], level)
                assert relative_error(result.outputs["output"], expected) < 1e-4
            exact = whole(vivid_spec, picture[None])
            assert 0 < relative_error(result.outputs["output"], exact) < 0.5


async def test_what_the_cloud_does_not_answer_is_finished_exactly(
    learned_bundle: Bundle, vivid_spec: ModelSpec, pictures: Array, tmp_path: Path
) -> None:
    """From the tensor as it was, not from what the encoder made of it."""

    async def overloaded(frame: CheckedFrame) -> pb.Status:
        return pb.OVERLOADED

    worker = FakeWorker(learned_bundle, script=overloaded)
    async with EdgeAgent(
        worker.address, connect=worker.connect, split=AT, codec="learned@1", cache=tmp_path
    ) as agent:
        await agent.settled()
        result = await agent.infer({"pixels": pictures[:1]})
    assert [frame.codec.name for frame in worker.frames] == ["learned@1"]
    assert result.outcome is Outcome.LOCAL
    assert relative_error(result.outputs["output"], whole(vivid_spec, pictures[:1])) < 1e-5


async def test_frames_that_are_too_large_go_in_a_coarser_level(
    learned_bundle: Bundle, pictures: Array, tmp_path: Path
) -> None:
    boundary = learned_bundle.manifest.boundaries[LEARNED_AT]
    levels = coarser(boundary, boundary.ladder[-1].codec)
    assert len(levels) > 2
    assert all(name.startswith("learned@") for name in levels)
    worker = FakeWorker(learned_bundle)
    async with EdgeAgent(
        worker.address, connect=worker.connect, split=AT, codec=levels[0], cache=tmp_path,
        max_frame_bytes=12,
    ) as agent:  # fmt: skip
        stream = agent.stream([Given(inputs={"pixels": one[None]}) for one in pictures])
        results = [result async for result in stream]
    assert {result.outcome for result in results} == {Outcome.ANSWERED}
    assert max(result.bytes_up for result in results) < 200
    used = {frame.codec.name for frame in worker.frames}
    assert used & set(levels[1:])
    assert all(sum(map(len, frame.payloads)) <= 12 for frame in worker.frames)


async def test_the_device_fetches_what_encodes_alone(
    learned_bundle: Bundle, pictures: Array, tmp_path: Path
) -> None:
    worker = FakeWorker(learned_bundle)
    async with EdgeAgent(
        worker.address, connect=worker.connect, split=AT, codec="learned@1", cache=tmp_path
    ) as agent:
        assert (await agent.infer({"pixels": pictures[:1]})).outcome is Outcome.ANSWERED
    learned = learned_bundle.manifest.boundaries[LEARNED_AT].learned
    assert learned is not None
    fetched = contents(tmp_path)
    for path in learned.for_the_device:
        assert learned_bundle.path(path).read_bytes() in fetched
    for path in learned.decoder.paths:
        assert learned_bundle.path(path).read_bytes() not in fetched


def test_an_encoder_that_cannot_be_loaded_is_told_at_once(
    learned_bundle: Bundle, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(learned_bundle.folder, tmp_path / "damaged.split"))
    manifest = learned_bundle.manifest
    learned = manifest.boundaries[LEARNED_AT].learned
    assert learned is not None

    def half() -> EdgeHalf:
        return EdgeHalf(
            manifest, codecs_of(manifest, folder), lambda runtime: pytest.fail("not asked for"),
            Slowdown(1.0), 1e9, Drift(manifest.name, None),
        )  # fmt: skip

    plan = Plan(boundary=LEARNED_AT, codec="learned@1")
    half().prepare(plan)
    (folder / learned.encoder.onnx).write_bytes(b"no network")
    with pytest.raises(BundleError, match="cannot load") as caught:
        half().prepare(plan)
    assert "splitpoint learn" in caught.value.remedy


def test_a_device_without_the_decoder_takes_its_time_from_the_bundle(
    learned_bundle: Bundle, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(learned_bundle.folder, tmp_path / "device.split"))
    manifest = learned_bundle.manifest
    learned = manifest.boundaries[LEARNED_AT].learned
    assert learned is not None
    for path in learned.decoder.paths:
        (folder / path).unlink()
    here = replace(learned_bundle, folder=folder)
    chain = OnnxChain(here, threads=1)
    for index in range(len(chain)):
        chain.load(index)
    found = measure_codecs(
        here, chain, codecs_of(manifest, folder), synthetic_samples(manifest), max_seconds=30
    )
    times = {each.codec: each.decode_ms for each in found if each.boundary == LEARNED_AT}
    for level in manifest.boundaries[LEARNED_AT].levels_of("learned"):
        assert times[level.codec] == level.decode_ms


def test_it_is_measured_as_any_codec(learned_bundle: Bundle) -> None:
    """So that planner and dispatcher have it among their candidates."""
    manifest, chain = learned_bundle.manifest, OnnxChain(learned_bundle, threads=1)
    for index in range(len(chain)):
        chain.load(index)
    codecs = codecs_of(manifest, learned_bundle.folder)
    samples = synthetic_samples(manifest)
    found = measure_codecs(learned_bundle, chain, codecs, samples, max_seconds=30)
    here = {each.codec: each for each in found if each.boundary == LEARNED_AT}
    levels = manifest.boundaries[LEARNED_AT].levels_of("learned")
    assert {level.codec for level in levels} <= here.keys()
    for level in levels:
        assert here[level.codec].encode_ms > here["raw"].encode_ms
        assert here[level.codec].decode_ms > here["raw"].decode_ms


def test_auto_takes_the_calibrated_codec_of_fewer_bytes(learned_bundle: Bundle) -> None:
    manifest: Manifest = learned_bundle.manifest
    codecs = codecs_of(manifest, learned_bundle.folder)
    boundary = manifest.boundaries[LEARNED_AT]
    sizes = {}
    for family in ("learned", "fkt"):
        level = boundary.level(default_level(manifest, LEARNED_AT, family))
        assert level is not None
        sizes[level.codec] = level.nbytes
    assert named_plan(manifest, codecs, AT).codec == min(sizes, key=lambda name: sizes[name])
    assert named_plan(manifest, codecs, AT, "learned").codec in sizes
    video = named_plan(manifest, codecs, AT, "learned-video").codec
    assert video.replace("-video", "") in sizes
    assert np.isfinite(list(sizes.values())).all()
