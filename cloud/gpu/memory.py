"""How much of a GPU's memory a worker may take, and whether a model fits into what is left."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from splitpoint.partition.bundle.bundle import Bundle

from ..errors import ServeError

_REMEDY = "serve fewer models, give a larger --gpu-memory-fraction, or use --device cpu"


def keep_to_share(devices: Sequence[torch.device], fraction: float) -> None:
    """Has this process take no more than `fraction`, 0 to 1, of the memory of each GPU.

    That is of torch's tensors and graphs: CUDA itself takes some hundred megabytes beside them.
    Raises `ServeError` for less than all of it where the devices are none.
    """
    if fraction == 1:
        return
    if devices[0].type != "cuda":
        raise ServeError(
            "a share of a GPU's memory, where the worker computes on a CPU",
            "leave --gpu-memory-fraction out, or use --device cuda",
        )
    for device in devices:
        torch.cuda.set_per_process_memory_fraction(fraction, device)


def least_bytes(bundle: Bundle) -> int:
    """What it takes at the least: its weights, and the tensors of a sample around one segment."""
    manifest = bundle.manifest
    weights = {segment.weights for segment in manifest.segments}
    sizes = [boundary.nbytes for boundary in manifest.boundaries]
    return sum(manifest.files[path].nbytes for path in weights) + max(
        entering + leaving for entering, leaving in pairwise(sizes)
    )


def check_fits(bundle: Bundle, device: torch.device, fraction: float) -> None:
    """Raises `ServeError` for a model that cannot fit beside what lies on a GPU already."""
    if device.type == "cuda" and least_bytes(bundle) > _free_bytes(device, fraction):
        raise too_large(bundle, device, fraction)


def too_large(bundle: Bundle, device: torch.device, fraction: float) -> ServeError:
    """What is said of a model that does not fit, with what it needs and what a GPU has left."""
    said = f"{bundle.manifest.name} does not fit into the memory of {device}"
    needs = f"it needs {_mb(least_bytes(bundle))} for its weights and one sample"
    if device.type != "cuda":
        return ServeError(f"{said}: {needs}, and more to compute", "serve fewer models")
    free = _mb(_free_bytes(device, fraction))
    return ServeError(f"{said}: {needs}, and more to compute, and {free} are free", _REMEDY)


def _free_bytes(device: torch.device, fraction: float) -> int:
    """What this process may still take, with what torch keeps and nobody uses."""
    free, total = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    more = min(free, max(int(fraction * total) - reserved, 0))
    return more + reserved - torch.cuda.memory_allocated(device)


def _mb(nbytes: int) -> str:
    return f"{nbytes / 1e6:.4g} MB"
