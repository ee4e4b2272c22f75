"""The entropy coder: what went in comes out, in as many bits as its information."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from splitpoint.codec import Array, CodecError
from splitpoint.codec.rans import TOTAL, RansDecoder, SymbolTable, rans_encode

SYMBOLS = 16


def frequencies_of(rng: np.random.Generator, contexts: int, skew: float) -> Array:
    """Rows that add up to 2^12; the more skewed, the more symbols never occur."""
    shares = rng.random((contexts, SYMBOLS)) ** skew
    found = np.floor(shares / shares.sum(1, keepdims=True) * TOTAL).astype(np.int64)
    found[np.arange(contexts), found.argmax(1)] += TOTAL - found.sum(1)
    return found


class Message:
    """Random symbols `[steps x lanes]` in random contexts, and a random stash."""

    def __init__(
        self, seed: int, steps: int, lanes: int, *, contexts: int = 3, skew: float = 3.0
    ) -> None:
        rng = np.random.default_rng(seed)
        # Tables are those of the shape, so that messages can be decoded side by side.
        self.frequencies = frequencies_of(np.random.default_rng(contexts), contexts, skew)
        self.table, self.lanes = SymbolTable(self.frequencies), lanes
        self.contexts = rng.integers(0, contexts, steps * lanes)
        slots = rng.integers(0, TOTAL, steps * lanes)
        ends = np.cumsum(self.frequencies, axis=1)
        self.symbols = (slots[:, None] >= ends[self.contexts]).sum(1)
        self.stash = rng.integers(0, 1 << 16, lanes).astype(np.uint16)

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
            self.stash,
        )

    def assert_decoded(self, symbols: Array, stash: Array) -> None:
        np.testing.assert_array_equal(symbols, self.symbols)
        np.testing.assert_array_equal(stash, self.stash)


messages: dict[str, Any] = {
    "seed": st.integers(0, 2**32 - 1),
    "steps": st.integers(0, 60),
    "lanes": st.integers(1, 70),
    "contexts": st.integers(1, 5),
    "skew": st.sampled_from([0.0, 1.0, 3.0, 30.0, 300.0]),
}


@settings(deadline=None, max_examples=150)
@given(tail=st.binary(max_size=9), **messages)
@example(seed=0, steps=0, lanes=1, contexts=1, skew=1.0, tail=b"")
@example(seed=0, steps=3, lanes=512, contexts=2, skew=3.0, tail=b"x")
def test_what_goes_in_comes_out(
    seed: int, steps: int, lanes: int, contexts: int, skew: float, tail: bytes
) -> None:
    message = Message(seed, steps, lanes, contexts=contexts, skew=skew)
    decoder = RansDecoder([message.payload + tail], lanes)
    symbols = decoder.symbols(message.table, message.contexts[None])
    stash, tails = decoder.finish()
    message.assert_decoded(symbols[0], stash[0])
    assert tails == [tail]
    assert symbols.dtype == np.uint8
    assert stash.dtype == np.uint16


@settings(deadline=None, max_examples=150)
@given(**messages)
def test_size_is_that_of_the_information(
    seed: int, steps: int, lanes: int, contexts: int, skew: float
) -> None:
    """A lane costs 5 bits at most beyond its symbols and the 16 bits of its stash."""
    message = Message(seed, steps, lanes, contexts=contexts, skew=skew)
    information = float(np.log2(TOTAL / message.widths).sum())
    most = information + 0.02 * len(message.symbols) + lanes * (16 + 5) + 16
    assert len(message.payload) * 8 <= most


def test_a_long_message_wastes_less_than_a_thousandth() -> None:
    message = Message(1, 4_000, 32)
    information = float(np.log2(TOTAL / message.widths).sum()) + 32 * 16
    assert information * 0.999 < len(message.payload) * 8 < information * 1.001 + 32 * 5


def test_certain_symbols_cost_nothing() -> None:
    widths = np.full((500, 8), TOTAL, np.uint32)
    stash = np.arange(8, dtype=np.uint16)
    few = rans_encode(np.zeros((0, 8), np.uint32), widths[:0], stash)
    assert rans_encode(np.zeros((500, 8), np.uint32), widths, stash) == few


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 6), lanes=st.integers(1, 40))
def test_samples_side_by_side_are_those_one_by_one(seed: int, count: int, lanes: int) -> None:
    """Payloads of different lengths, whose tails differ too."""
    samples = [Message(seed + i, 12, lanes) for i in range(count)]
    tails = [bytes([i]) * i for i in range(count)]
    payloads = [sample.payload + tail for sample, tail in zip(samples, tails, strict=True)]
    together = RansDecoder(payloads, lanes)
    contexts = np.stack([sample.contexts for sample in samples])
    found = together.symbols(samples[0].table, contexts)
    stash, ends = together.finish()
    assert ends == tails
    for row, sample in enumerate(samples):
        sample.assert_decoded(found[row], stash[row])
        alone = RansDecoder([payloads[row]], lanes)
        own = alone.symbols(sample.table, sample.contexts[None])
        np.testing.assert_array_equal(own[0], found[row])
        assert alone.finish()[1] == [tails[row]]


def test_symbols_may_be_asked_for_in_parts() -> None:
    message = Message(3, 20, 8)
    decoder = RansDecoder([message.payload], 8)
    parts = [
        decoder.symbols(message.table, message.contexts[None, a:b])
        for a, b in ((0, 8), (8, 8), (8, 120), (120, 160))
    ]
    message.assert_decoded(np.concatenate(parts, axis=1)[0], decoder.finish()[0][0])


def decode(message: Message, payload: bytes) -> Array:
    decoder = RansDecoder([payload], message.lanes)
    symbols = decoder.symbols(message.table, message.contexts[None])
    decoder.finish()
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
        decoder.finish()


def test_damage_is_refused_or_harmless() -> None:
    """Only what changes nothing but a stash may pass."""
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
    assert refused > 2_400


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
