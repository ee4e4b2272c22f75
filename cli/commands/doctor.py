"""`splitpoint doctor`."""

from __future__ import annotations

import importlib.util
import os
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

import onnxruntime
import psutil
from splitpoint.codec.native import why_not
from splitpoint.partition.energy.find import find_meters
from splitpoint.partition.kept_files import default_cache

from ..shell.output import human_bytes, out, print_json
from ..shell.shared_options import Json
from .profile import power_model_of

_PACKAGES = ("splitpoint", "grpcio", "protobuf", "numpy", "onnxruntime", "torch", "torchvision")


def doctor(
    json_: Json = False,
) -> None:
    """Say what this machine can do: versions, cores, memory, runtimes, energy meters, cache."""
    meters = find_meters()
    model = power_model_of("")
    facts = {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "packages": {name: _version_of(name) for name in _PACKAGES},
        "onnxruntime_providers": onnxruntime.get_available_providers(),
        "codec_in_c": not why_not(),
        "codec_why_not_in_c": why_not() or None,
        "cuda": _cuda(),
        "energy_meters": [asdict(meter) for meter in meters],
        "power_model": model.describe(),
        "cache": str(default_cache()),
    }
    if json_:
        print_json(facts)
        return
    out.print(f"{facts['system']} on {facts['machine']}, Python {facts['python']}")
    out.print(f"{facts['cores']} cores, {human_bytes(psutil.virtual_memory().total)} memory")
    for name in _PACKAGES:
        out.print(f"{name}: {_version_of(name) or 'not installed'}")
    out.print(f"onnxruntime runs on: {', '.join(onnxruntime.get_available_providers())}")
    if why_not():
        out.print(
            f"the codec's loops run in numpy and take several times as long: {why_not()}",
            soft_wrap=True,
        )
    else:
        out.print("the codec's loops run in C")
    out.print(f"CUDA for the worker: {_cuda() or 'none'}")
    for meter in meters:
        usable = "usable" if meter.usable else "no"
        out.print(f"energy meter {meter.name}: {usable}, {meter.detail}", soft_wrap=True)
    if any(meter.usable for meter in meters):
        out.print(f"without a meter, energy would be modelled: {model.describe()}", soft_wrap=True)
    else:
        out.print(
            "energy cannot be measured on this machine; it is modelled instead, and marked so: "
            f"{model.describe()}",
            soft_wrap=True,
        )
    out.print(f"cache: {facts['cache']}", soft_wrap=True)


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cuda() -> str | None:
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
