"""A worker that may take a share of a GPU, and a model that does not fit; torch.cuda is played."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from splitpoint.cloud.errors import ServeError
from splitpoint.cloud.gpu.memory import check_fits, keep_to_share, least_bytes
from splitpoint.cloud.options import WorkerOptions
from splitpoint.cloud.worker import Worker
from splitpoint.partition.bundle.bundle import Bundle

GPU = torch.device("cuda", 0)


class Memory:
    """Of each of two GPUs. What others use is neither free nor this process's."""

    def __init__(self, total: int, free: int, reserved: int = 0, allocated: int = 0) -> None:
        self.total, self.free, self.reserved, self.allocated = total, free, reserved, allocated
        self.shares: list[tuple[float, str]] = []

    def play(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, function in {
            "is_available": lambda: True,
            "device_count": lambda: 2,
            "get_device_name": lambda device: "NVIDIA L4",
            "get_device_properties": lambda device: SimpleNamespace(uuid="1"),
            "mem_get_info": lambda device: (self.free, self.total),
            "memory_reserved": lambda device: self.reserved,
            "memory_allocated": lambda device: self.allocated,
            "set_per_process_memory_fraction": lambda f, d: self.shares.append((f, str(d))),
        }.items():
            monkeypatch.setattr(torch.cuda, name, function)


def test_what_a_model_needs_is_its_weights_and_a_sample(small_bundle: Bundle) -> None:
    manifest = small_bundle.manifest
    weights = sum(small_bundle.path(s.weights).stat().st_size for s in manifest.segments)
    sizes = [boundary.nbytes for boundary in manifest.boundaries]
    needed = least_bytes(small_bundle)
    assert weights + max(sizes) < needed <= weights + 2 * max(sizes)


def test_a_model_fits_exactly_or_not(small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = least_bytes(small_bundle)
    for memory, fraction, fits in (
        (Memory(10 * needed, needed), 1.0, True),
        (Memory(10 * needed, needed - 1), 1.0, False),  # others have the rest
        (Memory(10 * needed, 10 * needed), 0.1, True),
        (Memory(10 * needed, 10 * needed), 0.09, False),
        # Half of what torch keeps lies free, and the share is used up but for that.
        (Memory(10 * needed, 5 * needed, 2 * needed, needed), 0.2, True),
        (Memory(10 * needed, 5 * needed, 2 * needed, needed + 1), 0.2, False),
    ):
        memory.play(monkeypatch)
        if fits:
            check_fits(small_bundle, GPU, fraction)
        else:
            with pytest.raises(ServeError, match="does not fit"):
                check_fits(small_bundle, GPU, fraction)


async def test_it_is_refused_at_load_with_the_bytes_it_needs(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(16_000_000_000, 1000)
    memory.play(monkeypatch)
    needed = f"{least_bytes(small_bundle) / 1e6:.4g} MB"
    with pytest.raises(ServeError, match=f"needs {needed} .* 0.001 MB are free") as caught:
        async with Worker(
            [small_bundle.folder], listen="127.0.0.1:0", device="cuda", gpu_memory_fraction=0.5
        ):
            pass
    assert "--gpu-memory-fraction" in str(caught.value)
    assert memory.shares == [(0.5, "cuda:0"), (0.5, "cuda:1")]


def test_all_of_it_is_nothing_to_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(16_000_000_000, 1000)
    memory.play(monkeypatch)
    keep_to_share([GPU], 1.0)
    keep_to_share([torch.device("cpu")], 1.0)
    assert memory.shares == []


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.01, float("nan")])
def test_no_such_share(fraction: float) -> None:
    with pytest.raises(ServeError, match="share of a GPU's memory"):
        WorkerOptions(gpu_memory_fraction=fraction)


async def test_a_cpu_has_no_such_share(small_bundle: Bundle) -> None:
    with pytest.raises(ServeError, match="on a CPU"):
        async with Worker(
            [small_bundle.folder], listen="127.0.0.1:0", device="cpu", gpu_memory_fraction=0.5
        ):
            pass
