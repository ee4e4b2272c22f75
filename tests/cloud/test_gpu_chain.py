"""Segments on a GPU, which is played here: what is captured, replayed, and what is not.

Longer than others: CUDA's rules for graphs are many, and each is one way to be wrong.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from splitpoint.cloud.compute.choose_form import capture_sizes
from splitpoint.cloud.compute.gpu_chain import GpuChain
from splitpoint.cloud.compute.runner import Runner
from splitpoint.cloud.gpu.device_errors import is_out_of_memory
from splitpoint.cloud.gpu.gpu import TorchGpu
from splitpoint.cloud.gpu.weight_form import Form
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.run import torch_chain
from splitpoint.partition.run.chain import State
from splitpoint.partition.run.torch_chain import TorchChain
from standin_cuda import ILLEGAL_ADDRESS, Event, StandInCuda, Stream

CPU = torch.device("cpu")
SIZES = (1, 2)


@pytest.fixture
def cuda() -> StandInCuda:
    return StandInCuda()


def photo(seed: int, samples: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (samples, 24, 24, 3)).astype(np.uint8)


def loaded(
    bundle: Bundle, cuda: StandInCuda, number: int = 0, said: list[str] | None = None
) -> GpuChain:
    chain = GpuChain(bundle, cuda.gpu(number))
    capture_sizes(bundle, chain, SIZES, ([] if said is None else said).append, lambda: None)
    return chain


def outputs(chain: TorchChain, bundle: Bundle, values: np.ndarray) -> np.ndarray:
    boundaries = [boundary.tensors for boundary in bundle.manifest.boundaries]
    runner = Runner(chain, boundaries, chain.sizes if isinstance(chain, GpuChain) else ())
    state = runner.enter(0, [{boundaries[0][0].name: values}])
    for segment in range(len(chain)):
        chain.load(segment)
        state = runner.step(segment, state, len(values))
    return runner.answers(state, [len(values)])[0][boundaries[-1][0].name]


def expected(bundle: Bundle, values: np.ndarray) -> np.ndarray:
    return outputs(TorchChain(bundle, CPU), bundle, values)


def is_right(chain: GpuChain, bundle: Bundle, seed: int, samples: int = 1) -> bool:
    values = photo(seed, samples)
    return np.allclose(outputs(chain, bundle, values), expected(bundle, values), atol=1e-5)


def test_every_gpu_gives_each_frame_its_own_answer(cuda: StandInCuda, small_bundle: Bundle) -> None:
    """On the second one, a graph that was captured on the first one's stream holds nothing."""
    for number in (0, 1):
        chain = loaded(small_bundle, cuda, number)
        before = len(cuda.calls)
        assert all(is_right(chain, small_bundle, seed) for seed in range(3))
        did = [what for _, what in cuda.calls[before:]]
        assert did.count("replay") == 3 * len(chain)
        assert "capture" not in did
    assert not cuda.races


def test_weights_are_loaded_where_they_are_used(
    cuda: StandInCuda, small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy on torch's default stream may not be there yet when a kernel on another one reads."""
    load, seen = torch_chain.load_segment, []

    def noted(*args: Any) -> Any:
        seen.append(cuda.current_stream())
        return load(*args)

    monkeypatch.setattr(torch_chain, "load_segment", noted)
    chain = loaded(small_bundle, cuda)
    assert len(seen) == len(chain)
    assert set(seen) == {graph.stream for graph in cuda.graphs}


def test_memory_of_the_warm_up_is_given_back_before_each_capture(
    cuda: StandInCuda, small_bundle: Bundle
) -> None:
    """A graph gets memory of its own, and torch frees nothing for it while it captures."""
    loaded(small_bundle, cuda)
    did = [what for _, what in cuda.calls if what in ("capture", "empty_cache")]
    assert did == ["empty_cache", "capture"] * len(cuda.graphs)


def test_a_size_that_was_not_captured_is_padded_or_runs_without_a_graph(
    cuda: StandInCuda, small_bundle: Bundle
) -> None:
    chain = loaded(small_bundle, cuda)
    captures = len(cuda.graphs)
    assert chain.sizes == SIZES
    assert is_right(chain, small_bundle, 1, samples=3)
    assert is_right(chain, small_bundle, 2, samples=2)
    assert len(cuda.graphs) == captures == len(SIZES) * len(chain)
    assert not cuda.races


def test_what_one_batch_got_is_its_own_when_the_next_one_runs(
    cuda: StandInCuda, small_bundle: Bundle
) -> None:
    """Batches take turns between their segments, and share graphs and their memory."""
    chain = loaded(small_bundle, cuda)
    name = small_bundle.manifest.boundaries[0].tensors[0].name
    last = small_bundle.manifest.boundaries[-1].tensors[0].name
    states = [chain.place({name: photo(seed)}) for seed in (1, 2)]
    for segment in range(len(chain)):
        states = [state | chain.step(segment, state) for state in states]
    for seed, state in zip((1, 2), states, strict=True):
        assert np.allclose(chain.fetch(state[last]), expected(small_bundle, photo(seed)), atol=1e-5)


def test_other_threads_may_allocate_while_a_graph_is_captured(
    cuda: StandInCuda, small_bundle: Bundle
) -> None:
    failed: list[BaseException] = []

    def beside() -> None:
        try:
            cuda.gpu(1).pinned(np.zeros(4))
        except RuntimeError as error:
            failed.append(error)

    cuda.on_capture = lambda: in_a_thread(beside)
    chain = loaded(small_bundle, cuda)
    assert not failed
    assert chain.sizes == SIZES
    assert is_right(chain, small_bundle, 1)


def test_captures_and_the_giving_back_of_memory_wait_for_each_other(
    cuda: StandInCuda, small_bundle: Bundle
) -> None:
    """As when the model of a watched folder goes while another GPU's engine loads one."""
    first, second = GpuChain(small_bundle, cuda.gpu(0)), GpuChain(small_bundle, cuda.gpu(1))
    began, failed = threading.Event(), []

    def beside() -> None:
        try:
            began.set()
            second.free_unused()
            capture_sizes(small_bundle, second, (1,), lambda line: None, lambda: None)
        except RuntimeError as error:
            failed.append(error)

    thread = threading.Thread(target=beside)

    def start_once() -> None:
        if not began.is_set():
            thread.start()
            began.wait(60)

    cuda.on_capture = start_once
    capture_sizes(small_bundle, first, SIZES, lambda line: None, lambda: None)
    thread.join(60)
    assert not failed
    assert first.sizes == SIZES
    assert second.sizes == (1,)
    assert is_right(first, small_bundle, 1)
    assert is_right(second, small_bundle, 2)


def test_nothing_is_collected_while_a_graph_is_captured(
    cuda: StandInCuda, small_bundle: Bundle
) -> None:
    """Another graph may be among it, whose end breaks the capture."""
    seen: list[bool] = []
    cuda.on_capture = lambda: seen.append(gc.isenabled())
    loaded(small_bundle, cuda)
    assert set(seen) == {False}
    assert gc.isenabled()


def test_a_segment_that_waits_for_the_device_runs_without_a_graph(
    cuda: StandInCuda, small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = TorchChain.forward

    def waits(self: TorchChain, index: int, state: State) -> State:
        found = forward(self, index, state)
        if index == 1:
            next(iter(found.values())).sum().item()
        return found

    monkeypatch.setattr(TorchChain, "forward", waits)
    said: list[str] = []
    chain = loaded(small_bundle, cuda, said=said)
    assert [line.split(":")[0] for line in said] == ["segment 1, 2 samples", "segment 1, 1 samples"]
    assert all("cannot be captured" in line for line in said)
    assert all("operation by operation" in line for line in said)
    assert not cuda.underway
    before = len(cuda.calls)
    assert is_right(chain, small_bundle, 1)
    assert [what for _, what in cuda.calls[before:]].count("replay") == len(chain) - 1


def test_outputs_that_are_inputs_or_expanded_are_captured_too(
    cuda: StandInCuda, small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay does not write its inputs, and nothing can write to elements that share memory."""
    forward = TorchChain.forward

    def odd(self: TorchChain, index: int, state: State) -> State:
        found = forward(self, index, state)
        name, value = next(iter(found.items()))
        if index == 1:
            found[name] = value.mean(1, keepdim=True).expand_as(value)
        elif index == len(self) - 1:
            found["same"] = next(iter(state.values()))
        return found

    monkeypatch.setattr(TorchChain, "forward", odd)
    said: list[str] = []
    chain = loaded(small_bundle, cuda, said=said)
    assert not said
    assert chain.sizes == SIZES
    assert is_right(chain, small_bundle, 1)


def test_a_thread_is_on_its_own_stream_again_after_a_capture_that_failed(
    cuda: StandInCuda, small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: TorchChain, index: int, state: State) -> State:
        if cuda.captures:
            cuda.captures[0].is_broken = True
            raise ValueError("a fault of its own")
        return forward(self, index, state)

    forward = TorchChain.forward
    monkeypatch.setattr(TorchChain, "forward", fails)
    before, said = cuda.current_stream(), []
    loaded(small_bundle, cuda, said=said)
    assert cuda.current_stream() is before
    assert not cuda.captures
    assert all("a fault of its own" in line for line in said)


@pytest.mark.parametrize("wrong", ["empty", "stale"])
def test_a_graph_that_computes_something_else_is_not_used(
    cuda: StandInCuda, small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """It holds nothing, or reads other memory than it is given frames in."""
    begin = type(cuda.new_graph()).capture_begin

    def elsewhere(self: object, *args: object, **named: object) -> None:
        begin(self, *args, **named)  # type: ignore[arg-type]
        self.stream.capturing = None  # type: ignore[attr-defined]

    forward, kept = TorchChain.forward, []

    def remembers(self: TorchChain, index: int, state: State) -> State:
        if cuda.captures:
            state = {name: torch.from_numpy(value.numpy().copy()) for name, value in state.items()}
            kept.append(state)
        return forward(self, index, state)

    if wrong == "empty":
        monkeypatch.setattr(type(cuda.new_graph()), "capture_begin", elsewhere)
    else:
        monkeypatch.setattr(TorchChain, "forward", remembers)
    said: list[str] = []
    chain = loaded(small_bundle, cuda, said=said)
    assert chain.sizes == ()
    assert len(said) == len(SIZES) * len(chain)
    assert all("its replay is wrong" in line for line in said)
    assert is_right(chain, small_bundle, 1)


def test_sizes_without_memory_are_left_out(cuda: StandInCuda, small_bundle: Bundle) -> None:
    chain, said = GpuChain(small_bundle, cuda.gpu()), []
    cuda.most_bytes = 4 * 24 * 24 * 8 * 4
    capture_sizes(small_bundle, chain, (1, 2, 4, 64), said.append, lambda: None)
    assert 64 not in chain.sizes
    assert 1 in chain.sizes
    assert any("no memory to capture batches of 64" in line for line in said)
    assert is_right(chain, small_bundle, 1)


def test_want_of_memory_within_a_capture_is_told_as_what_it_is(
    cuda: StandInCuda, small_bundle: Bundle
) -> None:
    """The capture that it broke raises an error of its own."""
    cuda.on_capture = lambda: setattr(cuda, "most_bytes", 10)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        capture_sizes(small_bundle, GpuChain(small_bundle, cuda.gpu()), (1,), print, lambda: None)
    assert is_out_of_memory(caught.value)
    assert not cuda.captures


def test_a_device_that_fails_while_it_captures_is_no_matter_of_the_segment(
    cuda: StandInCuda, small_bundle: Bundle
) -> None:
    cuda.on_capture = lambda: setattr(cuda, "broken", ILLEGAL_ADDRESS)
    with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
        capture_sizes(small_bundle, GpuChain(small_bundle, cuda.gpu()), SIZES, print, lambda: None)


def test_another_form_has_memory_and_graphs_of_its_own(
    cuda: StandInCuda, small_bundle: Bundle
) -> None:
    chain = loaded(small_bundle, cuda)
    pools = {graph.pool for graph in cuda.graphs}
    assert len(pools) == 1
    count = len(cuda.graphs)
    chain.use(Form("bf16"))
    assert chain.sizes == ()
    capture_sizes(small_bundle, chain, SIZES, pytest.fail, lambda: None)
    assert pools.isdisjoint(graph.pool for graph in cuda.graphs[count:])
    values = photo(1)
    exact = expected(small_bundle, values)
    found = outputs(chain, small_bundle, values)
    assert 0 < np.abs(found - exact).max() <= 0.02 * np.abs(exact).max()


@pytest.mark.parametrize("ended", [False, True])
def test_torch_is_told_that_a_capture_is_over_whose_end_failed(
    monkeypatch: pytest.MonkeyPatch, *, ended: bool
) -> None:
    """From 2.13 on it knows, and says so."""
    asked: list[tuple[int, object]] = []

    def end(device: int, pool: object) -> None:
        asked.append((device, pool))
        if ended:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")

    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end, raising=False)
    TorchGpu(torch.device("cuda", 1)).end_allocating((0, 5))
    assert asked == [(1, (0, 5))]


@pytest.mark.parametrize("number", [0, 1])
def test_torch_is_asked_for_the_same(
    cuda: StandInCuda, small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The part that a GPU would have to run, with torch.cuda in the stand-in's hands."""
    played = {
        "device": cuda.device, "stream": cuda.stream, "CUDAGraph": cuda.new_graph,
        "Stream": lambda device: Stream(cuda, device), "Event": lambda blocking: Event(cuda),
        "graph_pool_handle": cuda.new_pool, "empty_cache": cuda.empty_cache,
    }  # fmt: skip
    for name, value in played.items():
        monkeypatch.setattr(torch.cuda, name, value)
    empty, weights = torch.empty, torch_chain.load_weights
    pinned, used = [], []

    def noted(*args: Any, pin_memory: bool = False, **named: Any) -> torch.Tensor:
        pinned.append(pin_memory)
        return empty(*args, **named)

    monkeypatch.setattr(torch, "empty", noted)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, of: used.append(of))
    monkeypatch.setattr(torch_chain, "load_weights", lambda *args: weights(*args[:2], CPU))
    chain = GpuChain(small_bundle, TorchGpu(torch.device("cpu", number)))
    capture_sizes(small_bundle, chain, SIZES, pytest.fail, lambda: None)
    chain.free_unused()
    for seed in range(2):
        assert is_right(chain, small_bundle, seed)
    assert set(pinned) == {True}
    assert len(pinned) == len(used)
    assert {stream.number for stream in used} == {number}
    assert {graph.stream for graph in cuda.graphs} == set(used)
    assert not cuda.races


def in_a_thread(function: Callable[[], None]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
