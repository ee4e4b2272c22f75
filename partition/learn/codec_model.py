"""The learned codec as it is trained: encoder, the transform codec's rounding, decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from splitpoint.codec.fkt.table import FktTable
from torch import nn

from .latent_coder import LatentCoder, rounded
from .networks import LatentDecoder, LatentEncoder, Whitening


@dataclass(frozen=True, slots=True)
class Coded:
    """A batch that went through: what arrives, `[n, C, H, W]`, and the bits of each, `[n]`."""

    arrived: torch.Tensor
    bits: torch.Tensor


class CodecModel(nn.Module):
    """For steps between two, in octaves. `tensors` are some of those that cross."""

    def __init__(
        self,
        table: FktTable,
        tensors: torch.Tensor,
        octaves: tuple[float, float],
        device: torch.device,
    ) -> None:
        super().__init__()
        middle, reach = sum(octaves) / 2, max(abs(octaves[1] - octaves[0]) / 2, 0.5)
        whitening = Whitening.of(table, tensors)
        self.encoder = LatentEncoder(whitening, middle, reach)
        self.decoder = LatentDecoder(whitening, middle, reach)
        self.coder = LatentCoder(table, device)
        self.to(device)

    def forward(
        self, tensor: torch.Tensor, octaves: torch.Tensor, noise: torch.Generator | None = None
    ) -> Coded:
        """With `noise` as in training, without it as when codes are written."""
        latent = self.encoder(tensor, octaves)
        step = torch.exp2(octaves)[:, :, None]
        steps = self.coder.coefficients(latent) / step
        dither = None
        if noise is not None:
            dither = torch.rand(steps.shape, generator=noise).to(steps) - 0.5
        left = self.coder.tensor(rounded(steps) * step)
        return Coded(self.decoder(left, octaves), self.coder.bits(steps, octaves, dither))

    def squared_error(self, found: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
        """Half the squared error in units of loss, `[n]`: what it costs while it is small."""
        error = self.coder.coefficients(found) - self.coder.coefficients(exact)
        return error.square().sum((1, 2)) / 2


class RunningMean:
    """A mean of a module's parameters, in which late ones count most."""

    def __init__(self, module: nn.Module, kept: float) -> None:
        self._module, self._kept, self._seen = module, kept, 0
        self.values = {name: p.detach().clone() for name, p in module.named_parameters()}

    def see(self) -> None:
        """Counts the present parameters; at first they are nearly all that counts."""
        self._seen += 1
        kept = min(self._kept, self._seen / (self._seen + 20))
        with torch.no_grad():
            for name, parameter in self._module.named_parameters():
                self.values[name].lerp_(parameter, 1 - kept)

    def state(self) -> dict[str, object]:
        """What `restore` takes."""
        return {"values": self.values, "seen": self._seen}

    def restore(self, values: Mapping[str, torch.Tensor], seen: int) -> None:
        """Goes on from there."""
        self._seen = seen
        for name, value in values.items():
            self.values[name].copy_(value)


def put(module: nn.Module, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Sets the parameters; returns what they were."""
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(values[name])
    return before
