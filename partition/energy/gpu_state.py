"""How busy an NVIDIA GPU is and how full its memory, through NVML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .nvml import LoadNvml, load_pynvml


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """One moment of a GPU: bytes of its memory, by all processes, and the busy share of the time.

    `utilisation` is the share, 0 to 1, of the driver's last sample period (1/6 s to 1 s) in which
    any kernel ran (NVML API reference, `nvmlUtilization_t`); None for a slice of a GPU (MIG), of
    which NVML does not tell it.
    """

    memory_used_bytes: int
    memory_total_bytes: int
    utilisation: float | None


class GpuState:
    """Reads one GPU; see `open_gpu_state`."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle

    def read(self) -> GpuReading | None:
        """Now; None when NVML does not tell, as for a GPU that was lost."""
        try:
            memory = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
        except self._nvml.NVMLError:
            return None
        busy: float | None
        try:
            busy = float(self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu) / 100
        except self._nvml.NVMLError:
            busy = None
        return GpuReading(
            memory_used_bytes=int(memory.used),
            memory_total_bytes=int(memory.total),
            utilisation=busy,
        )


def open_gpu_state(uuid: str, *, load: LoadNvml = load_pynvml) -> GpuState | None:
    """The GPU, or slice of one, with that UUID; None where NVML, its package or that is missing.

    The UUID is torch's, without NVML's `GPU-` or `MIG-`. It is not by number, because the order of
    NVML is not the one that CUDA_VISIBLE_DEVICES leaves to torch.
    NVML stays initialised until the process ends.
    """
    try:
        nvml = load()
    except ImportError:
        return None
    for kind in ("GPU", "MIG"):
        try:
            nvml.nvmlInit()
            return GpuState(nvml, nvml.nvmlDeviceGetHandleByUUID(f"{kind}-{uuid}"))
        except nvml.NVMLError:
            continue
    return None
