"""Which compilers a worker can try on its GPU."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import onnxruntime

from ..options import INDUCTOR, TENSORRT
from . import tensorrt
from .compiler import Compiler
from .inductor import by_inductor


def compilers_here(folder: Path, most_samples: int) -> Mapping[str, Compiler]:
    """By name, in the order in which they are to be tried; what they make they keep in `folder`.

    A later start runs that: nobody but the worker's user may be able to write there.
    """
    found: dict[str, Compiler] = {}
    if find_spec("triton") is not None:  # in which inductor writes for GPUs
        found[INDUCTOR] = partial(by_inductor, folder=folder / INDUCTOR)
    if tensorrt.PROVIDER in onnxruntime.get_available_providers():
        found[TENSORRT] = partial(
            tensorrt.by_tensorrt, folder=folder / TENSORRT, most_samples=most_samples
        )
    return found
