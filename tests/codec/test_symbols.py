"""Bits, symbols, and the order in which symbols go through the entropy stage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from splitpoint.codec import Array
from splitpoint.codec.fkt.bits import bits_of, numbers_of
from splitpoint.codec.fkt.rans import TOTAL
from splitpoint.codec.fkt.symbol_plan import TOGETHER, SymbolModel, SymbolPlan
from splitpoint.codec.fkt.symbols import (
    EXTRA_BITS,
    FIRST,
    MAX_MAGNITUDE,
    SYMBOLS,
    magnitudes_of,
    raw_bit_counts,
    raw_bits,
    symbols_of,
)

CLASSES = 40


def frequencies(seed: int, *, classes: int = CLASSES) -> Array:
    """From classes that are nearly always 0 to those that are flat, at least 1 each."""
    rng = np.random.default_rng(seed)
    decay = np.linspace(0.02, 1.0, classes)[:, None] ** np.arange(SYMBOLS)
    shares = decay * rng.uniform(0.3, 1, (classes, SYMBOLS))
    shares /= shares.sum(1, keepdims=True)
    found = 1 + np.floor(shares * (TOTAL - SYMBOLS)).astype(np.int64)
    found[:, 0] += TOTAL - found.sum(1)
    return found.astype(np.uint16)


# --- bits ---


@given(
    st.lists(st.integers(0, 53).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, 2**n - 1))))
)
def test_numbers_come_back_from_their_bits(pairs: list[tuple[int, int]]) -> None:
    counts = np.array([count for count, _ in pairs], np.int64)
    numbers = np.array([number for _, number in pairs], np.int64)
    bits = bits_of(numbers, counts)
    assert bits.dtype == np.uint8
    assert "".join(map(str, bits)) == "".join(
        f"{number:0{count}b}" for count, number in pairs if count
    )
    np.testing.assert_array_equal(numbers_of(bits, counts), numbers)


def test_only_the_lowest_bits_are_written() -> None:
    bits = bits_of(np.array([0b1101, 0b111]), np.array([3, 1]))
    assert bits.tolist() == [1, 0, 1, 1]


# --- symbols ---

EDGES = np.unique(
    np.concatenate(
        [
            np.arange(300),
            *(FIRST + d for d in (-1, 0, 1)),
            *(FIRST + (1 << EXTRA_BITS) + d for d in (-2, -1)),
        ]
    )
)
EDGES = EDGES[(EDGES >= 0) & (EDGES <= MAX_MAGNITUDE)]


def roundtrip(magnitudes: Array) -> Array:
    """Signed magnitudes through symbols and bits."""
    size = np.abs(magnitudes)
    symbols = symbols_of(size)
    bits = raw_bits(size, magnitudes < 0, symbols)
    assert len(bits) == raw_bit_counts(symbols).sum()
    nonzero = np.flatnonzero(symbols)
    negative, extra = bits[: len(nonzero)] > 0, bits[len(nonzero) :]
    found = np.zeros(len(size), np.int64)
    found[nonzero] = magnitudes_of(symbols[nonzero], negative, extra)
    return found


def test_symbols_cover_all_magnitudes_without_gaps() -> None:
    ends = FIRST + (1 << EXTRA_BITS)
    assert FIRST[0] == 0
    np.testing.assert_array_equal(ends[:-1], FIRST[1:])
    assert ends[-1] == MAX_MAGNITUDE + 1


def test_each_symbol_begins_and_ends_where_it_should() -> None:
    np.testing.assert_array_equal(symbols_of(FIRST), np.arange(SYMBOLS))
    last = FIRST + (1 << EXTRA_BITS) - 1
    np.testing.assert_array_equal(symbols_of(last), np.arange(SYMBOLS))
    assert last[-1] == MAX_MAGNITUDE
    assert symbols_of(EDGES).dtype == np.uint8


@pytest.mark.parametrize("sign", [1, -1])
def test_magnitudes_around_every_edge_come_back(sign: int) -> None:
    assert len(EDGES) > 300
    assert EDGES[-1] == MAX_MAGNITUDE
    for magnitude in EDGES.tolist():
        assert roundtrip(np.array([sign * magnitude])).tolist() == [sign * magnitude]
    np.testing.assert_array_equal(roundtrip(sign * EDGES), sign * EDGES)


@given(st.lists(st.integers(-MAX_MAGNITUDE, MAX_MAGNITUDE) | st.integers(-12, 12)))
def test_any_magnitudes_come_back(magnitudes: list[int]) -> None:
    assert roundtrip(np.array(magnitudes, np.int64)).tolist() == magnitudes


def test_zeros_need_no_bits() -> None:
    assert raw_bit_counts(np.zeros(9, np.uint8)).tolist() == [0] * 9
    assert roundtrip(np.zeros(9, np.int64)).tolist() == [0] * 9


# --- the model ---


@given(st.integers(0, 99), st.integers(1, CLASSES))
def test_every_context_adds_up(seed: int, classes: int) -> None:
    model = SymbolModel(frequencies(seed, classes=classes))
    widths = model.widths.astype(np.int64)
    assert len(widths) == 3 * classes + 1
    assert (widths.sum(1) == TOTAL).all()
    assert (widths[:classes] >= 1).all()
    assert widths[model.certain].tolist() == [TOTAL] + [0] * (SYMBOLS - 1)
    assert (widths[model.masks : model.nonzero] >= 1).all()
    assert (widths[model.nonzero :, : SYMBOLS - 1] >= 1).all()
    assert (widths[model.nonzero :, SYMBOLS - 1] == 0).all()
    np.testing.assert_array_equal(model.starts + widths, np.cumsum(widths, axis=1))
    assert model.table.symbols.shape == (len(widths) * TOTAL,)


@pytest.mark.parametrize("zero", [1, TOTAL * 3 // 4 - 1, TOTAL * 3 // 4, TOTAL - SYMBOLS + 1])
def test_extreme_frequencies_add_up_too(zero: int) -> None:
    row = np.ones((1, SYMBOLS), np.uint16)
    row[0, 0] = zero
    row[0, 1] = TOTAL - zero - (SYMBOLS - 2)
    model = SymbolModel(row)
    assert (model.widths.sum(1, dtype=np.int64) == TOTAL).all()
    assert (model.widths[model.masks] >= 1).all()
    assert (model.widths[model.nonzero, : SYMBOLS - 1] >= 1).all()
    assert bool(model.mostly_zero[0]) is (zero >= TOTAL * 3 // 4)


# --- the plan ---


def drawn(seed: int, count: int) -> tuple[SymbolModel, Array, Array]:
    """A model, and classes and symbols that suit it."""
    rng, rows = np.random.default_rng(seed), frequencies(seed)
    classes = np.sort(rng.integers(0, CLASSES, count))[::-1].astype(np.uint8)
    if seed % 2:
        rng.shuffle(classes)
    ends = np.cumsum(rows.astype(np.int64), axis=1)
    symbols = (rng.integers(0, TOTAL, count)[:, None] >= ends[classes]).sum(1).astype(np.uint8)
    return SymbolModel(rows), classes, symbols


@given(st.integers(0, 999), st.integers(0, 200))
def test_every_coefficient_has_one_place(seed: int, count: int) -> None:
    model, classes, symbols = drawn(seed, count)
    plan = SymbolPlan.of(classes, model)
    places = np.concatenate([plan.single, plan.sparse])
    np.testing.assert_array_equal(np.sort(places), np.arange(count))
    assert len(plan.first) == len(plan.single) + -(-len(plan.sparse) // TOGETHER)
    first, second, contexts = plan.symbols(symbols)
    assert len(first) == len(plan.first)
    assert len(second) == len(contexts)
    nonzero = plan.nonzero(first)
    found = np.zeros(count, np.int64)
    found[plan.single] = first[: len(plan.single)]
    found[nonzero] = second + 1
    np.testing.assert_array_equal(found, symbols)
    np.testing.assert_array_equal(contexts, model.nonzero + classes[nonzero].astype(np.int64))


@given(st.integers(0, 999), st.integers(0, 200))
def test_no_symbol_of_a_plan_is_impossible(seed: int, count: int) -> None:
    model, classes, symbols = drawn(seed, count)
    plan = SymbolPlan.of(classes, model)
    first, second, contexts = plan.symbols(symbols)
    assert (model.widths[plan.first, first] > 0).all()
    assert (model.widths[contexts, second] > 0).all()


def test_four_at_a_time_cost_no_more_bits() -> None:
    """Within 1 %, on symbols as frequent as the model says."""
    model, classes, symbols = drawn(2, 60_000)
    plan = SymbolPlan.of(classes, model)
    assert len(plan.sparse) > 5_000
    first, second, contexts = plan.symbols(symbols)

    def bits(context: Array, symbol: Array) -> float:
        return float(np.log2(TOTAL / model.widths[context, symbol]).sum())

    planned = bits(plan.first, first) + bits(contexts, second)
    assert planned < 1.01 * bits(classes.astype(np.int64), symbols)
