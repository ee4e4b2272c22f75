"""The table of the codec `fkt` for a tensor: steps, classes, frequencies, and how to round."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from splitpoint.codec import Array, TensorSpec
from splitpoint.codec.fkt.rans import BITS_PER_LANE, MAX_LANES, TOTAL
from splitpoint.codec.fkt.symbols import (
    EXTRA_BITS,
    FINE,
    FIRST,
    LAST_SINGLE,
    MAX_MAGNITUDE,
    SYMBOLS,
    symbols_of,
)
from splitpoint.codec.fkt.table import (
    CLASS_WIDTH,
    CLASSES,
    FIRST_CLASS,
    MAX_FITTED,
    MAX_LOG_STEP,
    MAX_THRESHOLD,
    OCTAVE,
    FktTable,
)

from .fkt_transform import Blocks, Moments, transform_of

# Expected divergence of the output, in nats, at each level, coarsest first. A halving costs about
# half a bit for every coefficient that is sent. What is really lost is more at coarse levels.
LEVEL_LOSSES = (0.04, 0.028, 0.02, 0.014, 0.01, 0.006, 0.003, 0.0013)
# What a bit is worth, in squared steps (see `_thresholds`): measured, see docs/codec.md.
BIT_WORTH = 0.07
MAX_FIT_VALUES = 200_000  # values of a level that thresholds and frequencies are fitted to
# More lanes would shorten encoding and decoding further, for a bit each.
ENOUGH_LANES, ENOUGH_STEPS = 128, 96
MIN_SEEN = 200  # occurrences of a symbol in a class before it gets a place of its own
ROUNDS = 3


def fit_table(
    spec: TensorSpec,
    blocks: Blocks,
    moments: Moments,
    coefficients: Array,
    losses: Sequence[float] = LEVEL_LOSSES,
) -> FktTable:
    """The table of a tensor from its moments and the `Blocks.coefficients` of inputs.

    The coefficients may be those of some of the inputs only. There is a level for each of `losses`,
    coarsest first.
    """
    mean, forward = transform_of(blocks, moments)
    fitted = [m.ravel() for m in blocks.axes if m is not None and len(m) <= MAX_FITTED]
    axes = np.concatenate([np.zeros(0, np.float32), *fitted])
    nothing = np.zeros((CLASSES, SYMBOLS))
    draft = FktTable(
        spec=spec,
        mean=mean,
        axes=axes,
        forward=forward,
        band=blocks.band,
        log_scale=np.zeros((blocks.grid.channels, blocks.grid.positions), np.int8),
        log_step=np.zeros(1, np.int16),
        lanes=np.ones(1, np.int16),
        frequencies=_frequencies(nothing),
        offsets=nothing.astype(np.int8),
        thresholds=_thresholds(_frequencies(nothing), nothing),
    )
    values = draft.components(coefficients)
    return _fitted(draft, values, _log_steps(values.reshape(len(values), -1), losses))


def refit_table(table: FktTable, rows: Array, log_step: int) -> FktTable:
    """The same transform with one level, of that step, for rows `[n, C, P]` of another kind."""
    return _fitted(table, table.transform(rows), np.array([log_step]))


def _fitted(draft: FktTable, values: Array, log_step: Array) -> FktTable:
    """Everything but the transform, from components `[n, C, P]` and the step of each level."""
    scale = np.sqrt((values**2).mean(0, dtype=np.float64))
    log_scale = np.rint(OCTAVE * np.log2(np.maximum(scale, 1e-30)))
    log_scale = np.clip(log_scale, -128, 127).astype(np.int8)
    flat = values.reshape(len(values), -1)
    samples = [_sample(flat, log_scale.ravel(), int(step)) for step in log_step]
    thresholds = draft.thresholds
    for _ in range(ROUNDS):
        counts, sums, raw_bits = np.zeros((CLASSES, SYMBOLS)), np.zeros((CLASSES, SYMBOLS)), []
        for sizes, classes, share, _ in samples:
            magnitudes = draft.loops.quantised(sizes, classes.astype(np.uint8), thresholds)
            symbols = symbols_of(magnitudes)
            place = classes * SYMBOLS + symbols
            counts += np.bincount(place, minlength=counts.size).reshape(counts.shape)
            sums += np.bincount(place, sizes - magnitudes, counts.size).reshape(counts.shape)
            raw_bits.append(float(((symbols > 0) + EXTRA_BITS[symbols]).sum()) * share)
        frequencies = _frequencies(counts)
        offsets = _offsets(counts, sums)
        thresholds = _thresholds(frequencies, offsets)
    return replace(
        draft,
        log_scale=log_scale,
        log_step=log_step.astype(np.int16),
        lanes=np.array(
            [_lanes(bits, n) for bits, (*_, n) in zip(raw_bits, samples, strict=True)], np.int16
        ),
        frequencies=frequencies,
        offsets=np.rint(FINE * offsets).astype(np.int8),
        thresholds=thresholds,
    )


def _log_steps(values: Array, losses: Sequence[float]) -> Array:
    """The step of each of `losses`, coarsest first, for components `[inputs, C x P]`.

    Half the squared error of an input, summed over its coefficients, is the loss.
    """
    columns = _some(values.shape[1], max(MAX_FIT_VALUES // 2 // len(values), 1))
    part = np.abs(values[:, columns])
    inputs_seen = part.size / values.shape[1]

    @cache
    def loss(log_step: int) -> float:
        steps = part / np.float32(2.0 ** (log_step / OCTAVE))
        error = steps - np.where(steps < _TYPICAL_DEAD_ZONE, 0, np.floor(steps + 0.5))
        return float((error**2).sum() / inputs_seen * 4.0 ** (log_step / OCTAVE) / 2)

    found = [
        bisect.bisect_left(range(-MAX_LOG_STEP, MAX_LOG_STEP), target, key=loss) - MAX_LOG_STEP
        for target in losses
    ]
    for level in range(len(found) - 2, -1, -1):  # every level is coarser than the next
        found[level] = max(found[level], found[level + 1] + 1)
    return np.array(found) - max(found[0] - MAX_LOG_STEP, 0)


_TYPICAL_DEAD_ZONE = 0.65


def _some(count: int, most: int) -> Array:
    """At most so many of `count` indices, the same every time."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def _sample(values: Array, log_scale: Array, log_step: int) -> tuple[Array, Array, float, int]:
    """Some of the values that are sent at a step: sizes in steps and classes.

    Then inputs per value, and how many coefficients of an input are sent.
    """
    ratio = log_scale.astype(np.int64) - log_step - FIRST_CLASS
    sent = np.flatnonzero(ratio >= 0)
    chosen = sent[_some(len(sent), max(MAX_FIT_VALUES // len(values), 1))]
    classes = np.minimum(ratio[chosen] // CLASS_WIDTH, CLASSES - 1)
    sizes = np.abs(values[:, chosen]) / np.float32(2.0 ** (log_step / OCTAVE))
    sizes = np.minimum(sizes, np.float32(MAX_MAGNITUDE - 1))  # of an int, numpy 1 makes float64
    share = len(sent) / max(sizes.size, 1)
    return sizes.ravel(), np.tile(classes, len(values)), share, len(sent)


def _frequencies(counts: Array) -> Array:
    """Frequencies of 1 and more that add up to 2^12 in every class, uint16."""
    shares = counts + 0.3 * 0.6 ** np.arange(SYMBOLS)  # what was never seen may come all the same
    shares /= shares.sum(1, keepdims=True)
    found = 1 + np.floor(shares * (TOTAL - SYMBOLS)).astype(np.int64)
    found[np.arange(CLASSES), shares.argmax(1)] += TOTAL - found.sum(1)
    frequencies: Array = found.astype(np.uint16)
    return frequencies


def _offsets(counts: Array, sums: Array) -> Array:
    """The mean of a symbol's values, from its magnitude on, in steps: where errors are least."""
    pooled = sums.sum(0) / np.maximum(counts.sum(0), 1)
    found = np.where(counts >= MIN_SEEN, sums / np.maximum(counts, 1), pooled)
    found[:, 0] = 0
    clipped: Array = np.clip(found, -0.5, 0.5)
    return clipped


def _thresholds(frequencies: Array, offsets: Array) -> Array:
    """From how many steps on a value becomes a symbol and not the one before.

    There the squared errors of both, plus their bits times `BIT_WORTH`, are equal.
    """
    bits = np.log2(TOTAL / frequencies) + EXTRA_BITS + (np.arange(SYMBOLS) > 0)
    places = FIRST + offsets
    gap = np.maximum(np.diff(places, axis=1), 0.25)
    middle = (places[:, 1:] + places[:, :-1]) / 2
    found = np.zeros((CLASSES, SYMBOLS))
    found[:, 1:] = middle + BIT_WORTH * np.diff(bits, axis=1) / (2 * gap)
    single = np.arange(1, LAST_SINGLE + 1)
    found[:, single] = np.clip(found[:, single], single - 0.5, single + MAX_THRESHOLD - 0.25)
    found[:, LAST_SINGLE + 1 :] = 0  # larger magnitudes are rounded to the nearest
    return found.astype(np.float32)


def _lanes(raw_bits: float, sent: int) -> int:
    """As many lanes as `ENOUGH_STEPS` ask for and raw bits fill for nearly every input.

    A lane costs a bit beyond its room, and where its room is empty four bytes.
    """
    wanted = min(max(sent // ENOUGH_STEPS, ENOUGH_LANES), MAX_LANES)
    return max(min(int(0.8 * raw_bits / BITS_PER_LANE), wanted), 1)
