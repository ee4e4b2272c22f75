"""The two networks of a learned codec: small, and at first they change nothing.

Both work in whitened coordinates: the components of the transform codec's channels, each divided by
its standard deviation. In the tensor's own coordinates Adam's steps, which are of one size in every
direction, would cost the model thousands of times more in some than in others. Both add a
correction to what they are given, and their last layer begins at zero: the codec begins as the
transform codec that it is built around, and training can only lead away from there downhill.

A correction is `MOST_STEPS` of the level's step at most, in every component of every position. That
is about what rounding does, and most that are trained are far smaller. But what networks make of a
picture that is like none in training knows no bound by itself, and has cost such pictures their
answer.
"""

from __future__ import annotations

import torch
from splitpoint.codec.fkt.table import OCTAVE, FktTable
from torch import nn
from torch.nn import functional

# Of a correction, in standard deviations: what one step of Adam does to the last layer.
GAIN = 0.2
MOST_STEPS = 0.5
NARROW, MOST_WIDE = 32, 128  # channels of the decoder
RESIDUALS = 3
_Size = tuple[int, int]


class Whitening(nn.Module):
    """Between a tensor `[n, C, H, W]` and its components, each of unit variance."""

    forward_matrix: torch.Tensor
    backward_matrix: torch.Tensor
    mean: torch.Tensor
    most: torch.Tensor

    def __init__(self, table: FktTable, deviations: torch.Tensor) -> None:
        super().__init__()
        # The middle band stands for all: neither the few lowest frequencies nor the fine noise.
        blocks = torch.from_numpy(table.forward[len(table.forward) // 2])
        components: torch.Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
        whole = components.double() / deviations.double()[:, None]
        self.register_buffer("forward_matrix", whole.float())
        self.register_buffer("backward_matrix", (GAIN * torch.linalg.inv(whole)).float())
        self.register_buffer("mean", torch.from_numpy(table.mean[:, -1]).clone())
        self.register_buffer("most", MOST_STEPS / (GAIN * deviations[:, None, None]))

    @classmethod
    def of(cls, table: FktTable, tensors: torch.Tensor) -> Whitening:
        """For tensors like these."""
        plain = cls(table, torch.ones(tensors.shape[1]))
        deviations = plain(tensors).double().std((0, 2, 3)).float()
        return cls(table, deviations.clamp_min(1e-6 * float(deviations.max())))

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        """Components."""
        bias = -self.forward_matrix @ self.mean
        return functional.conv2d(tensor, self.forward_matrix[:, :, None, None], bias)

    def correction(self, components: torch.Tensor, octaves: torch.Tensor) -> torch.Tensor:
        """What a change of the components does to the tensor, times `GAIN`, within bounds."""
        most = self.most * torch.exp2(octaves)[:, :, None, None]
        bounded = torch.maximum(torch.minimum(components, most), -most)
        return functional.conv2d(bounded, self.backward_matrix[:, :, None, None])


class Coarseness(nn.Module):
    """How a level's step shifts the channels of a network's first layer.

    `middle` and `reach` are those of the steps that it is trained for, in octaves.
    """

    middle: torch.Tensor
    reach: torch.Tensor

    def __init__(self, channels: int, middle: float, reach: float) -> None:
        super().__init__()
        self.shift = nn.Linear(1, channels, bias=False)
        self.register_buffer("middle", torch.tensor(middle))
        self.register_buffer("reach", torch.tensor(reach))

    def forward(self, octaves: torch.Tensor) -> torch.Tensor:
        """`[n, channels, 1, 1]` for octaves `[n, 1]`."""
        shift: torch.Tensor = self.shift((octaves - self.middle) / self.reach)
        return shift[:, :, None, None]


class LatentEncoder(nn.Module):
    """What the device adds to a tensor: three thin layers, one of which sees the neighbours."""

    def __init__(self, whitening: Whitening, middle: float, reach: float) -> None:
        super().__init__()
        channels = len(whitening.mean)
        self.whitening = whitening
        self.coarseness = Coarseness(channels, middle, reach)
        self.first = nn.Conv2d(channels, channels, 1)
        self.near = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.last = _silent(nn.Conv2d(channels, channels, 1))

    def forward(self, tensor: torch.Tensor, octaves: torch.Tensor) -> torch.Tensor:
        """The latent of `[n, C, H, W]`, in its shape; octaves are `[n, 1]`."""
        found = self.first(self.whitening(tensor)) + self.coarseness(octaves)
        found = self.last(self.near(found.relu()).relu())
        return tensor + self.whitening.correction(found, octaves)


class FoldedEncoder(nn.Module):
    """The same function as a trained encoder's, with its first two products as one."""

    def __init__(self, trained: LatentEncoder) -> None:
        super().__init__()
        self.whitening, self.coarseness = trained.whitening, trained.coarseness
        self.near, self.last = trained.near, trained.last
        self.first = nn.Conv2d(len(trained.whitening.mean), trained.first.out_channels, 1)
        with torch.no_grad():
            enter = trained.first.weight[:, :, 0, 0].double()
            enter = enter @ trained.whitening.forward_matrix.double()
            bias = -enter @ trained.whitening.mean.double()
            if trained.first.bias is not None:
                bias += trained.first.bias.double()
        self.first.weight = nn.Parameter(enter.float()[:, :, None, None])
        self.first.bias = nn.Parameter(bias.float())

    def forward(self, tensor: torch.Tensor, octaves: torch.Tensor) -> torch.Tensor:
        """See `LatentEncoder.forward`."""
        found = self.first(tensor) + self.coarseness(octaves)
        found = self.last(self.near(found.relu()).relu())
        return tensor + self.whitening.correction(found, octaves)


class LatentDecoder(nn.Module):
    """What the worker makes of a latent that the transform codec has left: it sees further."""

    def __init__(self, whitening: Whitening, middle: float, reach: float) -> None:
        super().__init__()
        channels = len(whitening.mean)
        narrow = min(-(-channels // NARROW) * NARROW, MOST_WIDE)
        wide = min(2 * narrow, MOST_WIDE)
        self.whitening = whitening
        self.coarseness = Coarseness(narrow, middle, reach)
        self.first = nn.Conv2d(channels, narrow, 3, padding=1)
        self.down = nn.Conv2d(narrow, wide, 2, stride=2)
        self.residuals = nn.Sequential(*(_Residual(wide) for _ in range(RESIDUALS)))
        self.up = nn.ConvTranspose2d(wide, narrow, 2, stride=2)
        self.last = _silent(nn.Conv2d(narrow, channels, 3, padding=1))

    def forward(self, latent: torch.Tensor, octaves: torch.Tensor) -> torch.Tensor:
        """The tensor of `[n, C, H, W]`, in its shape; octaves are `[n, 1]`."""
        height, width = latent.shape[2:]
        near = self.first(self.whitening(latent)) + self.coarseness(octaves)
        # Half the positions of an odd extent: the last one stands alone.
        wide = self.down(functional.pad(functional.silu(near), (0, width % 2, 0, height % 2)))
        far = self.up(self.residuals(wide))[:, :, :height, :width]
        found = self.last(functional.silu(near + far))
        return latent + self.whitening.correction(found, octaves)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(self.second.weight, std=1e-2)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        inner = functional.silu(self.first(functional.silu(given)))
        found: torch.Tensor = given + self.second(inner)
        return found


def _silent(layer: nn.Conv2d) -> nn.Conv2d:
    """A layer that gives nothing at first."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def octaves_of(table: FktTable, level: int) -> float:
    """The binary logarithm of a level's step; level 1 is the coarsest."""
    return int(table.log_step[level - 1]) / OCTAVE
