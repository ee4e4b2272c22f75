"""Range asymmetric numeral systems (rANS) over many lanes at once, in numpy.

One coder would take symbols one after the other, which Python cannot do fast enough. Here symbol
`i` belongs to lane `i mod lanes`, and a step takes one symbol of every lane with a dozen array
operations. All lanes share one stream of 16-bit words: a lane that runs low takes the next word,
lower lanes first. States lie in [2^16, 2^32), probabilities are multiples of 2^-12.
(J. Duda, arXiv 1311.2540; interleaving: F. Giesen, arXiv 1402.3392.)

A lane's state must start somewhere and is written at the end, which costs 32 bits. That somewhere
carries data: a number below a leading one, 16 bits of the caller's and as many more as let the last
state fill its 32 bits. So a lane costs about one bit in all. Where the decoder finds that leading
one tells how many bits there were.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import CodecError
from ..spec import Array
from .bits import bits_of, numbers_of

PRECISION_BITS = 12
TOTAL = 1 << PRECISION_BITS
WORD_BITS, STATE_BITS = 16, 32
MAX_STEPS = 256  # of a lane, where there can be enough lanes
MAX_LANES = 1024
_FLOOR, _SLOT = np.uint32(1 << WORD_BITS), np.uint32(TOTAL - 1)
INFORMATION = np.log2(TOTAL / np.maximum(np.arange(TOTAL + 1), 1)).astype(np.float32)
# A state's logarithm is that of the information in it up to rounding, which adds up over the steps.
_SPARE = 0.05
BITS_PER_LANE = 24  # of the caller's, that a lane has room for on average


def least_lanes(coefficients: int) -> int:
    """As few as keep decoding short, whoever wrote the payload."""
    return min(1 + coefficients // MAX_STEPS, MAX_LANES)


def rans_encode(starts: Array, widths: Array, bits: Array) -> bytes:
    """The bytes of symbols whose share of [0, 2^12) begins at `starts` and is `widths` wide.

    Both are uint32 `[steps, lanes]`; a width of 2^12 costs nothing. `bits` are any number of raw
    bits, uint8 of 0 and 1.
    """
    information = INFORMATION.take(widths)
    # Added up step after step, on any machine; a sum of one lane alone would go pairwise.
    total = (
        np.cumsum(information, 0)[-1]
        if len(widths) and widths.shape[1] == 1
        else information.sum(0)
    )
    state, left = _first_states(total, bits)
    limits = widths << (STATE_BITS - PRECISION_BITS)  # a width of 2^12 overflows, and never is full
    limits[widths == TOTAL] = np.iinfo(np.uint32).max
    others = TOTAL - widths
    words: list[Array] = []
    for step in range(len(widths) - 1, -1, -1):
        full = (state >= limits[step]).nonzero()[0]
        if full.size:
            high = state.take(full)
            words.append(high.astype("<u2"))
            state[full] = high >> WORD_BITS
        quotient = state // widths[step]
        # (q << 12) + (state - q w) + start, in one product
        quotient *= others[step]
        state += quotient
        state += starts[step]
    tail = np.packbits(left).tobytes()
    return b"".join((state.astype("<u4").tobytes(), *(w.tobytes() for w in words[::-1]), tail))


def _first_states(information: Array, bits: Array) -> tuple[Array, Array]:
    """States `[lanes]` that hold raw bits and will just not be full, and the bits left over.

    `information` is that of each lane's symbols, in bits.
    """
    lanes = len(information)
    room = WORD_BITS * lanes
    filled = np.zeros(room, np.uint8)
    filled[: len(bits)] = bits[:room]
    head = np.packbits(filled).view(">u2")
    state = head.astype(np.int64) + (1 << WORD_BITS)
    last = WORD_BITS + (np.log2(state) + information) % WORD_BITS
    more = np.floor(np.clip(STATE_BITS - _SPARE - last, 0, WORD_BITS - 1)).astype(np.int64)
    more -= np.clip(np.cumsum(more) - max(len(bits) - room, 0), 0, more)
    end = room + int(more.sum())
    state = (state << more) + numbers_of(bits[room:end], more)
    return state.astype(np.uint32), bits[end:]


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

    Raises `CodecError` for a payload that ends within its lanes, or whose lanes begin too low.
    """

    def __init__(self, payloads: Sequence[bytes], lanes: int) -> None:
        head = 4 * lanes
        if min(map(len, payloads)) < head:
            raise CodecError("entropy-coded payload ends within its lanes")
        own = [np.frombuffer(p, "<u2", (len(p) - head) // 2, offset=head) for p in payloads]
        self._payloads, self._lanes = payloads, lanes
        self._state = np.concatenate([np.frombuffer(p, "<u4", lanes) for p in payloads])
        if (self._state < _FLOOR).any():
            raise CodecError("entropy-coded payload is damaged")
        # A sample's words begin at `_next` and end at `_ends`; reading further shows in `finish`.
        self._ends = np.cumsum([len(words) for words in own])
        self._starts = self._ends - [len(words) for words in own]
        self._next, self._at = self._starts.copy(), 0
        # A step takes one word a lane at most.
        self._words = np.concatenate([*own, np.zeros(lanes, np.uint16)]).astype(np.uint32)

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
        if len(self._next) == 1:  # as below, in less time
            start = min(self._at, int(self._ends[-1]))
            words = self._words[start : start + low.size]
            self._at += low.size
        else:
            sample = low // self._lanes
            counts = np.bincount(sample, minlength=len(self._next))
            places = np.arange(low.size) + (self._next - np.cumsum(counts) + counts)[sample]
            words = self._words.take(places, mode="clip")
            self._next += counts
        state[low] = (state.take(low) << WORD_BITS) | words

    def finish(self, counts: Sequence[int]) -> list[Array]:
        """Each payload's raw bits, of which there are `counts`, uint8; `CodecError` on damage."""
        if len(counts) == 1:
            self._next[0] = self._at
        if (self._next > self._ends).any():
            raise CodecError("entropy-coded payload is damaged")
        found = []
        states = self._state.astype(np.int64).reshape(len(counts), -1)
        ends = 4 * self._lanes + 2 * (self._next - self._starts)
        for state, payload, end, count in zip(states, self._payloads, ends, counts, strict=True):
            within, tail = _bits_of_states(state), payload[int(end) :]
            bits = np.concatenate([within, np.unpackbits(np.frombuffer(tail, np.uint8))])
            if len(tail) != max(-(-(count - len(within)) // 8), 0) or bits[count:].any():
                raise CodecError("entropy-coded payload has not the length its symbols ask for")
            found.append(bits[:count])
        return found


def _bits_of_states(states: Array) -> Array:
    """What `_first_states` put into them."""
    more = np.frexp(states)[1] - 1 - WORD_BITS
    head = (states >> more).astype(">u2")  # without its leading one
    return np.concatenate([np.unpackbits(head.view(np.uint8)), bits_of(states, more)])
