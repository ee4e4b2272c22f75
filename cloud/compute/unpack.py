"""The last stage of decoding in torch, on the device that computes: from symbols to a tensor.

What crosses to the device is what the entropy stage gave, a quarter of the tensor or less. The
entropy stage itself and every check of a payload stay on the host, in the codecs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import cast

import numpy as np
import torch
from splitpoint.codec import Array, Packed
from splitpoint.codec.fkt.packed import PackedFkt
from splitpoint.codec.fkt.table import FktTable, Level
from splitpoint.codec.fkt.torch_inverse import TorchInverse
from splitpoint.codec.simple.affine import PackedAffine
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.run.chain import State
from splitpoint.partition.run.torch_chain import TorchChain

from ..gpu.gpu import filled
from .values import Values


class Unpacker:
    """`Packed.unpack` for what lies on `device`. Tables get there when they are first needed.

    They stay for as long as this does.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._inverses: dict[FktTable, TorchInverse] = {}
        self._orders: dict[Level, torch.Tensor] = {}

    def tensor(self, value: Array | Packed, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """The whole tensor of `value`; `parts` are what it consists of, on the device."""
        if isinstance(value, np.ndarray):
            (whole,) = parts
            return whole
        if isinstance(value, PackedAffine):
            return _affine(value, *parts)
        if isinstance(value, PackedFkt):
            return self._fkt(value, *parts)
        raise TypeError(f"{type(value).__name__} is not unpacked here")

    def _fkt(self, packed: PackedFkt, values: torch.Tensor, *peaks: torch.Tensor) -> torch.Tensor:
        table = packed.table
        fine = torch.zeros(len(values), table.log_scale.size, device=self._device)
        fine.index_copy_(1, self._order(packed.level), values.to(torch.float32))
        if peaks:
            places, heights = peaks
            fine.view(-1).index_copy_(0, places, heights.to(torch.float32))
        fine *= packed.scale
        whole: torch.Tensor = self._inverse(table)(fine.reshape(-1, *table.log_scale.shape))
        return whole

    def _order(self, level: Level) -> torch.Tensor:
        found = self._orders.get(level)
        if found is None:
            found = torch.tensor(level.banded, dtype=torch.int64).to(self._device)
            self._orders[level] = found
        return found

    def _inverse(self, table: FktTable) -> TorchInverse:
        found = self._inverses.get(table)
        if found is None:
            found = self._inverses[table] = TorchInverse(table, self._device)
        return found


def _affine(packed: PackedAffine, symbols: torch.Tensor, ranges: torch.Tensor) -> torch.Tensor:
    layout = packed.layout
    if packed.bits == 4:
        symbols = torch.stack((symbols >> 4, symbols & 15), 2).flatten(1)
    low, step = ranges
    rows = symbols[:, : layout.channels * layout.values].reshape(len(low), layout.channels, -1)
    ordered: torch.Tensor = (rows * step + low).reshape(layout.ordered_shape)
    return ordered.permute(layout.inverse_order).reshape(layout.shape).contiguous()


class UnpackingChain(TorchChain):
    """A chain whose `place` takes `Packed` tensors, too, and unpacks them on its device."""

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        super().__init__(bundle, device)
        self._unpacker = Unpacker(device)

    def place(self, values: Values) -> State:
        """Tensors on the device, of all that `values` hold; they are only started."""
        parts = {name: _parts(value) for name, value in values.items()}
        carried = iter(self.carry([part for own in parts.values() for part in own]))
        return {
            name: self._unpacker.tensor(values[name], [next(carried) for _ in own])
            for name, own in parts.items()
        }

    def carry(self, arrays: Sequence[Array]) -> list[torch.Tensor]:
        """Copies on the device, ready for whatever is started on it from now on."""
        return [filled(array).to(self._device) for array in arrays]


def together(requests: Sequence[Values]) -> list[Values]:
    """Neighbours that are all of one level of the transform codec become one.

    The transform takes as many launches for a sample as for a batch.
    """
    found: list[Values] = []
    for levels, group in groupby(requests, _levels):
        alike = list(group)
        if not levels or len(alike) == 1:
            found += alike
        else:
            found.append({
                name: PackedFkt.joined([cast(PackedFkt, values[name]) for values in alike])
                for name in alike[0]
            })  # fmt: skip
    return found


def _levels(values: Values) -> list[Level]:
    """Of each tensor, in order; none where a tensor has none."""
    found = [value.level for value in values.values() if isinstance(value, PackedFkt)]
    return found if len(found) == len(values) else []


def _parts(value: Array | Packed) -> tuple[Array, ...]:
    return (value,) if isinstance(value, np.ndarray) else value.parts
