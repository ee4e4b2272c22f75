"""The entropy coder: what went in comes out, in as many bits as its information."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from splitpoint.codec import Array, CodecError
from splitpoint.codec.fkt.rans import TOTAL, RansDecoder, SymbolTable, rans_encode

SYMBOLS = 16


def frequencies_of(rng: np.random.Generator, contexts: int, skew: float) -> Array:
    """Rows that add up to 2^12; the more skewed, the more symbols never occur."""
    shares = rng.random((contexts, SYMBOLS)) ** skew
    found = np.floor(shares / shares.sum(1, keepdims=True) * TOTAL).astype(np.int64)
    found[np.arange(contexts), found.argmax(1)] += TOTAL - found.sum(1)
    return found


class Message:
    """Random symbols `[steps x lanes]` in random contexts, and random raw bits."""

    def __init__(
        self,
        seed: int,
        steps: int,
        lanes: int,
        *,
        contexts: int = 3,
        skew: float = 3.0,
        bits: int | None = None,
    ) -> None:
        rng = np.random.default_rng(seed)
        # Tables are those of the shape, so that messages can be decoded side by side.
        self.frequencies = frequencies_of(np.random.default_rng(contexts), contexts, skew)
        self.table, self.lanes = SymbolTable(self.frequencies), lanes
        self.contexts = rng.integers(0, contexts, steps * lanes)
        slots = rng.integers(0, TOTAL, steps * lanes)
        ends = np.cumsum(self.frequencies, axis=1)
        self.symbols = (slots[:, None] >= ends[self.contexts]).sum(1)
        count = 24 * lanes if bits is None else bits
        self.bits = rng.integers(0, 2, count).astype(np.uint8)

    @property
    def widths(self) -> Array:
        found: Array = self.frequencies[self.contexts, self.symbols]
        return found

    @property
    def payload(self) -> bytes:
        starts = np.cumsum(self.frequencies, axis=1) - self.frequencies
        return rans_encode(
            starts[self.contexts, self.symbols].astype(np.uint32).reshape(-1, self.lanes),
            self.widths.astype(np.uint32).reshape(-1, self.lanes),
            self.bits,
        )

    def assert_decoded(self, symbols: Array, bits: Array) -> None:
        np.testing.assert_array_equal(symbols, self.symbols)
        np.testing.assert_array_equal(bits, self.bits)


messages: dict[str, Any] = {
    "seed": st.integers(0, 2**32 - 1),
    "steps": st.integers(0, 60),
    "lanes": st.integers(1, 70),
    "contexts": st.integers(1, 5),
    "skew": st.sampled_from([0.0, 1.0, 3.0, 30.0, 300.0]),
    "bits": st.one_of(st.integers(0, 40), st.integers(0, 3_000)),
}


@given(**messages)
@example(seed=0, steps=0, lanes=1, contexts=1, skew=1.0, bits=0)
@example(seed=0, steps=0, lanes=1, contexts=1, skew=1.0, bits=17)
@example(seed=0, steps=3, lanes=512, contexts=2, skew=3.0, bits=9)
def test_what_goes_in_comes_out(
    seed: int, steps: int, lanes: int, contexts: int, skew: float, bits: int
) -> None:
    message = Message(seed, steps, lanes, contexts=contexts, skew=skew, bits=bits)
    decoder = RansDecoder([message.payload], lanes)
    symbols = decoder.symbols(message.table, message.contexts[None])
    (raw,) = decoder.finish([bits])
    message.assert_decoded(symbols[0], raw)
    assert symbols.dtype == np.uint8
    assert raw.dtype == np.uint8


@given(**messages)
def test_size_is_that_of_the_information(
    seed: int, steps: int, lanes: int, contexts: int, skew: float, bits: int
) -> None:
    """A lane costs 32 bits at most, and 2 or so where there are enough raw bits to fill all.

    What one wastes then is exponentially distributed, with 1.4 bits on average: 24 for all together
    are never reached by chance.
    """
    message = Message(seed, steps, lanes, contexts=contexts, skew=skew, bits=bits)
    information = float(np.log2(TOTAL / message.widths).sum())
    most = information + 0.02 * len(message.symbols) + bits + 24
    most += 2 * lanes if bits >= 31 * lanes else 32 * lanes
    assert len(message.payload) * 8 <= most


@pytest.mark.parametrize("steps", [10, 100, 1_000])
def test_a_lane_costs_little_more_than_a_bit(steps: int) -> None:
    lanes = 256
    message = Message(2, steps, lanes)
    information = float(np.log2(TOTAL / message.widths).sum()) + len(message.bits)
    assert len(message.payload) * 8 < information * 1.0005 + 1.4 * lanes


def test_a_long_message_wastes_less_than_a_thousandth() -> None:
    message = Message(1, 4_000, 32)
    information = float(np.log2(TOTAL / message.widths).sum()) + len(message.bits)
    assert information * 0.999 < len(message.payload) * 8 < information * 1.001 + 32 * 2


def test_certain_symbols_cost_nothing() -> None:
    widths = np.full((500, 8), TOTAL, np.uint32)
    bits = np.random.default_rng(0).integers(0, 2, 200).astype(np.uint8)
    few = rans_encode(np.zeros((0, 8), np.uint32), widths[:0], bits)
    assert rans_encode(np.zeros((500, 8), np.uint32), widths, bits) == few


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 6), lanes=st.integers(1, 40))
def test_samples_side_by_side_are_those_one_by_one(seed: int, count: int, lanes: int) -> None:
    """Payloads of different lengths, with different numbers of raw bits."""
    samples = [Message(seed + i, 12, lanes, bits=lanes * (10 + 7 * i)) for i in range(count)]
    payloads = [sample.payload for sample in samples]
    together = RansDecoder(payloads, lanes)
    contexts = np.stack([sample.contexts for sample in samples])
    found = together.symbols(samples[0].table, contexts)
    raw = together.finish([len(sample.bits) for sample in samples])
    for row, sample in enumerate(samples):
        sample.assert_decoded(found[row], raw[row])
        alone = RansDecoder([payloads[row]], lanes)
        own = alone.symbols(sample.table, sample.contexts[None])
        np.testing.assert_array_equal(own[0], found[row])
        sample.assert_decoded(own[0], alone.finish([len(sample.bits)])[0])


def test_symbols_may_be_asked_for_in_parts() -> None:
    message = Message(3, 20, 8)
    decoder = RansDecoder([message.payload], 8)
    parts = [
        decoder.symbols(message.table, message.contexts[None, a:b])
        for a, b in ((0, 8), (8, 8), (8, 120), (120, 160))
    ]
    (raw,) = decoder.finish([len(message.bits)])
    message.assert_decoded(np.concatenate(parts, axis=1)[0], raw)


def decode(message: Message, payload: bytes) -> Array:
    decoder = RansDecoder([payload], message.lanes)
    symbols = decoder.symbols(message.table, message.contexts[None])
    decoder.finish([len(message.bits)])
    return symbols[0]


@pytest.mark.parametrize("lanes", [1, 7, 16])
def test_every_truncation_is_refused(lanes: int) -> None:
    message = Message(4, 200 // lanes, lanes)
    payload = message.payload
    for length in range(len(payload)):
        with pytest.raises(CodecError):
            decode(message, payload[:length])


def test_a_truncation_beside_a_sound_sample_is_refused() -> None:
    """The longer neighbour's room must not hide that words are missing."""
    long, short = Message(5, 60, 8), Message(6, 60, 8)
    contexts = np.stack([long.contexts, short.contexts])
    decoder = RansDecoder([long.payload * 2, short.payload[:-2]], 8)
    decoder.symbols(long.table, contexts)
    with pytest.raises(CodecError):
        decoder.finish([len(long.bits), len(short.bits)])


def test_damage_is_refused_or_harmless() -> None:
    """Most damage shows in the number of raw bits; frames carry a checksum for the rest."""
    message, rng = Message(7, 30, 8), random.Random(0)
    payload, refused = message.payload, 0
    for _ in range(3_000):
        damaged = bytearray(payload)
        for _ in range(rng.choice((1, 1, 2, 8))):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        try:
            symbols = decode(message, bytes(damaged))
        except CodecError:
            refused += 1
            continue
        assert symbols.max() < SYMBOLS
    assert refused > 1_500


def test_random_bytes_raise_nothing_else() -> None:
    message, rng = Message(8, 30, 4), random.Random(1)
    refused = 0
    for _ in range(3_000):
        try:
            symbols = decode(message, rng.randbytes(rng.randrange(120)))
        except CodecError:
            refused += 1
            continue
        assert symbols.max() < SYMBOLS
    assert refused > 2_900


def test_table_holds_every_slot_of_every_symbol() -> None:
    frequencies = frequencies_of(np.random.default_rng(0), 4, 5.0)
    table = SymbolTable(frequencies)
    for context, own in enumerate(frequencies):
        slots = slice(context * TOTAL, (context + 1) * TOTAL)
        symbols, widths, offsets = table.symbols[slots], table.widths[slots], table.offsets[slots]
        np.testing.assert_array_equal(np.bincount(symbols, minlength=SYMBOLS), own)
        np.testing.assert_array_equal(widths, own[symbols])
        starts = np.cumsum(own) - own
        np.testing.assert_array_equal(offsets + starts[symbols], np.arange(TOTAL))
