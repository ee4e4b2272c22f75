"""Frames that are too large for `max_frame_bytes` go in a coarser calibrated level, or fail."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from calibrated import album, calibrated_bundle, pixels_of, vivid
from splitpoint.codec import Array, CodecError, TensorSpec
from splitpoint.edge import EdgeAgent, FakeWorker, Given, Outcome
from splitpoint.edge.figures.drift import Drift
from splitpoint.edge.frames.edge_half import EdgeHalf, EdgePart
from splitpoint.edge.frames.segments import Segments
from splitpoint.edge.store.prepare import Prepared
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.bundle.segment_files import ONNX
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.plan.plan import Plan, coarser
from splitpoint.partition.relative_error import relative_error
from splitpoint.partition.run.codecs import codecs_of
from splitpoint.partition.run.open_chain import open_chain
from splitpoint.partition.run.slowdown import Slowdown


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return album(tmp_path_factory.mktemp("calibration") / "album")


@pytest.fixture(scope="module")
def spec(small: ModelSpec, pictures: Path) -> ModelSpec:
    return vivid(small, pictures)


@pytest.fixture(scope="module")
def frames(spec: ModelSpec, pictures: Path) -> Array:
    return pixels_of(spec, pictures)


@pytest.fixture(scope="module")
def bundle(spec: ModelSpec, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return calibrated_bundle(spec, pictures, tmp_path_factory.mktemp("bundles") / "v.split")


@pytest.fixture
def worker(bundle: Bundle) -> FakeWorker:
    return FakeWorker(bundle)


def at_boundary(bundle: Bundle, boundary: int, pixels: Array) -> tuple[TensorSpec, Array]:
    """The one tensor that crosses, as the device computes it."""
    segments = Segments(open_chain(bundle, ONNX), bundle.manifest, Slowdown(1.0))
    segments.load(boundary)
    (spec,) = bundle.manifest.boundaries[boundary].tensors
    return spec, segments.run({"pixels": pixels}, boundary)[spec.name]


def payload_bytes(bundle: Bundle, boundary: int, codec: str, pixels: Array) -> int:
    spec, value = at_boundary(bundle, boundary, pixels)
    found = codecs_of(bundle.manifest, bundle.folder).named(codec, boundary)
    return len(found.encode(value, spec))


def levels(bundle: Bundle) -> list[str]:
    """Of boundary 1, the finest and then in the order of their bytes."""
    boundary = bundle.manifest.boundaries[1]
    return coarser(boundary, boundary.ladder[-1].codec)


async def test_a_frame_goes_in_the_largest_level_that_fits(
    worker: FakeWorker, bundle: Bundle, frames: Array, tmp_path: Path
) -> None:
    """Each frame by itself: a small one keeps the plan's level."""
    names = levels(bundle)
    sizes = [
        {name: payload_bytes(bundle, 1, name, pixels[None]) for name in names}
        for pixels in frames[:6]
    ]
    chosen = set()
    budgets = sorted({size for found in sizes for size in found.values()})
    for budget in [*budgets[:: max(len(budgets) // 4, 1)], math.inf]:
        async with EdgeAgent(
            worker.address,
            connect=worker.connect,
            split="1",
            codec=names[0],
            cache=tmp_path,
            max_frame_bytes=budget,
            finish_locally=False,
        ) as agent:
            for pixels, found in zip(frames, sizes, strict=False):
                result = await agent.infer({"pixels": pixels[None]})
                expected = next((n for n in names if found[n] <= budget), None)
                if expected is None:
                    assert result.outcome is Outcome.FAILED
                    continue
                assert result.outcome is Outcome.ANSWERED, result.why
                assert result.codec == expected
                chosen.add(expected)
    assert names[0] in chosen
    assert len(chosen) >= 3


async def test_the_first_frames_wait_for_the_rest_of_the_model(
    worker: FakeWorker,
    bundle: Bundle,
    frames: Array,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those that nothing else can answer; a live source's for no longer than they are worth."""
    fetch, may_come = Prepared.fetch_segments, asyncio.Event()

    async def slow(self: Prepared, count: int, runtime: str) -> None:
        if count > 1:
            await may_come.wait()
        await fetch(self, count, runtime)

    monkeypatch.setattr(Prepared, "fetch_segments", slow)
    given = {"pixels": frames[:1]}
    async with EdgeAgent(
        worker.address, connect=worker.connect, split="1", codec=levels(bundle)[0], cache=tmp_path,
        max_frame_bytes=1, budget_ms=100,
    ) as agent:  # fmt: skip
        (live,) = [result async for result in agent.stream([Given(inputs=given)], live=True)]
        assert live.outcome is Outcome.FAILED
        assert "are allowed" in live.why
        first = asyncio.create_task(agent.infer(given))
        await asyncio.sleep(0.3)
        assert not first.done()
        may_come.set()
        assert (await first).outcome is Outcome.LOCAL


async def test_bytes_are_told_beside_those_of_calibration(
    worker: FakeWorker, bundle: Bundle, frames: Array, tmp_path: Path
) -> None:
    """Of a sample, in the level in which it went."""
    fine, coarse = levels(bundle)[:2]
    most = payload_bytes(bundle, 1, fine, frames[:2]) - 1
    for codec, budget in ((fine, math.inf), (coarse, most)):
        async with EdgeAgent(
            worker.address,
            connect=worker.connect,
            split="1",
            codec=fine,
            cache=tmp_path,
            max_frame_bytes=budget,
            finish_locally=False,
        ) as agent:
            assert agent.drift.bytes_over_calibrated is None
            result = await agent.infer({"pixels": frames[:2]})
            assert (result.outcome, result.codec) == (Outcome.ANSWERED, codec), result.why
            level = bundle.manifest.boundaries[1].level(codec)
            assert level is not None
            expected = payload_bytes(bundle, 1, codec, frames[:2]) / 2 / level.nbytes
            assert agent.drift.bytes_over_calibrated == pytest.approx(expected)


async def test_what_arrives_is_what_the_level_left(
    worker: FakeWorker, bundle: Bundle, spec: ModelSpec, frames: Array, tmp_path: Path
) -> None:
    """A JPEG of lower quality, answered as the unsplit model answers it."""
    pixels = frames[:1]
    sizes = {q: payload_bytes(bundle, 0, q, pixels) for q in ("jpeg", "jpeg@85", "jpeg@75")}
    assert sizes["jpeg"] > sizes["jpeg@85"] > sizes["jpeg@75"]
    codecs = codecs_of(bundle.manifest, bundle.folder)
    (tensor,) = bundle.manifest.boundaries[0].tensors
    for name, size in sizes.items():
        async with EdgeAgent(
            worker.address,
            connect=worker.connect,
            split="input",
            codec="jpeg",
            cache=tmp_path,
            max_frame_bytes=size,
        ) as agent:
            result = await agent.infer({"pixels": pixels})
            assert agent.plan.codec == "jpeg"
        assert (result.outcome, result.codec) == (Outcome.ANSWERED, name)
        codec = codecs.named(name, 0)
        arrived = codec.decode(codec.encode(pixels, tensor), tensor, 1)
        with torch.inference_mode():
            expected = spec.module(torch.tensor(arrived)).numpy()
        assert relative_error(result.outputs["output"], expected) < 1e-4


async def test_a_frame_that_no_level_can_carry_fails_alone(
    worker: FakeWorker, bundle: Bundle, frames: Array, tmp_path: Path
) -> None:
    flat = np.full((1, 24, 24, 3), 90, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, flat.shape).astype(np.uint8)
    smallest = payload_bytes(bundle, 0, "jpeg@75", noise)
    budget = smallest - 1
    assert payload_bytes(bundle, 0, "jpeg", flat) <= budget
    given = [flat, noise, flat, noise, flat]
    async with EdgeAgent(
        worker.address,
        connect=worker.connect,
        split="input",
        codec="jpeg",
        cache=tmp_path,
        max_frame_bytes=budget,
        finish_locally=False,
    ) as agent:
        results = [
            result async for result in agent.stream(Given(inputs={"pixels": p}) for p in given)
        ]
        assert agent.outcomes == {
            Outcome.ANSWERED: 3, Outcome.LOCAL: 0, Outcome.EXPIRED: 0, Outcome.FAILED: 2,
            Outcome.SKIPPED: 0,
        }  # fmt: skip
    for result, pixels in zip(results, given, strict=True):
        if pixels is flat:
            assert (result.outcome, result.codec) == (Outcome.ANSWERED, "jpeg")
        else:
            assert result.outcome is Outcome.FAILED
            assert isinstance(result.error, CodecError)
            assert f"{smallest} bytes even as jpeg@75" in result.why
            assert "--max-kb-per-frame" in result.error.remedy
            assert not result.outputs


@pytest.mark.parametrize(
    ("less", "finish", "outcome"),
    [
        (0, True, Outcome.ANSWERED),
        (1, True, Outcome.LOCAL),  # which needs no codec
        (1, False, Outcome.FAILED),
    ],
)
async def test_a_codec_without_levels_fits_or_the_device_finishes_the_frame(
    worker: FakeWorker,
    bundle: Bundle,
    frames: Array,
    tmp_path: Path,
    less: int,
    finish: bool,
    outcome: Outcome,
) -> None:
    size = payload_bytes(bundle, 1, "q8", frames[:1])
    async with EdgeAgent(
        worker.address,
        connect=worker.connect,
        split="1",
        codec="q8",
        cache=tmp_path,
        max_frame_bytes=size - less,
        finish_locally=finish,
    ) as agent:
        await agent.settled()
        result = await agent.infer({"pixels": frames[:1]})
    assert (result.outcome, result.codec) == (outcome, "q8")
    assert (f"{size} bytes even as q8" in result.why) == bool(less)


async def test_only_what_is_needed_is_fetched(
    worker: FakeWorker, bundle: Bundle, frames: Array, tmp_path: Path
) -> None:
    """The tables of the boundary that is sent, and no others."""
    async with EdgeAgent(
        worker.address, connect=worker.connect, split="2", codec="fkt", cache=tmp_path
    ) as agent:
        result = await agent.infer({"pixels": frames[:3]})
    assert result.outcome is Outcome.ANSWERED, result.why
    assert result.codec.startswith("fkt@")
    fetched = sorted(path.name for path in (tmp_path / bundle.digest / "codecs").iterdir())
    assert fetched == ["02.safetensors"]


async def test_no_budget_forbids_what_sends_nothing(
    worker: FakeWorker, frames: Array, tmp_path: Path
) -> None:
    async with EdgeAgent(
        worker.address, connect=worker.connect, split="local", cache=tmp_path, max_frame_bytes=1
    ) as agent:
        result = await agent.infer({"pixels": frames[:1]})
    assert result.outcome is Outcome.LOCAL


@pytest.mark.parametrize("finest", ["fkt-video@8", "fkt@8"])
def test_a_key_frame_names_the_codec_that_it_is_in(
    bundle: Bundle, frames: Array, finest: str
) -> None:
    """It is larger than the difference that the worker refused, and may need a coarser codec."""
    segments = Segments(open_chain(bundle, ONNX), bundle.manifest, Slowdown(1.0))
    segments.load(1)
    codecs, plan = codecs_of(bundle.manifest, bundle.folder), Plan(boundary=1, codec=finest)

    def key_frame(max_frame_bytes: float) -> EdgePart:
        half = EdgeHalf(
            bundle.manifest,
            codecs,
            lambda runtime: segments,
            Slowdown(1.0),
            max_frame_bytes,
            Drift(bundle.manifest.name, None),
        )
        half.prepare(plan)
        return half.as_key_frame(plan, half.compute(plan, {"pixels": frames[:1]}))

    largest = key_frame(math.inf)
    assert largest.codec == finest
    smaller = key_frame(len(largest.tensors[0].payload) - 1)
    assert smaller.codec in coarser(bundle.manifest.boundaries[1], "fkt@8")[1:]


async def test_frames_of_a_stream_that_are_too_large_go_by_themselves(
    worker: FakeWorker, bundle: Bundle, spec: ModelSpec, frames: Array, tmp_path: Path
) -> None:
    """In a coarser level; the stream then begins anew, and every answer is right."""
    finest = bundle.manifest.boundaries[1].levels_of("fkt")[-1].codec
    video = finest.replace("fkt", "fkt-video")
    sized = {payload_bytes(bundle, 1, video, frames[i : i + 1]): i for i in range(len(frames))}
    least, most = min(sized), max(sized)
    assert least < most
    order = [sized[least], sized[least], sized[most], sized[least]]
    async with EdgeAgent(
        worker.address, connect=worker.connect, split="1", codec=video, cache=tmp_path,
        max_frame_bytes=most - 1, finish_locally=False,
    ) as agent:  # fmt: skip
        seen = [await agent.infer({"pixels": frames[i : i + 1]}) for i in order]
    assert [result.outcome for result in seen] == [Outcome.ANSWERED] * 4
    assert [result.codec for result in seen[:2]] == [video] * 2
    assert seen[2].codec in coarser(bundle.manifest.boundaries[1], finest)[1:]
    assert seen[3].codec == video
    with torch.inference_mode():
        exact = spec.module(torch.tensor(frames[order])).numpy()
    for result, expected in zip(seen, exact, strict=True):
        assert relative_error(result.outputs["output"], expected[None]) < 0.2
