"""Range asymmetric numeral systems (rANS) over many lanes at once, in numpy.

One coder would take symbols one after the other, which Python cannot do fast enough. Here symbol
`i` belongs to lane `i mod lanes`, and a step takes one symbol of every lane with a dozen array
operations. All lanes share one stream of 16-bit words: a lane that runs low takes the next word,
lower lanes first. States lie in [2^16, 2^32), probabilities are multiples of 2^-12.
(J. Duda, arXiv 1311.2540; interleaving: F. Giesen, arXiv 1402.3392.)

A lane costs 16 bits more than its symbols' information, because its state must start somewhere.
That somewhere carries data: 16 bits of the caller's, which the decoder gets back at the end. What
is left over, the state's bit 16, is a check: damage shows there with probability 1 - 2^-16 a lane.
Last states are written without their leading zeros, their lengths (17 to 32 bits) in 4 bits each,
so that a lane costs 4 bits in all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .bits import bits_of, numbers_of
from .errors import CodecError
from .spec import Array

PRECISION_BITS = 12
TOTAL = 1 << PRECISION_BITS
STASH_BITS = 16  # what a lane's first state carries
_FLOOR, _SLOT = np.uint32(1 << STASH_BITS), np.uint32(TOTAL - 1)


def rans_encode(starts: Array, widths: Array, stash: Array) -> bytes:
    """The bytes of symbols whose share of [0, 2^12) begins at `starts` and is `widths` wide.

    Both are uint32 `[steps, lanes]`, `stash` is uint16 `[lanes]`. A width of 2^12 costs nothing.
    """
    state = stash.astype(np.uint32) + _FLOOR
    limits = widths << (32 - PRECISION_BITS)  # a width of 2^12 overflows to 0, and never is full
    limits[widths == TOTAL] = np.iinfo(np.uint32).max
    words: list[Array] = []
    for start, width, limit in zip(starts[::-1], widths[::-1], limits[::-1], strict=True):
        full = (state >= limit).nonzero()[0]
        if full.size:
            high = state[full]
            words.append(high.astype("<u2"))
            state[full] = high >> STASH_BITS
        quotient = state // width
        # (q << 12) + (state - q w) + start, in one product
        quotient *= TOTAL - width
        state += quotient
        state += start
    return b"".join((_states_to_bytes(state), *(word.tobytes() for word in words[::-1])))


def _states_to_bytes(state: Array) -> bytes:
    """Lengths, then what follows each state's leading one."""
    below = np.frexp(state.astype(np.float64))[1].astype(np.int64) - 1  # bits after the first
    lengths = bits_of(below - STASH_BITS, np.full(len(state), 4))
    return np.packbits(np.concatenate([lengths, bits_of(state.astype(np.int64), below)])).tobytes()


def _states_of_bytes(payload: bytes, lanes: int) -> tuple[Array, int]:
    """The states, uint32, and how many bytes they took; `CodecError` if there are not enough."""
    head = -(-lanes // 2)
    room = np.unpackbits(np.frombuffer(payload[: head + 4 * lanes], np.uint8))
    if len(room) < 4 * lanes:
        raise CodecError("entropy-coded payload ends within its lanes")
    below = STASH_BITS + numbers_of(room[: 4 * lanes], np.full(lanes, 4))
    end = 4 * lanes + int(below.sum())
    if len(room) < end:
        raise CodecError("entropy-coded payload ends within its lanes")
    states = (1 << below) + numbers_of(room[4 * lanes : end], below)
    return states.astype(np.uint32), -(-end // 8)


class SymbolTable:
    """What the decoder looks up by context and slot, from `[contexts, symbols]` of frequencies.

    Each row of `frequencies` (int64) adds up to 2^12. `widths` and `offsets` are uint32: of the
    slot's symbol, and of the slot within it. `symbols` is uint8.
    """

    def __init__(self, frequencies: Array) -> None:
        contexts, symbols = frequencies.shape
        flat = frequencies.ravel()
        first = (np.cumsum(frequencies, axis=1) - frequencies).ravel()
        of_slot = np.repeat(np.arange(contexts * symbols), flat)
        slots = np.tile(np.arange(TOTAL), contexts)
        self.symbols = (of_slot % symbols).astype(np.uint8)
        self.widths = flat[of_slot].astype(np.uint32)
        self.offsets = (slots - first[of_slot]).astype(np.uint32)


class RansDecoder:
    """Decodes payloads of several samples side by side, one step of all their lanes at a time.

    What follows the words in a payload is its tail, and the caller's. Raises `CodecError` for a
    payload that ends within its lanes.
    """

    def __init__(self, payloads: Sequence[bytes], lanes: int) -> None:
        states, heads = zip(*(_states_of_bytes(p, lanes) for p in payloads), strict=True)
        own = [
            np.frombuffer(p, "<u2", (len(p) - head) // 2, offset=head)
            for p, head in zip(payloads, heads, strict=True)
        ]
        self._payloads, self._heads, self._lanes = payloads, heads, lanes
        self._state = np.concatenate(states)
        # Words that are not there read as zeros, which `finish` notices. A step takes one a lane.
        self._ends = np.cumsum([len(words) + lanes for words in own])
        self._words = np.zeros(self._ends[-1], np.uint32)
        self._next = self._ends - [len(words) + lanes for words in own]
        self._starts, self._short = self._next.copy(), False
        for words, start in zip(own, self._next, strict=True):
            self._words[start : start + len(words)] = words

    def symbols(self, table: SymbolTable, contexts: Array) -> Array:
        """The next symbols, uint8 `[samples, steps x lanes]`; `contexts` (int64) are theirs."""
        samples, lanes = len(self._payloads), self._lanes
        steps = contexts.shape[1] // lanes
        # One row a step, in which the samples lie side by side.
        slots = (contexts << PRECISION_BITS).reshape(samples, steps, lanes).swapaxes(0, 1)
        slots = np.ascontiguousarray(slots).reshape(steps, samples * lanes)
        for row in slots:
            self._step(table, row)
        found = table.symbols[slots].reshape(steps, samples, lanes).swapaxes(0, 1)
        return np.ascontiguousarray(found).reshape(samples, steps * lanes)

    def _step(self, table: SymbolTable, slots: Array) -> None:
        """Completes `slots`, which hold where each lane's context begins, and goes on."""
        state = self._state
        slots += state & _SLOT
        state >>= PRECISION_BITS
        state *= table.widths.take(slots)
        state += table.offsets.take(slots)
        low = (state < _FLOOR).nonzero()[0]
        if not low.size:
            return
        if len(self._next) == 1:
            start = self._next[0]
            words = self._words[start : start + low.size]
            wanted = self._next + low.size
        else:
            sample = low // self._lanes
            counts = np.bincount(sample, minlength=len(self._next))
            words = self._words[
                np.arange(low.size) + (self._next - np.cumsum(counts) + counts)[sample]
            ]
            wanted = self._next + counts
        self._next = np.minimum(wanted, self._ends - self._lanes)
        self._short |= bool((wanted != self._next).any())
        state[low] = (state[low] << STASH_BITS) | words

    def finish(self) -> tuple[Array, list[bytes]]:
        """The stash, uint16 `[samples, lanes]`, and each payload's tail; `CodecError` on damage."""
        if self._short or (self._state >> STASH_BITS != 1).any():
            raise CodecError("entropy-coded payload is damaged")
        taken = self._next - self._starts
        tails = [
            payload[head + 2 * int(count) :]
            for payload, head, count in zip(self._payloads, self._heads, taken, strict=True)
        ]
        return (self._state & 0xFFFF).astype(np.uint16).reshape(len(tails), -1), tails
