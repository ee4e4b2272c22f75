"""The transform codec as training sees it: differentiable, with bits estimated instead of written.

Rounding lets gradients through as if it were not there. A coefficient is taken for Laplacian, with
a scale that is learned for each of them, beginning at what calibration saw; a step's noise stands
for rounding where bits are counted (Ballé, Laparra and Simoncelli, ICLR 2017).
"""

from __future__ import annotations

import math

import torch
from splitpoint.codec.fkt.axes import whole_of
from splitpoint.codec.fkt.table import OCTAVE, FktTable
from splitpoint.codec.fkt.torch_inverse import TorchInverse
from torch import nn

# From where on a magnitude is rounded up, in steps: what fitted tables have on the average.
DEAD_ZONE, UP_FROM, UP_FROM_TWO = 0.62, 0.58, 0.5
_LEAST_SCALE = 1e-3  # steps


class LatentCoder(nn.Module):
    """Of one tensor, `[n, C, H, W]`, with the transform of its table."""

    log_scale: nn.Parameter

    def __init__(self, table: FktTable, device: torch.device) -> None:
        super().__init__()
        self._grid, self._inverse = table.grid, TorchInverse(table, device)
        order, ends = table.band_order
        self._ends = [0, *ends]

        def there(array: object) -> torch.Tensor:
            return torch.as_tensor(array).to(device)

        self._order = there(order).long()
        self._mean = there(table.mean_coefficients)
        self._forward = there(table.forward)
        self._axes = [
            None if matrix is None else there(whole_of(matrix, positions))
            for matrix, positions in zip(table.axis_matrices, table.grid.extents, strict=True)
        ]
        usual = torch.from_numpy(table.log_scale.astype("float32"))[:, self._order.cpu()]
        self.log_scale = nn.Parameter((usual * (math.log(2) / OCTAVE)).to(device))

    def coefficients(self, tensor: torch.Tensor) -> torch.Tensor:
        """In units of loss, `[n, C, P]`, positions in the order of the bands."""
        rows, columns = self._axes
        found = tensor if rows is None else rows @ tensor
        found = found if columns is None else found @ columns.T
        flat = (found.flatten(2) - self._mean)[:, :, self._order]
        blocks, size = self._forward.shape[1:3]
        split = flat.reshape(len(flat), blocks, size, -1)
        mixed = [
            matrix @ split[..., start:end]
            for matrix, start, end in zip(self._forward, self._ends, self._ends[1:], strict=False)
        ]
        return torch.cat(mixed, 3).flatten(1, 2)

    def tensor(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Undoes `coefficients`."""
        found: torch.Tensor = self._inverse(coefficients)
        return found

    def bits(
        self, steps: torch.Tensor, octaves: torch.Tensor, noise: torch.Tensor | None
    ) -> torch.Tensor:
        """Expected bits, `[n]`, of coefficients in steps; octaves `[n, 1]` are those of the step.

        `noise` is uniform in half a step around 0; without it whole steps are counted.
        """
        spread = (self.log_scale - math.log(2) * octaves[:, :, None] - math.log(2) / 2).exp()
        spread = spread.clamp_min(_LEAST_SCALE)
        size = (steps.round() if noise is None else steps + noise).abs()
        inside = _laplace((0.5 - size) / spread) - _laplace((-0.5 - size) / spread)
        return -inside.clamp_min(1e-7).log2().sum((1, 2))


def rounded(steps: torch.Tensor) -> torch.Tensor:
    """To whole steps, as the codec rounds; gradients pass unchanged."""
    size = steps.abs()
    whole = torch.where(size < 1.5, size + 1 - UP_FROM, size + 1 - UP_FROM_TWO).floor()
    whole = torch.where(size < DEAD_ZONE, torch.zeros_like(whole), whole) * steps.sign()
    return steps + (whole - steps).detach()


def _laplace(places: torch.Tensor) -> torch.Tensor:
    """The distribution function of the Laplacian of scale 1."""
    below = 0.5 * places.clamp(max=0).exp()
    return torch.where(places < 0, below, 1 - 0.5 * (-places.clamp(min=0)).exp())
