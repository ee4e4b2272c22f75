"""A GPU's memory and load, from an NVML that is played."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from splitpoint.partition.energy.gpu_state import GpuReading, open_gpu_state


class FakeNvml:
    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.lost = self.driverless = False

    def nvmlInit(self) -> None:
        if self.driverless:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in ("GPU-1", "MIG-3"):
            raise self.NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        if self.lost:
            raise self.NVMLError("GPU is lost")
        return SimpleNamespace(used=5 << 30, total=80 << 30, free=75 << 30)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        if handle.startswith("MIG-"):
            raise self.NVMLError("Not Supported")
        return SimpleNamespace(gpu=37, memory=12)


def test_a_gpu_is_read_by_its_uuid() -> None:
    nvml = FakeNvml()
    gpu = open_gpu_state("1", load=lambda: nvml)
    assert gpu is not None
    assert gpu.read() == GpuReading(
        memory_used_bytes=5 << 30, memory_total_bytes=80 << 30, utilisation=0.37
    )
    nvml.lost = True
    assert gpu.read() is None


def test_a_slice_of_a_gpu_tells_its_memory_alone() -> None:
    gpu = open_gpu_state("3", load=FakeNvml)
    assert gpu is not None
    assert gpu.read() == GpuReading(
        memory_used_bytes=5 << 30, memory_total_bytes=80 << 30, utilisation=None
    )


def test_where_there_is_none() -> None:
    def missing() -> Any:
        raise ImportError("No module named 'pynvml'")

    assert open_gpu_state("1", load=missing) is None
    assert open_gpu_state("2", load=FakeNvml) is None
    driverless = FakeNvml()
    driverless.driverless = True
    assert open_gpu_state("1", load=lambda: driverless) is None
