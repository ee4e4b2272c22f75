"""What `benchmarks/gpu_exactness.py` finds: on a GPU that is played, and on ones that are wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from splitpoint.cloud.compute.gpu_chain import GpuChain
from splitpoint.codec import Array
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.partition.run.chain import State
from standin_cuda import ILLEGAL_ADDRESS, StandInCuda, accelerator_error

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from device_check import FORMS, Found, Truth, on_device, on_gpu, truths_of
from zoo_subject import Given

FP32_FORMS = ["fp32", "fp32, channels last"]


@pytest.fixture(scope="module")
def truths(small: ModelSpec, small_bundle: Bundle) -> list[Truth]:
    return truths_of(small_bundle, Given(small))


def chain_of(bundle: Bundle, kind: type[GpuChain] = GpuChain) -> GpuChain:
    return kind(bundle, StandInCuda().gpu())


def test_each_form_with_and_without_graphs_from_each_boundary(
    small_bundle: Bundle, truths: list[Truth]
) -> None:
    found = {one.form: one for one in on_gpu(small_bundle, truths, chain_of(small_bundle), FORMS)}
    assert list(found) == ["fp32", "tf32", "bf16", "fp16", "fp32, channels last"]
    segments = len(small_bundle.manifest.segments)
    for one in found.values():
        assert len(one.eager) == len(one.graphs) == segments, one
        assert not one.not_captured
        assert one.verdict in ("yes", "left out")
    assert [found[form].verdict for form in FP32_FORMS] == ["yes", "yes"]
    assert max(found["bf16"].eager) > 1e-4 > max(found["fp32"].eager)


def test_on_a_cpu_both_runtimes(small_bundle: Bundle, truths: list[Truth]) -> None:
    found = on_device(small_bundle, truths, torch.device("cpu"))
    assert [(one.form, one.verdict) for one in found] == [
        ("fp32, torch", "yes"), ("fp32, onnxruntime", "yes"),
    ]  # fmt: skip


class WrongGraphs(GpuChain):
    """Answers twice what it should, once it replays graphs."""

    def fetch(self, value: torch.Tensor) -> Array:
        return super().fetch(value) * (2 if self.sizes else 1)


def test_graphs_that_answer_otherwise(small_bundle: Bundle, truths: list[Truth]) -> None:
    found = on_gpu(small_bundle, truths, chain_of(small_bundle, WrongGraphs), FORMS)
    assert {one.verdict for one in found} == {"NO"}
    assert all(max(one.graphs) > 0.5 > max(one.eager) for one in found)


class NoBf16(GpuChain):
    """A device whose libraries have no kernel for it."""

    def step(self, index: int, state: State) -> State:
        if self.form.precision == "bf16":
            raise RuntimeError("no kernel image\nis available")
        return super().step(index, state)


def test_a_format_that_fails_is_left_out_and_said(
    small_bundle: Bundle, truths: list[Truth]
) -> None:
    chain = chain_of(small_bundle, NoBf16)
    found = {one.form: one for one in on_gpu(small_bundle, truths, chain, FORMS)}
    assert found["bf16"].verdict == "left out"
    assert found["bf16"].failed == "RuntimeError: no kernel image is available"
    assert found["fp16"].eager


class Lost(GpuChain):
    """Fails for good."""

    def step(self, index: int, state: State) -> State:
        raise accelerator_error(*ILLEGAL_ADDRESS)


def test_a_lost_device_ends_it(small_bundle: Bundle, truths: list[Truth]) -> None:
    with pytest.raises(torch.AcceleratorError):
        on_gpu(small_bundle, truths, chain_of(small_bundle, Lost), FORMS)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (Found(form="fp32", is_exact=True, eager=[1e-3], graphs=[1e-3]), "yes"),
        (Found(form="fp32", is_exact=True, eager=[0.0, 1.1e-3]), "NO"),
        (Found(form="fp32", is_exact=True, eager=[0.0], graphs=[np.inf]), "NO"),
        (Found(form="fp32", is_exact=True, failed="no"), "NO"),
        (Found(form="fp16", eager=[0.01], graphs=[0.02]), "yes"),
        (Found(form="fp16", eager=[0.005], graphs=[0.016]), "NO"),
        (Found(form="fp16", eager=[0.001, 0.011], graphs=[0.5]), "left out"),
        (Found(form="fp16", failed="no"), "left out"),
    ],
)
def test_verdicts(found: Found, verdict: str) -> None:
    assert found.verdict == verdict
