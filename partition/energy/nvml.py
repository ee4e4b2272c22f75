"""NVIDIA GPUs through NVML: the energy of the graphics card alone, not of its machine.

`nvmlDeviceGetTotalEnergyConsumption` counts millijoules since the driver was loaded (Volta and
later); `nvmlDeviceGetPowerUsage` tells milliwatts, from Ampere on (but GA100) as the mean of the
last second (NVML API reference). Jetson modules support neither. Needs the package
`nvidia-ml-py`, whose module is `pynvml`, and the driver.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable
from typing import Any

from .meter import FAILURES, Clock, EnergyError, EnergyReading, MeterAbsent, no_reading, why
from .sampler import SampledMeter, Wait

LoadNvml = Callable[[], Any]


def load_pynvml() -> Any:
    """The module `pynvml`; raises `ImportError` where it is not installed."""
    return importlib.import_module("pynvml")


class _Gpu:
    """One GPU, with NVML's errors as `OSError`."""

    def __init__(self, nvml: Any, index: int) -> None:
        self._nvml = nvml
        self._index = index
        self._handle: Any = None

    def open(self) -> None:
        self._call("nvmlInit")
        self._handle = self._call("nvmlDeviceGetHandleByIndex", self._index)

    def close(self) -> None:
        self._call("nvmlShutdown")

    def name(self) -> str:
        name = self._call("nvmlDeviceGetName", self._handle)
        return name.decode(errors="replace") if isinstance(name, bytes) else str(name)

    def total_mj(self) -> float:
        return float(self._call("nvmlDeviceGetTotalEnergyConsumption", self._handle))

    def watts(self) -> float:
        return float(self._call("nvmlDeviceGetPowerUsage", self._handle)) / 1e3

    def _call(self, function: str, *args: Any) -> Any:
        try:
            return getattr(self._nvml, function)(*args)
        except self._nvml.NVMLError as error:
            raise OSError(f"NVML: {error}") from error


class NvmlMeter:
    """A GPU's energy counter, or, where it has none, its sampled power."""

    def __init__(self, gpu: _Gpu, about: str, sampled: SampledMeter | None) -> None:
        self.name = "nvml"
        self.kind = "measured"
        self._gpu = gpu
        self._about = about
        self._sampled = sampled
        self._failure = "the meter was not started"
        self._start_mj = 0.0

    def describe(self) -> str:
        """The GPU, and how it is read."""
        return self._about

    def start(self) -> None:
        """Reads the counter, or begins to sample."""
        if self._sampled is not None:
            self._sampled.start()
            return
        self._failure = ""
        try:
            self._start_mj = self._gpu.total_mj()
        except FAILURES as error:
            self._failure = why(error)

    def stop(self) -> EnergyReading:
        """The energy since `start`."""
        if self._sampled is not None:
            return self._sampled.stop()
        failure, self._failure = self._failure, "the meter was not started"
        if not failure:
            try:
                mj = self._gpu.total_mj() - self._start_mj
            except FAILURES as error:
                failure = why(error)
            else:
                if mj >= 0:
                    return EnergyReading(mj=mj, kind=self.kind, meter=self.name)
                failure = "the GPU's counter went backwards"
        return no_reading(self.name, failure)


def open_nvml(
    index: int = 0,
    *,
    load: LoadNvml = load_pynvml,
    clock: Clock = time.perf_counter,
    wait: Wait = threading.Event.wait,
) -> NvmlMeter:
    """The meter of GPU `index`, in NVML's order, which is that of the PCI bus.

    NVML stays initialised until the process ends. Raises `EnergyError` with the remedy.
    """
    try:
        gpu = _Gpu(load(), index)
    except ImportError as error:
        raise MeterAbsent(
            "not found (the package nvidia-ml-py is not installed)",
            "pip install nvidia-ml-py, where there is an NVIDIA GPU",
        ) from error
    try:
        gpu.open()
    except FAILURES as error:
        raise MeterAbsent(f"not found ({why(error)})") from error
    try:
        name = gpu.name()
    except FAILURES:
        name = "GPU"
    try:
        gpu.total_mj()
        return NvmlMeter(gpu, f"NVML energy counter of GPU {index} ({name})", None)
    except FAILURES:
        pass
    try:
        gpu.watts()
    except FAILURES as error:
        gpu.close()
        raise EnergyError(
            f"{name} tells neither energy nor power ({why(error)})",
            "on a Jetson use the meter jetson",
        ) from error
    about = f"NVML power of GPU {index} ({name}), sampled"
    return NvmlMeter(gpu, about, SampledMeter("nvml", about, gpu.watts, clock=clock, wait=wait))
