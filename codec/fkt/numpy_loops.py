"""The transform codec's inner loops in numpy: the reference, and what serves without the extension.

One sample is a head (numbers of lanes and of outliers as uint16), the outliers (uint32 index
and int32 value in steps), and the entropy-coded symbols with their raw bits (rans.py).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from ..errors import CodecError
from ..spec import Array
from .loops import MAX_OUTLIERS, OUTLIER, RINGS, SHARES, NotFinite, TooLarge
from .rans import MAX_LANES, RansDecoder, least_lanes, rans_encode
from .symbol_plan import SymbolModel, SymbolPlan
from .symbols import (
    FINE,
    LAST_SINGLE,
    MAX_DROPPED_STEPS,
    MAX_MAGNITUDE,
    magnitudes_of,
    raw_bit_counts,
    raw_bits,
    symbols_of,
)

_HEAD = struct.Struct("<HH")


class NumpyLoops:
    """See `Loops`."""

    name = "numpy"

    def centred(self, rows: Array, mean: Array, order: Array) -> Array:  # noqa: D102
        found: Array = (rows - mean).take(order, axis=2)
        return found

    def restored(self, rows: Array, mean: Array, order: Array) -> Array:  # noqa: D102
        found = np.empty_like(rows)
        found[..., order] = rows
        found += mean
        return found

    def in_blocks(self, rows: Array, matrix: Array) -> Array:  # noqa: D102
        with np.errstate(over="ignore", invalid="ignore"):
            found: Array = rows[:, :1] * matrix[:, :1]
            for j in range(1, len(matrix)):  # a matrix product would add up in an order of its own
                found += rows[:, j : j + 1] * matrix[:, j : j + 1]
        return found

    def picked(self, values: Array, step: float, order: Array) -> Array:  # noqa: D102
        with np.errstate(over="ignore", invalid="ignore"):
            found: Array = values[order] / np.float32(step)
        if not np.isfinite(found).all():
            raise NotFinite("coefficients hold NaN or infinity")
        return found

    def outliers(self, values: Array, step: float, unsent: Array, names: Array) -> Array:  # noqa: D102
        steps = self.picked(values, step, unsent)
        (places,) = np.nonzero(np.abs(steps) > MAX_DROPPED_STEPS)
        large = steps[places]
        if len(places) > MAX_OUTLIERS or np.abs(large).max(initial=0) >= MAX_MAGNITUDE:
            raise TooLarge("coefficients are too large to be written")
        found = np.empty(len(places), OUTLIER)
        found["index"] = names[places]
        found["value"] = np.rint(large)
        return found

    def quantised(self, steps: Array, classes: Array, thresholds: Array) -> Array:  # noqa: D102
        sizes = np.abs(steps)
        if not sizes.max(initial=0) < MAX_MAGNITUDE:  # nor NaN, which is not less than anything
            raise TooLarge("coefficients are too large to be written")
        found = np.zeros(len(sizes), np.int32)
        (places,) = np.nonzero(sizes >= thresholds[classes, 1])
        large = sizes[places]
        up = np.maximum(np.floor(large + np.float32(0.5)).astype(np.int32), 1)
        single = np.minimum(up, LAST_SINGLE)
        up -= (up > 1) & (up == single) & (large < thresholds[classes[places], single])
        found[places] = up
        return np.where(steps < 0, -found, found)

    def placed(self, magnitudes: Array, classes: Array, offsets: Array) -> Array:  # noqa: D102
        found = np.zeros(len(magnitudes), np.int64)
        places = np.flatnonzero(magnitudes)
        own = magnitudes[places].astype(np.int64)
        found[places] = _fine(own, offsets[classes[places], symbols_of(np.abs(own))])
        return found

    def written(self, magnitudes: Array, plan: SymbolPlan, lanes: int, outliers: Array) -> bytes:  # noqa: D102
        model, size = plan.model, np.abs(magnitudes)
        symbols = symbols_of(size)
        first, second, second_contexts = plan.symbols(symbols)
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

    def read(  # noqa: D102
        self, payloads: Sequence[bytes], plan: SymbolPlan, offsets: Array, coefficients: int
    ) -> tuple[Array, list[Array]]:
        try:
            return _samples(payloads, plan, offsets, coefficients)
        except CodecError:
            if len(payloads) > 1:
                for payload in payloads:  # the first damaged one says what is wrong
                    _samples([payload], plan, offsets, coefficients)
            raise

    def narrowed(self, values: Array) -> tuple[Array, Array, Array]:  # noqa: D102
        small = values.astype(np.int16)
        rows, columns = np.nonzero(small != values)
        small[rows, columns] = 0
        return small, rows, columns

    def spread(self, values: Array, order: Array, scale: float, size: int) -> Array:  # noqa: D102
        found = np.zeros((len(values), size), np.float32)
        found[:, order] = values
        found *= np.float32(scale)
        return found

    def plan(self, classes: Array, model: SymbolModel) -> SymbolPlan:  # noqa: D102
        return SymbolPlan.of(classes, model)

    def expected(  # noqa: D102
        self, kept: Array, ring: Array, classes: Array, rings: Array
    ) -> tuple[Array, Array]:
        share = SHARES[rings & 3][ring]
        left = classes.astype(np.int64) - (rings >> 2).astype(np.int64)[ring]
        return (kept * share) >> 2, np.maximum(left, 0).astype(np.uint8)

    def raw_bits(self, magnitudes: Array) -> int:  # noqa: D102
        return int(raw_bit_counts(symbols_of(np.abs(magnitudes))).sum())

    def ring_energies(self, steps: Array, kept: Array, ring: Array) -> tuple[Array, Array]:  # noqa: D102
        before = kept.astype(np.float32) / FINE
        left = [(steps - before * np.float32(share / 4)) ** 2 for share in SHARES]
        energies = np.stack([np.bincount(ring, own, RINGS) for own in (steps**2, *left)])
        energies = energies.astype(np.float64)  # of no coefficients, bincount makes integers
        return energies[0], energies[1:]


def _fine(magnitudes: Array, offsets: Array) -> Array:
    """In 1/64 step, int64, of signed magnitudes (int64) that are not 0, with their offsets."""
    own = offsets.astype(np.int64)
    return FINE * magnitudes + np.where(magnitudes < 0, -own, own)


def _padded(values: Array, lanes: int, filler: int) -> Array:
    """Int64 `[..., whole steps]` of `[..., n]`."""
    size = values.shape[-1]
    found = np.full((*values.shape[:-1], -(-size // lanes) * lanes), filler, np.int64)
    found[..., :size] = values
    return found


def _head(payload: bytes, sent: int, coefficients: int) -> tuple[int, int, Array]:
    """Lanes, where the symbols begin, and the outliers."""
    if len(payload) < _HEAD.size:
        raise CodecError("payload ends within its head")
    lanes, count = _HEAD.unpack_from(payload)
    end = _HEAD.size + count * OUTLIER.itemsize
    if not least_lanes(sent) <= lanes <= MAX_LANES or end > len(payload):
        raise CodecError("payload has a damaged head")
    outliers = np.frombuffer(payload, OUTLIER, count, _HEAD.size)
    if count and outliers["index"].max() >= coefficients:
        raise CodecError("payload names a coefficient that there is not")
    return lanes, end, outliers


def _samples(
    payloads: Sequence[bytes], plan: SymbolPlan, offsets: Array, coefficients: int
) -> tuple[Array, list[Array]]:
    """See `Loops.read`; but of several damaged samples, any may be the one that the error is of."""
    found = np.empty((len(payloads), len(plan.classes)), np.int32)
    heads = [_head(payload, len(plan.classes), coefficients) for payload in payloads]
    # Samples with equally many lanes are decoded side by side.
    for lanes in sorted({lanes for lanes, _, _ in heads}):
        rows = [row for row, head in enumerate(heads) if head[0] == lanes]
        bodies = [payloads[row][heads[row][1] :] for row in rows]
        found[rows] = _bodies(bodies, lanes, plan, offsets)
    return found, [outliers for _, _, outliers in heads]


def _bodies(bodies: Sequence[bytes], lanes: int, plan: SymbolPlan, offsets: Array) -> Array:
    """Values, int64 `[samples, n]`, of what follows the heads."""
    decoder, model = RansDecoder(bodies, lanes), plan.model
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
    found[places] = _fine(magnitudes_of(own, negative, extra), offsets[classes, own])
    return found.reshape(symbols.shape)
