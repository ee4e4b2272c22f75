"""How busy an NVIDIA GPU is and how full its memory, through NVML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .nvml import LoadNvml, load_pynvml


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """One moment of a GPU: bytes of its memory, by all processes, and the busy share of the time.

    `utilisation` is the share, 0 to 1, of the driver's last sample period (1/6 s to 1 s) in which
    any kernel ran (NVML API reference, `nvmlUtilization_t`).
    """

    memory_used_bytes: int
    memory_total_bytes: int
    utilisation: float


class GpuState:
    """Reads one GPU; see `open_gpu_state`."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle

    def read(self) -> GpuReading | None:
        """Now; None when NVML does not tell, as for a GPU that was lost."""
        try:
            memory = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
            rates = self._nvml.nvmlDeviceGetUtilizationRates(self._handle)
        except self._nvml.NVMLError:
            return None
        return GpuReading(
            memory_used_bytes=int(memory.used),
            memory_total_bytes=int(memory.total),
            utilisation=float(rates.gpu) / 100,
        )


def open_gpu_state(uuid: str, *, load: LoadNvml = load_pynvml) -> GpuState | None:
    """The GPU with that UUID (`GPU-…`); None where NVML, its package or such a GPU is missing.

    By UUID, because the order of NVML is not the one that CUDA_VISIBLE_DEVICES leaves to torch.
    NVML stays initialised until the process ends.
    """
    try:
        nvml = load()
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        return GpuState(nvml, nvml.nvmlDeviceGetHandleByUUID(uuid))
    except nvml.NVMLError:
        return None
