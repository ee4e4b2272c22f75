"""A worker's GPU on which forms take as long as a test says; see `standin_cuda`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from splitpoint.cloud.compute import choose_chain, choose_form
from splitpoint.cloud.compute import load as load_model
from splitpoint.cloud.compute.choose_form import form_and_capture
from splitpoint.cloud.compute.gpu_chain import GpuChain
from splitpoint.cloud.compute.kept_times import TimingConditions
from splitpoint.cloud.compute.load import load_served_model
from splitpoint.cloud.compute.loaded_model import LoadedModel
from splitpoint.cloud.gpu.compiler import Compiled, SegmentSource
from splitpoint.cloud.gpu.weight_form import Form
from splitpoint.cloud.options import WorkerOptions
from splitpoint.partition.bundle.bundle import Bundle
from standin_cuda import StandInCuda


class Device:
    """What `torch.device` says of a GPU, for which tensors lie on the CPU all the same."""

    type, index = "cuda", 0

    def __str__(self) -> str:
        return "cuda:0"


class PlayedCompiler:
    """Makes of a segment what it is, unless a test says otherwise."""

    def __init__(self) -> None:
        self.compiled: list[str] = []  # each segment, and for how many samples, once
        self.calls = 0
        self.factor: Callable[[int], float] = lambda samples: 1.0  # of its outputs
        self.meanwhile: Callable[[], None] = lambda: None  # while it compiles

    def __call__(self, source: SegmentSource) -> Compiled:
        seen: set[int] = set()

        def run(*values: torch.Tensor) -> Sequence[torch.Tensor]:
            self.calls += 1
            samples = source.samples(values[0])
            if samples not in seen:
                seen.add(samples)
                self.compiled.append(f"{source.name.rpartition('-')[2]} for {samples}")
                self.meanwhile()
            factor = self.factor(samples)
            return [value * factor for value in source.module.forward(*values)]

        return run


class PlayedGpu:
    """`seconds` are those of a form's trial; `tried` are the forms that had one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> None:
        self.cuda, self.bundle = StandInCuda(), bundle
        self.said: list[str] = []
        self.seconds: dict[Form, float] = {}
        self.tried: list[Form] = []
        self.compilers: dict[str, PlayedCompiler] = {}
        self.check: Callable[[], None] = lambda: None
        conditions = load_model.conditions_here

        def conditions_here(bundle: Bundle, device: object, **named: Any) -> TimingConditions:
            return conditions(bundle, torch.device("cpu"), **named)

        def trial_s(bundle: Bundle, chain: GpuChain, batch: int, check: object) -> float:
            self.tried.append(chain.form)
            return self.seconds.get(chain.form, 1.0)

        for module, name, played in (
            (choose_form, "trial_s", trial_s),
            (choose_chain, "TorchGpu", lambda device: self.cuda.gpu()),
            (load_model, "compilers_here", lambda folder, most_samples: self.compilers),
            (load_model, "conditions_here", conditions_here),
            (torch.cuda, "mem_get_info", lambda device: (1 << 40, 1 << 40)),
            (torch.cuda, "memory_reserved", lambda device: 0),
            (torch.cuda, "memory_allocated", lambda device: 0),
        ):  # fmt: skip
            monkeypatch.setattr(module, name, played)

    def chosen(self, precision: str = "auto", tune_s: float = 0.0) -> GpuChain:
        """A chain in the form that was found for it."""
        chain = GpuChain(self.bundle, self.cuda.gpu(), self.compilers)
        form_and_capture(
            self.bundle, chain, precision=precision, max_batch=2, tune_s=tune_s,
            tell=self.said.append, check=self.check,
        )  # fmt: skip
        return chain

    def load(self, times: Path, **options: object) -> LoadedModel:
        """The bundle's model, as a worker loads it."""
        return load_served_model(
            self.bundle.folder,
            Device(),  # type: ignore[arg-type]
            WorkerOptions(max_batch=4, times=times, **options),  # type: ignore[arg-type]
            profiles={},
            progress=self.said.append,
            check=self.check,
        )


def form_in_use(model: LoadedModel) -> Form:
    """What a loaded model computes in."""
    return model.runner.chain.form  # type: ignore[attr-defined, no-any-return]
