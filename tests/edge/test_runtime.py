"""The runtimes of the device: values, warming, providers, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from calibrated import pixels_of
from splitpoint.codec import Array
from splitpoint.edge import EdgeAgent, FakeWorker, Outcome
from splitpoint.edge.frames.segments import Segments
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.bundle.segment_files import INT8, ONNX, RUNTIMES, TORCH, runtime_files
from splitpoint.partition.errors import BundleError, DeviceError, PlanError, SegmentError
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.run.chain import State
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.partition.run.onnx_providers import choose_providers, device_of, with_options
from splitpoint.partition.run.open_chain import open_chain
from splitpoint.partition.run.slowdown import Slowdown

TENSORRT, CUDA, CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.fixture
def worker(int8_bundle: Bundle) -> FakeWorker:
    return FakeWorker(int8_bundle)


@pytest.fixture
def pixels(vivid_spec: ModelSpec, album_folder: Path) -> np.ndarray:
    return pixels_of(vivid_spec, album_folder)[:4]


def expected_of(spec: ModelSpec, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(spec.module(torch.tensor(pixels)).numpy())


def segments_of(bundle: Bundle, runtime: str) -> Segments:
    return Segments(open_chain(bundle, runtime), bundle.manifest, Slowdown(1))


def loaded(bundle: Bundle, runtime: str, count: int) -> Segments:
    segments = segments_of(bundle, runtime)
    segments.load(count)
    return segments


def names(folder: Path, pattern: str) -> set[str]:
    return {path.name for path in folder.glob(pattern)}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_gives_the_answers_of_the_unsplit_model(
    runtime: str, int8_bundle: Bundle, vivid_spec: ModelSpec, pixels: np.ndarray
) -> None:
    """Wherever it stops, another one can go on."""
    expected = expected_of(vivid_spec, pixels)
    count = len(int8_bundle.manifest.segments)
    segments, exact = loaded(int8_bundle, runtime, count), loaded(int8_bundle, ONNX, count)
    (output,) = int8_bundle.manifest.outputs.values()
    for boundary in range(count + 1):
        state = segments.run({"pixels": pixels}, boundary)
        for spec in int8_bundle.manifest.boundaries[boundary].tensors:
            spec.check(state[spec.name])
        found = exact.run(state, count, boundary)[output]
        if runtime == INT8:
            assert np.abs(found - expected).mean() < 0.1 * expected.std()
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


class NotedChain(OnnxChain):
    """Keeps what each step was given."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.seen: list[Mapping[str, Array]] = []

    def step(self, index: int, state: State) -> State:
        self.seen.append(state)
        return super().step(index, state)


def test_segments_have_run_before_they_are_there(int8_bundle: Bundle) -> None:
    chain = NotedChain(int8_bundle)
    segments = Segments(chain, int8_bundle.manifest, Slowdown(1))
    segments.load(2)
    segments.load(3)
    assert segments.loaded == len(chain.seen) == 3
    for values, boundary in zip(chain.seen, int8_bundle.manifest.boundaries, strict=False):
        assert {n: (v.shape, v.dtype) for n, v in values.items()} == {
            s.name: (s.shape_at(1), s.numpy_dtype) for s in boundary.tensors
        }


def test_a_segment_that_fails_is_not_there(int8_bundle: Bundle, tmp_path: Path) -> None:
    for runtime in RUNTIMES:
        folder = tmp_path / runtime
        (folder / "segments").mkdir(parents=True)
        damaged = replace(int8_bundle, folder=folder)
        damaged.path(runtime_files(damaged.manifest, 0, runtime)[0]).write_bytes(b"no model")
        segments = segments_of(damaged, runtime)
        with pytest.raises(BundleError):
            segments.load(1)
        assert segments.loaded == 0


def test_inputs_that_no_segment_takes(int8_bundle: Bundle) -> None:
    for runtime in RUNTIMES:
        segments = loaded(int8_bundle, runtime, 1)
        with pytest.raises(SegmentError):
            segments.run({"pixels": np.zeros((1, 3), np.uint8)}, 1)


def test_unknown_runtime(int8_bundle: Bundle) -> None:
    with pytest.raises(PlanError, match="unknown runtime 'tflite'"):
        open_chain(int8_bundle, "tflite")


def test_torch_where_there_is_none(int8_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "splitpoint.partition.run.torch_chain", raising=False)
    monkeypatch.delattr("splitpoint.partition.run.torch_chain", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DeviceError, match="needs torch, which is not installed"):
        open_chain(int8_bundle, TORCH)
    with pytest.raises(DeviceError, match="no execution providers"):
        open_chain(int8_bundle, TORCH, providers=("cuda",))


def test_providers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    assert choose_providers() == (TENSORRT, CUDA, CPU)  # a Jetson
    assert choose_providers(("cuda",)) == (CUDA, CPU)
    assert choose_providers(("CPU",)) == (CPU,)
    assert choose_providers((CPU, CUDA, "cuda")) == (CPU, CUDA)
    assert [device_of(choose_providers(w)) for w in ((), ("cuda",), ("cpu",))] == [
        "tensorrt", "cuda", "cpu",
    ]  # fmt: skip
    first, *others = with_options((TENSORRT, CUDA, CPU), tmp_path)
    assert first[0] == TENSORRT
    assert first[1]["trt_engine_cache_path"] == str(tmp_path)  # type: ignore[index]
    assert others == [CUDA, CPU]
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["AzureExecutionProvider", CPU]
    )
    assert choose_providers() == (CPU,)
    with pytest.raises(DeviceError, match="no execution provider 'cuda' here") as error:
        choose_providers(("cuda", "cpu"))
    assert "use one of AzureExecutionProvider, cpu" in str(error.value)


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_agent_keeps_to_a_runtime(
    runtime: str, worker: FakeWorker, vivid_spec: ModelSpec, pixels: np.ndarray, tmp_path: Path
) -> None:
    agent = EdgeAgent(
        worker.address, connect=worker.connect, split="2", codec="raw", runtime=runtime,
        cache=tmp_path, finish_locally=False,
    )  # fmt: skip
    async with agent:
        assert agent.plan.runtime == runtime
        result = await agent.infer({"pixels": pixels})
    assert result.outcome is Outcome.ANSWERED
    expected = expected_of(vivid_spec, pixels)
    assert np.abs(result.outputs["output"] - expected).mean() < 0.1 * expected.std()
    suffix = {ONNX: {".onnx", ".safetensors"}, INT8: {".int8.onnx"},
              TORCH: {".json", ".safetensors"}}[runtime]  # fmt: skip
    assert names(tmp_path, "*/segments/*") == {
        f"{index:02}{end}" for index in (0, 1) for end in suffix
    }


async def test_auto_weighs_both(worker: FakeWorker, pixels: np.ndarray, tmp_path: Path) -> None:
    async with EdgeAgent(worker.address, connect=worker.connect, cache=tmp_path) as agent:
        assert agent.report is not None
        assert {c.runtime for c in agent.report.candidates} == {ONNX, INT8}
        assert (await agent.infer({"pixels": pixels})).outputs
    async with EdgeAgent(
        worker.address, connect=worker.connect, runtime=INT8, cache=tmp_path
    ) as agent:
        assert agent.report is not None
        assert {c.runtime for c in agent.report.candidates} == {INT8}
        assert agent.plan.runtime == INT8
    assert len(names(tmp_path, "profile-*.json")) == 2


async def test_what_the_cloud_leaves_is_finished_in_float(
    worker: FakeWorker, vivid_spec: ModelSpec, pixels: np.ndarray, tmp_path: Path
) -> None:
    async with EdgeAgent(
        worker.address,
        connect=worker.connect,
        split="1",
        codec="raw",
        runtime=INT8,
        cache=tmp_path,
        budget_ms=2000,
    ) as agent:
        await agent.settled()
        worker.cut()
        result = await agent.infer({"pixels": pixels})
    assert result.outcome is Outcome.LOCAL
    expected = expected_of(vivid_spec, pixels)
    assert np.abs(result.outputs["output"] - expected).mean() < 0.1 * expected.std()


async def test_runtime_that_the_bundle_lacks(small_bundle: Bundle, tmp_path: Path) -> None:
    for runtime, words in ((INT8, "has no INT8 segments"), ("tflite", "unknown runtime")):
        with pytest.raises(PlanError, match=words):
            async with EdgeAgent(None, bundle=small_bundle.folder, runtime=runtime, cache=tmp_path):
                pass
