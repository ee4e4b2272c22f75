"""Compilers of a GPU, which are played here: what is tried, how long, chosen, kept, left out."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from local_worker import local_worker
from patience import until
from played_gpu import PlayedCompiler, PlayedGpu, form_in_use
from splitpoint.cloud import bundle_watch, session
from splitpoint.cloud.compute.gpu_chain import GpuChain
from splitpoint.cloud.compute.loaded_model import LoadedModel
from splitpoint.cloud.compute.runner import Runner
from splitpoint.cloud.errors import Interrupted, ServeError
from splitpoint.cloud.gpu import compilers_here as here
from splitpoint.cloud.gpu.weight_form import Form
from splitpoint.cloud.options import WorkerOptions
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.run.torch_chain import TorchChain
from standin_cuda import ILLEGAL_ADDRESS, accelerator_error

PLAIN = Form("fp32")
INDUCTOR, TENSORRT = (Form("fp32", compiler=name) for name in ("inductor", "tensorrt"))
LONG_S = 3600.0


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, small_bundle: Bundle) -> PlayedGpu:
    """With two compilers, of which the first makes the model faster."""
    found = PlayedGpu(monkeypatch, small_bundle)
    found.compilers = {"inductor": PlayedCompiler(), "tensorrt": PlayedCompiler()}
    found.seconds = {INDUCTOR: 0.5, TENSORRT: 0.7}
    return found


def is_right(chain: GpuChain, bundle: Bundle, samples: int) -> bool:
    boundaries = [boundary.tensors for boundary in bundle.manifest.boundaries]
    rng = np.random.default_rng(samples)
    values = rng.integers(0, 256, (samples, 24, 24, 3)).astype(np.uint8)
    answers = []
    for one in (chain, TorchChain(bundle, torch.device("cpu"))):
        runner = Runner(one, boundaries, chain.sizes if one is chain else ())
        state = runner.enter(0, [{boundaries[0][0].name: values}])
        for segment in range(len(one)):
            one.load(segment)
            state = runner.step(segment, state, samples)
        answers.append(runner.answers(state, [samples])[0][boundaries[-1][0].name])
    return np.allclose(*answers, atol=1e-5)


def test_one_that_makes_it_faster_is_chosen_and_captured(gpu: PlayedGpu) -> None:
    chain = gpu.chosen("fp32", LONG_S)
    assert chain.form == INDUCTOR
    assert chain.sizes == (1, 2)
    assert "trying inductor and tensorrt, 60 min at most" in gpu.said[0]
    assert any("inductor takes 500 ms" in line for line in gpu.said)
    compiler = gpu.compilers["inductor"]
    before = compiler.calls
    assert before
    assert all(is_right(chain, gpu.bundle, samples) for samples in (1, 2, 5))
    assert compiler.calls == before, "a frame is no reason to compile"
    assert not gpu.cuda.races


def test_in_the_form_that_is_fastest_without_one(gpu: PlayedGpu) -> None:
    fast = Form("fp16", channels_last=True)
    compiled = Form("fp16", channels_last=True, compiler="tensorrt")
    gpu.seconds = {fast: 0.5, compiled: 0.4}
    assert gpu.chosen("fp16", LONG_S).form == compiled
    gpu.seconds[compiled] = 0.6
    assert gpu.chosen("fp16", LONG_S).form == fast


def test_nothing_is_compiled_where_that_was_not_asked_for(gpu: PlayedGpu, tmp_path: Path) -> None:
    model = gpu.load(tmp_path, precision="fp32")
    assert form_in_use(model) == PLAIN
    assert not any(compiler.compiled for compiler in gpu.compilers.values())
    assert not any("trying" in line for line in gpu.said)


@pytest.mark.parametrize("wrong_for", [1, 2])
def test_one_that_is_wrong_is_left_out(gpu: PlayedGpu, wrong_for: int) -> None:
    """By more than float32 may be off, though by less than a smaller format may."""
    gpu.compilers["inductor"].factor = lambda samples: 1 + 1.5e-3 * (samples == wrong_for)
    chain = gpu.chosen("fp32", LONG_S)
    assert chain.form == TENSORRT
    (line,) = [line for line in gpu.said if "left out" in line]
    assert f"inductor is left out: NotCompiled: segment 0, {wrong_for} samples" in line
    assert "its replay is wrong" in line
    gpu.compilers["inductor"].factor = lambda samples: 1 + 1.5e-3
    gpu.seconds = {Form("tf32", compiler="inductor"): 0.5}
    assert gpu.chosen("tf32", LONG_S).form.compiler == "inductor"


def test_errors_of_segments_are_not_to_add_up(gpu: PlayedGpu) -> None:
    """Each is within a format's tolerance, and what comes out at the end is not."""
    gpu.compilers["inductor"].factor = lambda samples: 1 + 8e-3
    gpu.seconds = {Form("tf32", compiler="inductor"): 0.5}
    assert gpu.chosen("tf32", LONG_S).form == Form("tf32")
    assert any("inductor is left out: NotCompiled: off by" in line for line in gpu.said)


def test_one_that_raises_is_left_out(gpu: PlayedGpu) -> None:
    def fails() -> None:
        raise RuntimeError("no C compiler\nwas found")

    gpu.compilers["inductor"].meanwhile = fails
    assert gpu.chosen("fp32", LONG_S).form == TENSORRT
    assert any("inductor is left out: RuntimeError: no C compiler was found" in s for s in gpu.said)


def test_one_that_wants_more_memory_than_there_is_costs_nothing_else(gpu: PlayedGpu) -> None:
    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    gpu.compilers["inductor"].meanwhile = full
    chain = gpu.chosen("fp32", LONG_S)
    assert chain.form == TENSORRT
    assert chain.sizes == (1, 2)


def test_what_cannot_be_captured_is_left_out(gpu: PlayedGpu) -> None:
    """As an engine that waits for the device, which TensorRT does for a graph that it has split."""
    compiler = gpu.compilers["inductor"]

    def waits(samples: int) -> float:
        is_captured = compiler.calls == 4  # three calls warm up
        return torch.ones(1).mean().item() if is_captured else 1.0

    compiler.factor = waits
    assert gpu.chosen("fp32", LONG_S).form == TENSORRT
    assert any("inductor" in line and "cannot be captured" in line for line in gpu.said)


def test_at_the_limit_it_stops_between_two_segments(gpu: PlayedGpu) -> None:
    gpu.compilers["inductor"].meanwhile = lambda: time.sleep(3.0)
    chain = gpu.chosen("fp32", 2.0)
    assert chain.form == PLAIN
    assert chain.sizes == (1, 2)
    assert gpu.compilers["inductor"].compiled == ["0 for 2"]
    assert not gpu.compilers["tensorrt"].compiled
    for name in gpu.compilers:
        assert any(f"{name} is left out" in line and "min for" in line for line in gpu.said)


def test_what_was_found_is_kept_and_no_other_is_tried_again(gpu: PlayedGpu, tmp_path: Path) -> None:
    start: dict[str, Any] = {"precision": "fp32", "tune_minutes": 60.0}
    assert form_in_use(gpu.load(tmp_path, **start)) == INDUCTOR
    sizes = {line.rpartition(" ")[2] for line in gpu.compilers["tensorrt"].compiled}
    assert sizes == {"1", "2", "4"}, "a kernel may fit the size alone that it was tuned with"
    gpu.compilers = {name: PlayedCompiler() for name in gpu.compilers}
    gpu.tried.clear()
    gpu.said.clear()
    assert form_in_use(gpu.load(tmp_path, **start)) == INDUCTOR
    segments = range(len(gpu.bundle.manifest.segments))
    everything = [f"{index} for {size}" for size in (4, 2, 1) for index in segments]
    assert gpu.compilers["inductor"].compiled == everything
    assert not gpu.compilers["tensorrt"].compiled
    assert not gpu.tried
    assert not any("trying" in line for line in gpu.said)
    assert any("as measured before" in line for line in gpu.said)
    assert form_in_use(gpu.load(tmp_path, precision="fp32")) == PLAIN, "it was not asked for"


def test_with_another_compiler_there_all_are_tried(gpu: PlayedGpu, tmp_path: Path) -> None:
    start: dict[str, Any] = {"precision": "fp32", "tune_minutes": 60.0}
    both = gpu.compilers
    gpu.compilers = {"tensorrt": both["tensorrt"]}
    assert form_in_use(gpu.load(tmp_path, **start)) == TENSORRT
    gpu.compilers = both
    assert form_in_use(gpu.load(tmp_path, **start)) == INDUCTOR


def test_with_more_time_they_are_tried_again(gpu: PlayedGpu, tmp_path: Path) -> None:
    gpu.compilers["inductor"].meanwhile = lambda: time.sleep(1.0)
    assert form_in_use(gpu.load(tmp_path, precision="fp32", tune_minutes=0.01)) == PLAIN
    gpu.compilers["inductor"].meanwhile = lambda: None
    assert form_in_use(gpu.load(tmp_path, precision="fp32", tune_minutes=60.0)) == INDUCTOR


def test_one_that_fails_at_a_later_start_costs_a_line_and_new_times(
    gpu: PlayedGpu, tmp_path: Path
) -> None:
    start: dict[str, Any] = {"precision": "fp32", "tune_minutes": 60.0}
    gpu.load(tmp_path, **start)

    def fails() -> None:
        raise OSError("no space left on device")

    gpu.compilers["inductor"] = PlayedCompiler()
    gpu.compilers["inductor"].meanwhile = fails
    gpu.said.clear()
    model = gpu.load(tmp_path, **start)
    assert form_in_use(model) == PLAIN
    assert model.runner.sizes == (1, 2, 4)
    assert any("inductor is left out: OSError: no space" in line for line in gpu.said)
    assert any("measuring what segments" in line for line in gpu.said)
    assert not any("as measured before" in line for line in gpu.said)
    gpu.said.clear()
    assert form_in_use(gpu.load(tmp_path, **start)) == PLAIN
    assert any("as measured before" in line for line in gpu.said)


def test_a_worker_that_stops_meanwhile_leaves_nothing_behind(
    gpu: PlayedGpu, tmp_path: Path
) -> None:
    def check() -> None:
        if gpu.compilers["inductor"].compiled:
            raise Interrupted("the worker stops")

    gpu.check = check
    with pytest.raises(Interrupted):
        gpu.load(tmp_path, precision="fp32", tune_minutes=60.0)
    assert gpu.compilers["inductor"].compiled == ["0 for 4"]
    assert not list(tmp_path.iterdir())
    assert not gpu.cuda.captures


def test_a_device_that_is_lost_meanwhile_is_no_matter_of_the_compiler(
    gpu: PlayedGpu, tmp_path: Path
) -> None:
    def loses() -> None:
        raise accelerator_error(*ILLEGAL_ADDRESS)

    gpu.compilers["inductor"].meanwhile = loses
    with pytest.raises(ServeError, match="cuda:0 failed while small was loaded"):
        gpu.load(tmp_path, precision="fp32", tune_minutes=60.0)


def test_that_none_is_there_is_said(gpu: PlayedGpu, tmp_path: Path) -> None:
    gpu.compilers = {}
    assert form_in_use(gpu.load(tmp_path, precision="fp32", tune_minutes=1.0)) == PLAIN
    assert any("no compiler is here" in line for line in gpu.said)


@pytest.mark.parametrize("minutes", [-1.0, float("nan"), float("inf")])
def test_no_such_time(minutes: float) -> None:
    with pytest.raises(ServeError, match="minutes to try compilers"):
        WorkerOptions(tune_minutes=minutes)


async def test_a_cpu_has_none(small_bundle: Bundle) -> None:
    with pytest.raises(ServeError, match="on a GPU only") as caught:
        async with local_worker(small_bundle, tune_minutes=5.0):
            pass
    assert "--tune-minutes" in str(caught.value.remedy)


async def test_beside_frames_none_is_tried(
    small_bundle: Bundle, newer_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, given = session.load_served_model, []

    def noted(folder: Path, device: object, options: WorkerOptions, **named: Any) -> LoadedModel:
        given.append(options.tune_minutes)
        return load(folder, device, options, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(session, "load_served_model", noted)
    monkeypatch.setattr(session, "check_tuning", lambda minutes, device: None)
    monkeypatch.setattr(bundle_watch, "EVERY_S", 0.02)
    (tmp_path / "models").mkdir()
    async with local_worker(
        small_bundle, watch=tmp_path / "models", times=tmp_path / "times", tune_minutes=5.0
    ) as worker:
        shutil.copytree(newer_bundle.folder, tmp_path / "models" / "newer.split")
        await until(lambda: newer_bundle.digest in worker.models)
    assert given == [5.0, 0.0]


@pytest.mark.parametrize("triton", [False, True])
@pytest.mark.parametrize("tensorrt", [False, True])
def test_which_are_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, triton: bool, tensorrt: bool
) -> None:
    providers = ["TensorrtExecutionProvider"] * tensorrt + ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(here, "find_spec", lambda name: name if triton else None)
    found = here.compilers_here(tmp_path, 8)
    assert list(found) == ["inductor"] * triton + ["tensorrt"] * tensorrt
