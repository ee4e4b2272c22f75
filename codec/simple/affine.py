"""Per-channel affine quantisation to 8 or 4 bits, packed, then zstd.

Layout before zstd: for each sample and channel the float32 minimum and step (all minima, then all
steps), then the symbols sample by sample in channel-major order, two to a byte for 4 bits (the
first in the high half). Channel-major order lets zstd find the runs that a ReLU leaves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import CodecError
from ..spec import Array, TensorSpec
from .affine_loops import BEST
from .entropy import compress, compressed_bound, decompress_exactly

# A channel with fewer values than this shares its range with the whole sample: 8 bytes of range
# for a handful of symbols would cost more than they save.
MIN_VALUES_PER_CHANNEL = 16


def channel_axis(spec: TensorSpec) -> int | None:
    """The axis with a range of its own, or None for one range a sample.

    Maps are `[batch, channels, height, width]` unless the middle two extents are equal and the
    last differs (`[batch, height, width, channels]`, as in Swin); sequences end in the embedding.
    """
    rank = len(spec.shape)
    if rank == 4:
        square_last = spec.shape[1] == spec.shape[2] != spec.shape[3]
        axis = 3 if square_last else 1
    elif rank == 3:
        axis = 2
    else:
        return None
    if axis == spec.batch_dim:
        return None
    return axis if math.prod(spec.shape) >= spec.shape[axis] * MIN_VALUES_PER_CHANNEL else None


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor of `shape` is arranged as `[batch, channels, values]`, and back."""

    shape: tuple[int, ...]

    split_shape: tuple[int, ...]  # the batch dimension taken apart into (batch, factor)
    order: tuple[int, ...]  # axes of split_shape in the order batch, channel, the rest
    channels: int
    values: int

    @classmethod
    def of(cls, spec: TensorSpec, batch: int) -> Layout:
        """The arrangement of `batch` samples."""
        dim = spec.batch_dim
        split = (*spec.shape[:dim], batch, spec.shape[dim], *spec.shape[dim + 1 :])
        axis = channel_axis(spec)
        if axis is None:
            order = (dim, *(i for i in range(len(split)) if i != dim))
            return cls(spec.shape_at(batch), split, order, 1, math.prod(spec.shape))
        axis += axis > dim  # the factor was inserted after the batch dimension
        order = (dim, axis, *(i for i in range(len(split)) if i not in (dim, axis)))
        values = math.prod(spec.shape) // split[axis]
        return cls(spec.shape_at(batch), split, order, split[axis], values)

    @property
    def ordered_shape(self) -> tuple[int, ...]:
        """The shape of rows whose values are taken apart again, in the order of `order`."""
        return tuple(self.split_shape[axis] for axis in self.order)

    @property
    def inverse_order(self) -> tuple[int, ...]:
        """The axes of such rows in the order of `split_shape`."""
        return tuple(np.argsort(self.order).tolist())

    def gather(self, array: Array) -> Array:
        """The rows of a tensor."""
        ordered: Array = array.reshape(self.split_shape).transpose(self.order)
        rows: Array = ordered.reshape(ordered.shape[0], self.channels, self.values)
        return rows

    def scatter(self, rows: Array) -> Array:
        """The tensor of such rows."""
        ordered: Array = rows.reshape(self.ordered_shape)
        array: Array = ordered.transpose(self.inverse_order).reshape(self.shape)
        return array


@dataclass(frozen=True, slots=True)
class PackedAffine:
    """Symbols with their ranges: a value is symbol x step + minimum.

    `symbols` are uint8 `[batch, bytes]`, whole ones for 8 bits and two to a byte for 4. `ranges`
    are finite float32 `[2, batch, channels, 1]`: minima and steps.
    """

    layout: Layout
    bits: int
    symbols: Array
    ranges: Array

    @property
    def parts(self) -> tuple[Array, ...]:
        """See `Packed`."""
        return self.symbols, self.ranges

    def unpack(self) -> Array:
        """See `Packed`."""
        layout, (low, step) = self.layout, self.ranges
        symbols = self.symbols
        if self.bits == 4:
            symbols = BEST.unpacked(symbols, layout.channels * layout.values)
        rows = symbols.reshape(len(symbols), layout.channels, -1)
        return np.ascontiguousarray(layout.scatter(BEST.values(rows, low, step)))


@dataclass(frozen=True, slots=True)
class Affine:
    """`bits`-bit symbols between each channel's minimum and maximum; error at most half a step.

    Only finite float32 is carried: NaN or infinity raises `CodecError`.
    """

    name: str
    bits: int

    def supports(self, spec: TensorSpec) -> bool:  # noqa: D102
        return spec.dtype == "float32"

    def encode(self, array: Array, spec: TensorSpec) -> bytes:  # noqa: D102
        rows = Layout.of(spec, spec.check(array)).gather(array)
        low = rows.min(axis=2, keepdims=True)
        top = 2**self.bits - 1
        with np.errstate(over="ignore", invalid="ignore"):
            step = (rows.max(axis=2, keepdims=True) - low) / np.float32(top)
            highest = low + step * np.float32(top)  # as the decoder will round it
        if not np.isfinite(highest).all():
            raise CodecError(
                f"tensor {spec.name!r} holds NaN, infinity or a range beyond float32",
                "use the codec raw",
            )
        # A step too small for its reciprocal stands for a constant channel: all symbols are 0.
        scale = np.divide(1, step, out=np.zeros_like(step), where=step > _SMALLEST_STEP)
        symbols = BEST.symbols(rows, low, scale, top).reshape(len(rows), -1)
        packed = symbols if self.bits == 8 else BEST.packed(symbols)
        return compress(low.tobytes() + step.tobytes() + packed.tobytes())

    def decode(self, payload: bytes, spec: TensorSpec, batch: int) -> Array:  # noqa: D102
        return self.packed(payload, spec, batch).unpack()

    def packed(self, payload: bytes, spec: TensorSpec, batch: int) -> PackedAffine:
        """See `Packing`."""
        layout = Layout.of(spec, batch)
        data = decompress_exactly(payload, self._plain_bytes(layout, batch))
        ranges = np.frombuffer(data, "<f4", 2 * batch * layout.channels)
        if not np.isfinite(ranges).all():
            raise CodecError(f"payload of tensor {spec.name!r} has a range that is not finite")
        symbols = np.frombuffer(data, np.uint8, offset=ranges.nbytes).reshape(batch, -1)
        ranges = ranges.reshape(2, batch, layout.channels, 1)
        return PackedAffine(layout, self.bits, symbols, ranges)

    def max_payload_bytes(self, spec: TensorSpec, batch: int) -> int:  # noqa: D102
        return compressed_bound(self._plain_bytes(Layout.of(spec, batch), batch))

    def _plain_bytes(self, layout: Layout, batch: int) -> int:
        symbols = layout.channels * layout.values
        return batch * (8 * layout.channels + (symbols * self.bits + 7) // 8)


# Below this the reciprocal overflows float32; such a channel is constant to 37 decimal places.
_SMALLEST_STEP = np.float32(1e-37)
