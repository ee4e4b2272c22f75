"""Which number a model can be measured with where it takes integers: 0 may be out of range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from splitpoint.codec import Array

from ..bundle.bundle import Bundle, Manifest
from ..model_spec import ModelSpec
from ..run.torch_chain import TorchChain
from .verify import CPU, example_batch, flat_tensors


def stand_ins(manifest: Manifest, folder: Path, spec: ModelSpec) -> dict[str, int]:
    """By input, what it may be full of, where that is not 0: the example's least or most.

    Empty where zeros do, and where nothing of all that does.
    """
    first = manifest.boundaries[0].tensors
    integers = [
        one.name
        for one in first
        if np.issubdtype(one.numpy_dtype, np.integer)
        and not (manifest.picture is not None and one.is_picture)
    ]
    if not integers:
        return {}
    given = flat_tensors(*example_batch(spec, [0]))
    example = {one.name: tensor.numpy() for one, tensor in zip(first, given, strict=True)}
    chain = TorchChain(Bundle(folder=folder, manifest=manifest, digest=""), CPU)
    for index in range(len(chain)):
        chain.load(index)
    choices: Sequence[dict[str, int]] = (
        {},
        {name: int(example[name].min()) for name in integers},
        {name: int(example[name].max()) for name in integers},
    )
    for choice in choices:
        full = {name: np.full_like(example[name], choice.get(name, 0)) for name in integers}
        if _computes(chain, {**example, **full}):
            return {name: number for name, number in choice.items() if number}
    return {}


def _computes(chain: TorchChain, given: Mapping[str, Array]) -> bool:
    state = chain.place(given)
    try:
        for index in range(len(chain)):
            state |= chain.step(index, state)
    except (IndexError, RuntimeError):  # as torch says that an index is out of range
        return False
    return True
