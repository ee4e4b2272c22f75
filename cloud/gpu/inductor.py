"""A segment in kernels that torch's inductor writes, and tunes on this GPU: that takes minutes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from .compiler import Compiled, SegmentSource

# torch's own graphs would have memory, and a lock, of their own: `GpuChain` captures what it gets.
MODE = "max-autotune-no-cudagraphs"
SILENT = {"autotune_num_choices_displayed": 0, "max_autotune_report_choices_stats": False}
# Where torch looks for what it compiled before, and Triton below that ("Compile Time Caching
# Configuration" in PyTorch's tutorials).
CACHE = "TORCHINDUCTOR_CACHE_DIR"


def by_inductor(source: SegmentSource, folder: Path) -> Compiled:
    """Compiles when it is first called; what it found stays in `folder`.

    It compiles twice: for one sample, which torch always takes for a constant, and for any larger
    number, as minutes for each size that is captured would be too many. Marking the batch alone
    keeps the pictures' sides constants, which `dynamic=True` would not. Kernels for any number are
    tuned with the number that comes first; that is the batch of the trial, in later starts, too, as
    they come from the cache. What cannot be compiled as a whole, or for any number, raises; on a
    CPU, torch 2.13's products in Swin kept the number that they were tuned with, and raised for
    every other one.
    """
    os.environ[CACHE] = str(folder)  # before the import, which puts torch's own choice there
    from torch._dynamo import mark_dynamic  # seconds, and only for who compiles
    from torch._inductor import list_mode_options

    # Not the module itself: what its call makes of an error cannot be compiled, and hides that.
    options = {**list_mode_options(MODE), **SILENT}
    compiled = torch.compile(source.module.forward, fullgraph=True, options=options)

    def run(*values: torch.Tensor) -> Sequence[torch.Tensor]:
        if source.samples(values[0]) > 1:
            for value, spec in zip(values, source.inputs, strict=True):
                mark_dynamic(value, spec.batch_dim)
        outputs: Sequence[torch.Tensor] = compiled(*values)
        return outputs

    return run
