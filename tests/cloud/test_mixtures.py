"""Whatever meets in a batch: every answer is that of the unsplit model."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from splitpoint.cloud.compute.loaded_model import LoadedModel
from splitpoint.cloud.compute.runner import Runner
from splitpoint.cloud.engine.engine import Engine
from splitpoint.cloud.engine.request import Request
from splitpoint.cloud.schedule.batch_times import BatchTimes
from splitpoint.codec import Array
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.partition.run.chain import SegmentChain, State
from splitpoint.partition.run.codecs import codecs_of
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.partition.run.torch_chain import TorchChain

RUNTIMES = ("torch", "onnxruntime")


def served(bundle: Bundle, runtime: str, sizes: tuple[int, ...]) -> LoadedModel:
    chain: SegmentChain = (
        OnnxChain(bundle) if runtime == "onnxruntime" else TorchChain(bundle, torch.device("cpu"))
    )
    for segment in range(len(chain)):
        chain.load(segment)
    boundaries = [boundary.tensors for boundary in bundle.manifest.boundaries]
    # As if a batch took as long as one sample: then all meet who can.
    times = BatchTimes([{1: 20.0, 64: 20.0}] * len(chain), 64)
    return LoadedModel(
        bundle=bundle, runner=Runner(chain, boundaries, sizes), batch_times=times,
        times=CloudTimes(segment_ms=(20.0,) * len(chain)), boundaries=boundaries,
        codecs=codecs_of(bundle.manifest, bundle.folder),
    )  # fmt: skip


def states_of(model: LoadedModel, value: Array) -> list[State]:
    """The tensors at every boundary, segment by segment, as an edge has them."""
    name = model.boundaries[0][0].name
    chain, state = model.runner.chain, {name: value}
    found = [state]
    placed = chain.place(state)
    for segment in range(len(chain)):
        placed |= chain.step(segment, placed)
        found.append({s.name: chain.fetch(placed[s.name]) for s in model.boundaries[segment + 1]})
    return found


@pytest.mark.parametrize("sizes", [(), (4, 16, 64)], ids=["as they come", "padded"])
@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_random_arrivals_answer_as_the_unsplit_model(
    small_bundle: Bundle, small: ModelSpec, runtime: str, sizes: tuple[int, ...]
) -> None:
    model = served(small_bundle, runtime, sizes)
    engine = Engine(max_batch=64, max_queued_bytes=1 << 40)
    engine.start()
    chance, rng = random.Random(4), np.random.default_rng(4)
    spec = model.boundaries[0][0]
    results: dict[int, tuple[Array, object, int]] = {}
    count, requests = 150, []
    for number in range(count):
        samples = chance.choice((1, 1, 1, 2, 5))
        picture = rng.integers(0, 256, spec.shape_at(samples)).astype(spec.numpy_dtype)
        boundary = chance.randrange(len(model.boundaries) - 1)

        def note(request: Request, result: object, number: int = number,
                 picture: Array = picture) -> None:  # fmt: skip
            results[number] = (picture, result, request.batch_computed)

        requests.append(Request(
            model=model, boundary=boundary, samples=samples, deadline_s=float("inf"),
            client=str(number), values=states_of(model, picture)[boundary], answer=note,
            broke=lambda: None,
        ))  # fmt: skip
    for request in requests:
        engine.submit(request)
        if chance.random() < 0.2:
            await asyncio.sleep(chance.choice((0, 0.001, 0.005)))
    for _ in range(1000):
        if len(results) == count:
            break
        await asyncio.sleep(0.01)
    await engine.stop()
    assert len(results) == count
    assert max(batch for _, _, batch in results.values()) > 8
    with torch.inference_mode():
        for picture, result, _ in results.values():
            assert isinstance(result, dict), result
            (got,) = result.values()
            expected = small.module(torch.from_numpy(picture)).numpy()
            assert got.shape == expected.shape
            np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


class Windows(torch.nn.Module):
    """Six rows a sample between its two ends, as Swin folds windows into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.proj, self.back = torch.nn.Linear(4, 8), torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.proj(x.reshape(x.shape[0] * 6, 2, 4)))
        return self.back(y).reshape(x.shape[0], 12, 4).mean(1)


def test_samples_of_several_rows_are_cut_and_joined_whole(tmp_path: Path) -> None:
    spec = ModelSpec(source="windows", module=Windows(), args=(torch.randn(3, 12, 4),))
    bundle = compile_model(spec, tmp_path / "w.split", boundaries=20)
    assert any(s.shape[0] == 6 for b in bundle.manifest.boundaries for s in b.tensors)
    model = served(bundle, "torch", ())
    rng = np.random.default_rng(0)
    for boundary, specs in enumerate(model.boundaries[:-1]):
        requests = [
            {s.name: rng.uniform(0, 1, s.shape_at(n)).astype(s.numpy_dtype) for s in specs}
            for n in (1, 3, 2)
        ]
        runner = model.runner
        joined = runner.enter(boundary, requests)
        alone = [runner.enter(boundary, [request]) for request in requests]
        for segment in range(boundary, len(runner.chain)):
            joined = runner.step(segment, joined, 6)
            alone = [
                runner.step(segment, state, n) for state, n in zip(alone, (1, 3, 2), strict=True)
            ]
        together = runner.answers(joined, [1, 3, 2])
        for state, n, parts in zip(alone, (1, 3, 2), together, strict=True):
            (apart,) = runner.answers(state, [n])
            for name, expected in apart.items():
                np.testing.assert_allclose(parts[name], expected, rtol=1e-4, atol=1e-5)
