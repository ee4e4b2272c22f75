"""The last stage of decoding in torch, on the device that computes: from symbols to a tensor.

What crosses to the device is what the entropy stage gave, a quarter of the tensor or less. The
entropy stage itself and every check of a payload stay on the host, in the codecs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby

import numpy as np
import torch
from splitpoint.codec import Array, Codec, CodecError, Packed, Packing, TensorSpec
from splitpoint.codec.fkt.packed import PackedFkt
from splitpoint.codec.fkt.table import FktTable, Level
from splitpoint.codec.fkt.torch_inverse import TorchInverse
from splitpoint.codec.learned import PackedLearned
from splitpoint.codec.simple.affine import PackedAffine
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.bundle.learned_files import LEARN_AGAIN
from splitpoint.partition.errors import BundleError
from splitpoint.partition.profile.measure_codecs import DecodeOne, decode_here
from splitpoint.partition.run.chain import SegmentChain, State
from splitpoint.partition.run.torch_chain import TorchChain, load_decoder

from ..gpu.gpu import filled
from .values import Values

# Samples that a decoder computes together: what it holds of each are megabytes, and a batch's own
# room was measured without it.
_TOGETHER = 8
ComputingWhole = Callable[[], contextlib.AbstractContextManager[object]]
LoadDecoder = Callable[[int], torch.nn.Module]
"""The decoder of a boundary's learned codec, from a latent and octaves to a tuple of a tensor."""


class Unpacker:
    """`Packed.unpack` for what lies on `device`. Tables get there when they are first needed.

    They stay for as long as this does. `load_decoder` takes a boundary with a learned codec;
    its decoder runs within `computing`.
    """

    def __init__(
        self,
        device: torch.device,
        load_decoder: LoadDecoder | None = None,
        computing: ComputingWhole = contextlib.nullcontext,
    ) -> None:
        self._device, self._load_decoder, self._computing = device, load_decoder, computing
        self._decoders: dict[int, torch.nn.Module] = {}
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
        if isinstance(value, PackedLearned):
            return self._learned(value, self._fkt(value.latent, *parts))
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

    def _learned(self, packed: PackedLearned, latent: torch.Tensor) -> torch.Tensor:
        decoder, together = self._decoder(packed.networks.boundary), _TOGETHER
        while True:
            try:
                with self._computing(), torch.inference_mode():
                    pieces = torch.split(latent, together)
                    found = [_decoded(decoder, piece, packed.octaves) for piece in pieces]
                    return torch.cat(found)
            except torch.OutOfMemoryError as error:
                if together == 1:
                    # Not in torch's words: smaller batches of the model would be no remedy.
                    raise CodecError(f"no memory for a decoder ({str(error)[:100]})") from None
                together //= 2

    def warm_up(self, boundary: int, spec: TensorSpec) -> None:
        """Has the decoder of a boundary's learned codec on the device, where it has run once."""
        if boundary not in self._decoders:
            decoder = self._decoder(boundary)
            zeros = torch.zeros(spec.shape_at(1), device=self._device)
            with self._computing(), torch.inference_mode():
                found = _decoded(decoder, zeros, 0.0)
            if found.shape != zeros.shape or found.dtype != zeros.dtype:
                raise BundleError(
                    f"the decoder of boundary {boundary} gives {list(found.shape)}", LEARN_AGAIN
                )
            if not bool(found.isfinite().all()):
                raise BundleError(
                    f"the decoder of boundary {boundary} gives NaN or infinity", LEARN_AGAIN
                )

    def _decoder(self, boundary: int) -> torch.nn.Module:
        found = self._decoders.get(boundary)
        if found is None:
            if self._load_decoder is None:
                raise TypeError("what was learned is not unpacked here")
            found = self._decoders[boundary] = self._load_decoder(boundary)
        return found

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


def _decoded(decoder: torch.nn.Module, latent: torch.Tensor, octaves: float) -> torch.Tensor:
    (found,) = decoder(latent, torch.full((len(latent), 1), octaves, device=latent.device))
    whole: torch.Tensor = found
    return whole


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
        loading = partial(load_decoder, bundle, device)
        self._unpacker = Unpacker(device, loading, self.computing_whole)

    def load(self, index: int) -> None:
        """As any chain does; and the decoder of the boundary before it, which runs once."""
        super().load(index)
        boundary = self._bundle.manifest.boundaries[index]
        if boundary.learned is not None:
            self._unpacker.warm_up(index, boundary.tensors[0])

    def computing_whole(self) -> contextlib.AbstractContextManager[object]:
        """What runs within it computes in whole float32, whatever segments compute in."""
        return contextlib.nullcontext()

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


def decode_of(chain: SegmentChain) -> DecodeOne:
    """How payloads become tensors where `chain` computes: the last stage of some is its own."""
    if not isinstance(chain, UnpackingChain):
        return decode_here

    def decode(codec: Codec, payload: bytes, spec: TensorSpec) -> object:
        value: Array | Packed
        if isinstance(codec, Packing):
            value = codec.packed(payload, spec, 1)
        else:
            value = codec.decode(payload, spec, 1)
        found = chain.place({spec.name: value})
        chain.wait()
        return found

    return decode


def together(requests: Sequence[Values]) -> list[Values]:
    """Neighbours that are all of one level of a calibrated codec become one.

    Its transform and its networks take as many launches for a sample as for a batch.
    """
    found: list[Values] = []
    for levels, group in groupby(requests, _levels):
        alike = list(group)
        if not levels or len(alike) == 1:
            found += alike
        else:
            found.append({name: _joined([values[name] for values in alike]) for name in alike[0]})
    return found


def _joined(pieces: Sequence[Array | Packed]) -> Packed:
    """Of several that have one level."""
    latents = PackedFkt.joined([latent for latent in map(_coefficients, pieces) if latent])
    first = pieces[0]
    return replace(first, latent=latents) if isinstance(first, PackedLearned) else latents


def _coefficients(value: Array | Packed) -> PackedFkt | None:
    if isinstance(value, PackedLearned):
        return value.latent
    return value if isinstance(value, PackedFkt) else None


def _levels(values: Values) -> list[tuple[type, Level]]:
    """Of each tensor, in order, and of which codec; none where a tensor has none."""
    found = [(type(value), c.level) for value in values.values() if (c := _coefficients(value))]
    return found if len(found) == len(values) else []


def _parts(value: Array | Packed) -> tuple[Array, ...]:
    return (value,) if isinstance(value, np.ndarray) else value.parts
