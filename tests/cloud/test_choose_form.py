"""Formats and layouts of a GPU, which is played here: what is measured, judged, chosen and kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from played_gpu import PlayedGpu, form_in_use
from splitpoint.cloud.compute.choose_form import form_and_capture
from splitpoint.cloud.compute.gpu_chain import GpuChain
from splitpoint.cloud.errors import Interrupted, ServeError
from splitpoint.cloud.gpu.weight_form import Form, has_convolutions, put_weights
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.run import torch_chain
from splitpoint.partition.run.chain import State
from splitpoint.partition.run.torch_chain import TorchChain
from standin_cuda import ILLEGAL_ADDRESS, StandInCuda
from torch.fx import Graph, GraphModule

aten = torch.ops.aten
Step = Callable[[GpuChain, int, State], State]


def module_of(build: Callable[[Graph], object], **weights: torch.Tensor) -> GraphModule:
    root, graph = torch.nn.Module(), Graph()
    for name, value in weights.items():
        root.register_buffer(name, value)
    graph.output((build(graph),))
    return GraphModule(root, graph)


def masked_convolutions(graph: Graph) -> object:
    """As in Swin: convolutions, and masks of four and five dimensions in buffers."""
    x = graph.placeholder("x")
    call = graph.call_function
    y = call(aten.conv2d.default, (x, graph.get_attr("kernel"), graph.get_attr("bias")))
    y = call(aten.add.Tensor, (y, graph.get_attr("mask4")))
    z = call(aten.add.Tensor, (call(aten.unsqueeze.default, (y, 2)), graph.get_attr("mask5")))
    return call(aten.conv3d.default, (z, graph.get_attr("kernel3d")))


def test_channels_are_last_in_kernels_of_2d_convolutions_alone() -> None:
    torch.manual_seed(0)
    module = module_of(
        masked_convolutions,
        kernel=torch.rand(4, 3, 3, 3), bias=torch.rand(4), mask4=torch.rand(1, 4, 6, 6),
        mask5=torch.rand(1, 4, 1, 6, 6), kernel3d=torch.rand(2, 4, 1, 3, 3),
    )  # fmt: skip
    x = torch.rand(2, 3, 8, 8)
    expected = module(x)[0]
    assert has_convolutions(module)
    put_weights(module, Form(channels_last=True))
    last = torch.channels_last
    assert module.kernel.is_contiguous(memory_format=last)
    assert module.mask4.is_contiguous()
    assert not module.mask4.is_contiguous(memory_format=last)
    assert module.mask5.is_contiguous()
    assert module.kernel3d.is_contiguous()
    torch.testing.assert_close(module(x)[0], expected)


def products_and_sums(graph: Graph) -> object:
    x, ids = graph.placeholder("x"), graph.placeholder("ids")
    call = graph.call_function
    turned = call(aten.t.default, (graph.get_attr("turned"),))
    y = call(aten.addmm.default, (graph.get_attr("bias"), x, turned))
    y = call(aten.mm.default, (y, graph.get_attr("tied")))
    y = call(aten.layer_norm.default, (y, [6], graph.get_attr("norm"), graph.get_attr("shift")))
    z = call(aten.embedding.default, (graph.get_attr("table"), ids))
    return call(aten.add.Tensor, (call(aten.add.Tensor, (y, z)), graph.get_attr("tied")))


def test_what_only_products_read_has_the_smaller_format_and_no_run_casts_it() -> None:
    torch.manual_seed(0)
    weights = {
        "turned": torch.rand(6, 6), "bias": torch.rand(6), "tied": torch.rand(6, 6),
        "norm": torch.rand(6), "shift": torch.rand(6), "table": torch.rand(9, 6),
    }  # fmt: skip
    module = module_of(products_and_sums, **weights)
    assert not has_convolutions(module)
    put_weights(module, Form("bf16"))
    smaller = {name for name, value in module.named_buffers() if value.dtype == torch.bfloat16}
    assert smaller == {"turned", "bias"}
    again = dict(module.named_buffers())
    put_weights(module, Form("bf16"))
    assert all(again[name] is value for name, value in module.named_buffers())


def test_a_replay_casts_what_comes_in_and_no_weight(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda, modules, load = StandInCuda(), [], torch_chain.load_segment

    def noted(*args: Any) -> Any:
        found = load(*args)
        modules.append(found[2])
        return found

    monkeypatch.setattr(torch_chain, "load_segment", noted)
    chain = GpuChain(small_bundle, cuda.gpu())
    form_and_capture(
        small_bundle, chain, precision="bf16", form=Form("bf16"), max_batch=1,
        tell=pytest.fail, check=lambda: None,
    )  # fmt: skip
    weights = {
        value.untyped_storage().data_ptr() for module in modules for value in module.buffers()
    }
    casts = Counter(
        args[0]().untyped_storage().data_ptr() in weights
        for graph in cuda.graphs
        for function, args, _, made in graph.operations
        if function._schema.name in ("aten::to", "aten::_to_copy")
        and callable(args[0])  # what was not made within the graph
        and made[0].dtype != args[0]().dtype
    )
    assert casts[True] == 0
    assert casts[False] > 0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, small_bundle: Bundle) -> PlayedGpu:
    return PlayedGpu(monkeypatch, small_bundle)


def test_channels_are_last_only_where_that_is_faster(machine: PlayedGpu) -> None:
    assert machine.chosen("fp32").form == Form("fp32")
    machine.seconds = {Form("fp32", channels_last=True): 0.5}
    chain = machine.chosen("fp32")
    assert chain.form == Form("fp32", channels_last=True)
    assert chain.sizes == (1, 2)


def test_the_fastest_format_that_is_close_from_every_boundary(machine: PlayedGpu) -> None:
    fast = Form("bf16", channels_last=True)
    machine.seconds = {fast: 0.1, Form("tf32"): 0.5}
    chain = machine.chosen()
    within = "precision bf16" in machine.said[0]
    assert chain.form == (fast if within else Form("tf32"))
    assert len(machine.tried) == 8
    assert "from any boundary" in machine.said[0]
    assert not machine.cuda.races


def test_a_format_is_judged_where_frames_enter(
    machine: PlayedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in the first segment shows from the input alone, one in the last from anywhere."""
    forward = TorchChain.forward

    def coarse(self: GpuChain, index: int, state: State) -> State:
        found = forward(self, index, state)
        if self.form.precision == "tf32" and index == len(self) - 1:
            found = {name: 1.05 * value for name, value in found.items()}
        return found

    monkeypatch.setattr(TorchChain, "forward", coarse)
    machine.seconds = {Form("tf32"): 0.1}
    assert machine.chosen().form.precision != "tf32"


def test_a_format_whose_operation_is_missing_is_left_out(
    machine: PlayedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = TorchChain.forward

    def missing(self: GpuChain, index: int, state: State) -> State:
        if self.form.precision == "fp16":
            raise NotImplementedError("no kernel for 'Half'")
        return forward(self, index, state)

    monkeypatch.setattr(TorchChain, "forward", missing)
    machine.seconds = {Form("fp16"): 0.01, Form("tf32"): 0.5}
    assert machine.chosen().form == Form("tf32")
    assert "fp16 is left out: NotImplementedError" in machine.said[0]


def test_a_worker_that_stops_is_not_kept_by_trials(machine: PlayedGpu) -> None:
    def check() -> None:
        if machine.tried:
            raise Interrupted("the worker stops")

    with pytest.raises(Interrupted):
        form_and_capture(
            machine.bundle, GpuChain(machine.bundle, machine.cuda.gpu()), precision="auto",
            max_batch=2, tell=machine.said.append, check=check,
        )  # fmt: skip


# The whole of loading, on a device that is no CPU. -------------------------------------------


def test_a_model_is_loaded_captured_and_timed_and_nothing_is_captured_later(
    machine: PlayedGpu, tmp_path: Path
) -> None:
    machine.seconds = {Form("tf32", channels_last=True): 0.1}
    machine.cuda.launch_s = 1e-4
    served = machine.load(tmp_path)
    assert served.runner.sizes == (1, 2, 4)
    assert form_in_use(served) == Form("tf32", channels_last=True)
    assert all(ms >= 0.1 for ms in served.times.segment_ms), "as the device takes, not launching"
    tried, machine.tried = machine.tried, []
    again = machine.load(tmp_path)
    assert tried
    assert not machine.tried
    assert form_in_use(again) == form_in_use(served)
    assert not machine.cuda.races


def test_batches_end_where_memory_does(machine: PlayedGpu, tmp_path: Path) -> None:
    largest = max(
        int(np.prod(spec.shape)) * 4
        for boundary in machine.bundle.manifest.boundaries
        for spec in boundary.tensors
    )
    machine.cuda.most_bytes = 3 * largest
    served = machine.load(tmp_path, precision="fp32")
    assert served.runner.sizes == (1, 2)
    assert served.batch_times.max_batch == 2


def test_a_model_that_does_not_fit_is_refused_in_those_words(
    machine: PlayedGpu, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(torch_chain, "load_weights", full)
    with pytest.raises(ServeError, match="does not fit into the memory of cuda:0"):
        machine.load(tmp_path, precision="fp32")


def test_a_device_that_fails_while_a_model_is_loaded_is_said(
    machine: PlayedGpu, tmp_path: Path
) -> None:
    machine.cuda.on_capture = lambda: setattr(machine.cuda, "broken", ILLEGAL_ADDRESS)
    with pytest.raises(ServeError, match="cuda:0 failed while small was loaded") as caught:
        machine.load(tmp_path)
    assert "start the worker again" in str(caught.value.remedy)
