"""Heads run on whichever side ends a frame, and both give what they make of the unsplit model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Hashable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from command import Command
from local_worker import local_worker
from PIL import Image
from small_tasks import SIDE, spec_of, task_bundle
from splitpoint.cloud.worker import Worker
from splitpoint.codec import Array
from splitpoint.edge import EdgeAgent, Given
from splitpoint.edge.frames.segments import Segments
from splitpoint.edge.transport.fake_worker import FakeWorker
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.bundle.segment_files import ONNX
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.errors import TaskError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.run.open_chain import open_chain
from splitpoint.partition.run.slowdown import Slowdown
from splitpoint.partition.tasks.detections import detections_of
from splitpoint.partition.tasks.task import Task

T = TypeVar("T")
ANSWERS = {"yolo": "detections", "segment": "classes"}


@pytest.fixture(scope="module", params=["yolo", "segment"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return task_bundle(request.param)


@pytest.fixture
async def worker(bundle: Bundle) -> AsyncIterator[Worker]:
    async with local_worker(bundle) as started:
        yield started


def pixels(count: int = 3) -> Array:
    return np.random.default_rng(1).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def expected(bundle: Bundle, given: Array) -> Array:
    """The head's answer to the outputs of the unsplit model."""
    head = bundle.manifest.open_head()
    assert head is not None
    with torch.inference_mode():
        outputs = spec_of(bundle.manifest.name).module(torch.tensor(given)).numpy()
    (answer,) = head.answer({"output": outputs}).values()
    return answer


def same(found: Array, truth: Array) -> None:
    assert (found.dtype, found.shape) == (truth.dtype, truth.shape)
    if found.dtype == np.uint8:
        assert (found == truth).mean() > 0.999
    else:
        np.testing.assert_allclose(found, truth, atol=1e-3)


async def test_every_split_answers_as_the_unsplit_model(bundle: Bundle, worker: Worker) -> None:
    given = pixels()
    truth = expected(bundle, given)
    if bundle.manifest.task.kind == "detect":
        assert all(1 < len(detections_of(rows)) <= 20 for rows in truth)
    last = len(bundle.manifest.segments)
    for boundary in range(last + 1):
        codec = "auto" if boundary == last else "raw"
        async with EdgeAgent(
            worker.address, bundle=bundle.folder, split=str(boundary), codec=codec
        ) as agent:
            result = await agent.infer({"pixels": given})  # a batch
            frames = [Given(inputs={"pixels": row[np.newaxis]}) for row in given]
            results = [result async for result in agent.stream(frames)]
        assert list(result.outputs) == [ANSWERS[bundle.manifest.name]]
        same(next(iter(result.outputs.values())), truth)
        for row, one in zip(truth, results, strict=True):
            same(next(iter(one.outputs.values())), row[np.newaxis])


async def test_what_the_device_finishes_is_the_same(bundle: Bundle) -> None:
    given = pixels(1)
    fake = FakeWorker(bundle)
    async with EdgeAgent(
        fake.address, connect=fake.connect, bundle=bundle.folder, split="1", codec="raw"
    ) as agent:
        await agent.settled()
        answered = await agent.infer({"pixels": given})
        fake.cut()
        result = await agent.infer({"pixels": given})
    assert (answered.outcome.value, result.outcome.value) == ("answered", "local")
    same(next(iter(answered.outputs.values())), expected(bundle, given))
    same(next(iter(result.outputs.values())), expected(bundle, given))


class Counting(Slowdown):
    """Counts what is slowed down, and waits for none of it."""

    def __init__(self) -> None:
        super().__init__(1)
        self.runs = 0

    def stretch(self, key: Hashable, work: Callable[..., T], *arguments: object) -> T:
        self.runs += 1
        return super().stretch(key, work, *arguments)


def test_a_slower_device_is_slower_with_heads_too(bundle: Bundle) -> None:
    slowdown = Counting()
    segments = Segments(open_chain(bundle, ONNX), bundle.manifest, slowdown)
    last = len(bundle.manifest.segments)
    segments.load(last)
    segments.run({"pixels": pixels(1)}, last)
    assert slowdown.runs == last + 1


def test_inspect_shows_what_answers_are(bundle: Bundle, command: Command) -> None:
    task = bundle.manifest.task
    assert f"task {task.kind}, head {task.head}" in command("inspect", bundle.folder).stdout
    document = json.loads(command("inspect", bundle.folder, "--json").stdout)
    assert document["task"] == task.to_json()
    assert document["picture"]["resize"] == "letterbox"
    (answer,) = document["answer"]
    assert answer["name"] == ANSWERS[task.head]


def test_run_says_and_draws_what_it_found(bundle: Bundle, tmp_path: Path, command: Command) -> None:
    photo = np.random.default_rng(2).integers(0, 256, (90, 160, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "yard.png")
    done = command(
        "run", "--bundle", bundle.folder, "--split", "local", "--source", tmp_path / "yard.png",
        "--save-annotated", tmp_path / "drawn", "--min-score", "0.1", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[0])
    if bundle.manifest.task.kind == "detect":
        assert line["detections"]
        for thing in line["detections"]:
            x0, y0, x1, y1 = thing["box"]
            assert 0 <= x0 <= x1 <= 160
            assert 0 <= y0 <= y1 <= 90
            assert thing["label"] in "abc"
    else:
        assert sum(area["share"] for area in line["areas"]) == pytest.approx(1, abs=1e-4)
    (drawn,) = (tmp_path / "drawn").iterdir()
    with Image.open(drawn) as picture:
        assert picture.size == (160, 90)


def test_a_head_that_does_not_fit_is_refused_before_the_long_part(tmp_path: Path) -> None:
    spec = spec_of("segment")
    wrong = ModelSpec(**{**vars(spec), "task": Task.of_head("detr")})
    with pytest.raises(TaskError, match=r"'output' float32 \[batch, 5, 16, 16\].*it reads floats"):
        compile_model(wrong, tmp_path / "m.split")
    assert not list(tmp_path.iterdir())
