"""Requests through a bundle's segments in torch, alone or several together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from splitpoint.codec import Array, SpecError, TensorSpec
from splitpoint.partition.torch_chain import TorchChain


class TorchRunner:
    """All segments of one bundle, loaded onto one device, from any boundary to the end."""

    def __init__(self, chain: TorchChain, boundaries: Sequence[Sequence[TensorSpec]]) -> None:
        self._chain, self._boundaries = chain, boundaries

    def run(self, boundary: int, values: Mapping[str, Array]) -> dict[str, Array]:
        """The last boundary's tensors, from the (batched) tensors of `boundary`."""
        state = self._chain.place(
            {spec.name: values[spec.name] for spec in self._boundaries[boundary]}
        )
        for index in range(boundary, len(self._chain)):
            state |= self._chain.step(index, state)
        return {spec.name: self._chain.fetch(state[spec.name]) for spec in self._boundaries[-1]}

    def run_together(
        self, boundary: int, requests: list[Mapping[str, Array]]
    ) -> list[dict[str, Array]]:
        """`run` on the concatenation of several requests, taken apart again."""
        specs = self._boundaries[boundary]
        joined = {
            spec.name: np.concatenate([request[spec.name] for request in requests], spec.batch_dim)
            for spec in specs
        }
        first = specs[0]
        batches = [first.batch_of(request[first.name].shape) for request in requests]
        ends = np.cumsum(batches)[:-1]
        results = self.run(boundary, joined)
        for spec in self._boundaries[-1]:
            if results[spec.name].shape != spec.shape_at(sum(batches)):
                raise SpecError(f"the output {spec.name!r} is not that of {sum(batches)} samples")
        parts = {
            spec.name: np.split(
                results[spec.name], ends * spec.shape[spec.batch_dim], spec.batch_dim
            )
            for spec in self._boundaries[-1]
        }
        return [{name: pieces[i] for name, pieces in parts.items()} for i in range(len(requests))]
