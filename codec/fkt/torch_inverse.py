"""The decoder's transform in torch, on a CPU or a GPU: a product a band, and one an axis."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from .axes import whole_of
from .table import FktTable


class TorchInverse:
    """`FktTable.inverse` for batches of coefficients on `device`."""

    def __init__(self, table: FktTable, device: torch.device) -> None:
        self._grid, self._table = table.grid, table

        def there(array: object) -> torch.Tensor:
            return torch.tensor(np.asarray(array)).to(device)

        self._backward = there(table.backward)
        self._mean = there(table.mean_coefficients)
        order, self._ends = table.band_order
        self._order = there(order)
        self._axes = [
            None if matrix is None else there(whole_of(matrix, positions))
            for matrix, positions in zip(table.axis_inverses, table.grid.extents, strict=True)
        ]

    def __call__(self, coefficients: torch.Tensor) -> torch.Tensor:
        """The tensor of float32 coefficients, in the shape of its specification.

        They are `[batch, C, P]`, with the positions in the order of the bands.
        """
        grid, batch = self._grid, len(coefficients)
        blocks, size = self._backward.shape[1:3]
        split = coefficients.reshape(batch, blocks, size, -1)
        mixed = [
            matrix @ split[..., start:end]
            for matrix, (start, end) in zip(self._backward, pairwise([0, *self._ends]), strict=True)
        ]
        rows = torch.empty_like(split)
        rows[..., self._order] = torch.cat(mixed, 3)
        rows = rows.reshape(coefficients.shape)
        rows += self._mean
        block = rows[..., grid.prefix :].reshape(batch, grid.channels, *grid.extents)
        for axis, matrix in enumerate(self._axes, start=2):
            if matrix is None:
                continue
            if axis == block.ndim - 1:
                block = block @ matrix.T
            elif axis == block.ndim - 2:
                block = matrix @ block
            else:
                block = (block.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
        found = block.reshape(batch, grid.channels, -1)
        if grid.prefix:
            found = torch.cat([rows[..., : grid.prefix], found], 2)
        tensor = found.reshape(grid.unrolled(batch)).permute(*np.argsort(grid.order).tolist())
        return tensor.reshape(self._table.spec.shape_at(batch)).contiguous()
