"""A bundle's segments as a compiler gets them, on the CPU."""

from __future__ import annotations

import numpy as np
import torch
from splitpoint.cloud.gpu.compiler import SegmentSource
from splitpoint.cloud.gpu.weight_form import Form
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.run.torch_chain import load_segment

CPU = torch.device("cpu")


def source_of(bundle: Bundle, index: int, precision: str = "tf32") -> SegmentSource:
    manifest = bundle.manifest
    segment = manifest.segments[index]
    entering, leaving = (
        {spec.name: spec for spec in manifest.boundaries[at].tensors} for at in (index, index + 1)
    )
    inputs, outputs, module = load_segment(
        bundle.path(segment.program), bundle.path(segment.weights), list(entering.values()), CPU
    )
    return SegmentSource(
        name=f"digest-{index}", module=module, onnx=bundle.path(segment.onnx),
        inputs=[entering[name] for name in inputs], outputs=[leaving[name] for name in outputs],
        form=Form(precision), device=CPU,
    )  # fmt: skip


def values_of(source: SegmentSource, samples: int) -> list[torch.Tensor]:
    rng = np.random.default_rng(samples)
    return [
        torch.from_numpy(rng.uniform(0, 200, spec.shape_at(samples)).astype(spec.numpy_dtype))
        for spec in source.inputs
    ]
