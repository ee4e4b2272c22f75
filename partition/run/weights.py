"""Reads a segment's weights, which `compile.write_weights` has written as a safetensors file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open

from ..errors import BundleError


def load_weights(path: Path, names: Sequence[str], device: torch.device) -> dict[str, torch.Tensor]:
    """Reads the named ones onto `device`; `BundleError` for a damaged file."""
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            return {name: file.get_tensor(name) for name in names}
    except torch.OutOfMemoryError:
        raise  # a matter of the device, not of the file
    except Exception as error:
        raise BundleError(
            f"{path} holds no weights ({error})", "compile the bundle again"
        ) from error
