"""The model around a boundary, whose weights training leaves as they are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from splitpoint.codec import Array

from ..bundle.bundle import Bundle
from ..calibrate.fisher import Weigh
from ..run.torch_chain import TorchChain


class FrozenModel:
    """Segments before and behind `boundary`, on `device`. Outputs go by the tensor's name."""

    def __init__(self, bundle: Bundle, boundary: int, device: torch.device, weigh: Weigh) -> None:
        self.manifest, self.boundary, self.device = bundle.manifest, boundary, device
        (self.spec,) = bundle.manifest.boundaries[boundary].tensors
        self._weigh = weigh
        self._chain = TorchChain(bundle, device)
        for index in range(len(self._chain)):
            self._chain.load(index)

    def before(self, inputs: Mapping[str, Array]) -> torch.Tensor:
        """What crosses the boundary."""
        state = dict(self._chain.place(inputs))
        with torch.no_grad():
            for index in range(self.boundary):
                state |= self._chain.forward(index, state)
        found: torch.Tensor = state[self.spec.name]
        return found

    def after(self, tensor: torch.Tensor, *, half: bool = False) -> dict[str, torch.Tensor]:
        """The outputs, float32, of what crossed; with gradients where they are asked for.

        With `half` what bears it is computed in bfloat16.
        """
        state = {self.spec.name: tensor}
        if half:  # where kernels of that type are fastest
            state[self.spec.name] = tensor.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            for index in range(self.boundary, len(self._chain)):
                state |= self._chain.forward(index, state)
        return {name: state[name].float() for name in dict.fromkeys(self.manifest.outputs.values())}

    def divergence(
        self, found: Mapping[str, torch.Tensor], exact: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """How far outputs are from the exact ones, in nats, `[n]`.

        For a classifier it is that of Kullback and Leibler. Any other model's is half the squared
        error of each value, times what errors in it cost: the head of its task knows that, see
        `Judge.weights`.
        """
        if self.manifest.classifies:
            name = next(iter(self.manifest.outputs.values()))
            before, after = exact[name].log_softmax(-1), found[name].log_softmax(-1)
            return (before.exp() * (before - after)).sum(-1)
        samples = len(next(iter(exact.values())))
        arrays = {name: value.detach().cpu().numpy() for name, value in exact.items()}
        costs = [
            self._weigh({name: value[i : i + 1] for name, value in arrays.items()})
            for i in range(samples)
        ]
        total = torch.zeros(samples, device=self.device)
        for name, value in found.items():
            weight = torch.from_numpy(np.concatenate([cost[name] for cost in costs]))
            error = (value - exact[name]) * weight.to(value)
            total = total + error.flatten(1).square().sum(1) / 2
        return total


def has_bfloat16(device: torch.device) -> bool:
    """Whether it multiplies in bfloat16, which then takes about half the time.

    It is asked for and not timed: the same steps shall give the same codec.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Not public yet. Where they are gone again, training takes longer.
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in asked)
