"""The coefficients of a tensor to bytes and back: quantisation and entropy coding.

One sample is a head (numbers of lanes and of outliers as uint16), the outliers (uint32 index
and int32 value in steps), and the entropy-coded symbols with their raw bits (rans.py).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from ..errors import CodecError
from ..spec import Array
from .packed import PackedFkt
from .rans import RansDecoder, rans_encode
from .symbol_plan import SymbolPlan
from .symbols import (
    LAST_SINGLE,
    MAX_MAGNITUDE,
    magnitudes_of,
    raw_bit_counts,
    raw_bits,
    symbols_of,
)
from .table import (
    FINE,
    MAX_DROPPED_STEPS,
    MAX_LANES,
    FktTable,
    Level,
    least_lanes,
)

MAX_ERROR_STEPS, MAX_OUTLIERS = MAX_DROPPED_STEPS, (1 << 16) - 1
_HEAD = struct.Struct("<HH")
_OUTLIER = np.dtype([("index", "<u4"), ("value", "<i4")])


def rounded(sizes: Array, classes: Array, thresholds: Array) -> Array:
    """Magnitudes, int64, of sizes in steps: where error and bits together cost least."""
    found = np.zeros(len(sizes), np.int64)
    (places,) = np.nonzero(sizes >= thresholds[classes, 1])
    large = sizes[places]
    up = np.maximum(np.floor(large + 0.5).astype(np.int64), 1)
    single = np.minimum(up, LAST_SINGLE)
    up -= (up > 1) & (up == single) & (large < thresholds[classes[places], single])
    found[places] = up
    return found


def _padded(values: Array, lanes: int, filler: int) -> Array:
    """Int64 `[..., whole steps]` of `[..., n]`."""
    size = values.shape[-1]
    found = np.full((*values.shape[:-1], -(-size // lanes) * lanes), filler, np.int64)
    found[..., :size] = values
    return found


class CoefficientCoder:
    """Coefficients of one table at one level. Made once, and then shared between threads."""

    def __init__(self, table: FktTable, level: int) -> None:
        self.table, self.level = table, Level.of(table, level)
        self.size = table.log_scale.size
        sent = np.zeros(self.size, bool)
        sent[self.level.order] = True
        self._unsent = np.flatnonzero(~sent).astype(np.int32)
        self.plan = SymbolPlan.of(self.level.classes, table.model)

    def in_steps(self, rows: Array) -> Array:
        """Coefficients, float32 `[batch, C x P]` in steps; `CodecError` if any is not finite."""
        found: Array = self.table.transform(rows).reshape(len(rows), -1)
        found = found / np.float32(self.level.step)
        if not np.isfinite(found).all():
            raise CodecError(
                f"tensor {self.table.spec.name!r} holds NaN, infinity or values beyond float32",
                "use the codec raw",
            )
        return found

    def write_intra(self, steps: Array) -> bytes:
        """One sample of `in_steps`."""
        magnitudes = self.quantise(steps[self.level.order], self.level.classes)
        return self.write(magnitudes, self.plan, self.level.lanes, self.outliers_of(steps))

    def read_intra(self, payloads: Sequence[bytes]) -> PackedFkt:
        """The coefficients of the samples."""
        return PackedFkt.of(self.table, self.level, *self.read(payloads, self.plan))

    def outliers_of(self, steps: Array) -> Array:
        """Coefficients that are not sent, but are far larger in this sample than ever before."""
        values = steps[self._unsent]
        (places,) = np.nonzero(np.abs(values) > MAX_DROPPED_STEPS)
        found = np.empty(len(places), _OUTLIER)
        found["index"] = self._unsent[places]
        found["value"] = np.rint(np.clip(values[places], -MAX_MAGNITUDE, MAX_MAGNITUDE))
        if len(places) and np.abs(values[places]).max() >= MAX_MAGNITUDE:
            self._too_large()
        if len(places) > MAX_OUTLIERS:
            self._too_large()
        return found

    def quantise(self, steps: Array, classes: Array) -> Array:
        """Signed magnitudes, int64, of values in steps, float32 `[n]`.

        `CodecError` for a magnitude that cannot be written.
        """
        size = np.abs(steps)
        if size.size and size.max() >= MAX_MAGNITUDE:
            self._too_large()
        found = rounded(size, classes, self.table.thresholds)
        return np.where(steps < 0, -found, found)

    def fine(self, magnitudes: Array, classes: Array) -> Array:
        """Where the decoder puts them, int64 in 1/64 step."""
        found = np.zeros(len(magnitudes), np.int64)
        places = np.flatnonzero(magnitudes)
        own = magnitudes[places]
        found[places] = self._fine(own, classes[places], symbols_of(np.abs(own)))
        return found

    def _fine(self, magnitudes: Array, classes: Array, symbols: Array) -> Array:
        """The same of magnitudes that are not 0 and whose symbols are known."""
        offsets = self.table.offsets[classes, symbols].astype(np.int64)
        return FINE * magnitudes + np.where(magnitudes < 0, -offsets, offsets)

    def write(self, magnitudes: Array, plan: SymbolPlan, lanes: int, outliers: Array) -> bytes:
        """One sample from its signed magnitudes `[n]`, whose classes are those of `plan`."""
        model, size = self.table.model, np.abs(magnitudes)
        symbols = symbols_of(size)
        first, second, second_contexts = plan.symbols(symbols, model)
        contexts = np.concatenate(
            [
                _padded(plan.first, lanes, model.certain),
                _padded(second_contexts, lanes, model.certain),
            ]
        )
        coded = np.concatenate([_padded(first, lanes, 0), _padded(second, lanes, 0)])
        return b"".join(
            (
                _HEAD.pack(lanes, len(outliers)),
                outliers.tobytes(),
                rans_encode(
                    model.starts[contexts, coded].reshape(-1, lanes),
                    model.widths[contexts, coded].reshape(-1, lanes),
                    raw_bits(size, magnitudes < 0, symbols),
                ),
            )
        )

    def read(self, payloads: Sequence[bytes], plan: SymbolPlan) -> tuple[Array, list[Array]]:
        """Values, int64 `[samples, n]` in 1/64 step, and each sample's outliers.

        Samples with equally many lanes are decoded side by side. `CodecError` for damage.
        """
        found = np.empty((len(payloads), len(plan.classes)), np.int64)
        heads = [self._head(payload, plan) for payload in payloads]
        for lanes in sorted({lanes for lanes, _, _ in heads}):
            rows = [row for row, head in enumerate(heads) if head[0] == lanes]
            bodies = [payloads[row][heads[row][1] :] for row in rows]
            found[rows] = self._read(bodies, lanes, plan)
        return found, [outliers for _, _, outliers in heads]

    def _head(self, payload: bytes, plan: SymbolPlan) -> tuple[int, int, Array]:
        """Lanes, where the symbols begin, and the outliers."""
        if len(payload) < _HEAD.size:
            raise CodecError("payload ends within its head")
        lanes, count = _HEAD.unpack_from(payload)
        end = _HEAD.size + count * _OUTLIER.itemsize
        if not least_lanes(len(plan.classes)) <= lanes <= MAX_LANES or end > len(payload):
            raise CodecError("payload has a damaged head")
        outliers = np.frombuffer(payload, _OUTLIER, count, _HEAD.size)
        if count and outliers["index"].max() >= self.size:
            raise CodecError("payload names a coefficient that there is not")
        return lanes, end, outliers

    def _read(self, bodies: Sequence[bytes], lanes: int, plan: SymbolPlan) -> Array:
        decoder, model = RansDecoder(bodies, lanes), self.table.model
        contexts = np.broadcast_to(plan.first, (len(bodies), len(plan.first)))
        first = decoder.symbols(model.table, _padded(contexts, lanes, model.certain))
        symbols = np.zeros((len(bodies), len(plan.classes)), np.uint8)
        symbols[:, plan.single] = first[:, : len(plan.single)]
        rest = [plan.nonzero(row[: len(plan.first)]) for row in first]
        contexts = np.full((len(bodies), max(map(len, rest))), model.certain, np.int64)
        for row, places in zip(contexts, rest, strict=True):
            row[: len(places)] = model.nonzero + plan.classes[places].astype(np.int64)
        second = decoder.symbols(model.table, _padded(contexts, lanes, model.certain))
        for row, places, own in zip(symbols, rest, second, strict=True):
            row[places] = own[: len(places)] + 1
        bits = decoder.finish([int(raw_bit_counts(row).sum()) for row in symbols])
        signs = [np.count_nonzero(row) for row in symbols]
        negative = np.concatenate([own[:n] for own, n in zip(bits, signs, strict=True)]) > 0
        extra = np.concatenate([own[n:] for own, n in zip(bits, signs, strict=True)])
        places = np.flatnonzero(symbols)
        own, classes = symbols.ravel()[places], plan.classes[places % len(plan.classes)]
        found = np.zeros(symbols.size, np.int64)
        found[places] = self._fine(magnitudes_of(own, negative, extra), classes, own)
        return found.reshape(symbols.shape)

    def _too_large(self) -> None:
        raise CodecError(
            f"tensor {self.table.spec.name!r} holds values far beyond those of calibration",
            "use the codec raw",
        )
