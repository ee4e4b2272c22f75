"""Range asymmetric numeral systems (rANS) over many lanes at once, in numpy.

One coder would take symbols one after the other, which Python cannot do fast enough. Here symbol
`i` belongs to lane `i mod lanes`, and a step takes one symbol of every lane with a dozen array
operations. All lanes share one stream of 16-bit words: a lane that runs low takes the next word,
lower lanes first. States lie in [2^16, 2^32), probabilities are multiples of 2^-12.
(J. Duda, arXiv 1311.2540; interleaving: F. Giesen, arXiv 1402.3392.)

A lane costs 16 bits more than its symbols' information, because its state must start somewhere.
That somewhere carries data: 16 bits of the caller's, which the decoder gets back at the end. What
is left over, the state's bit 16, is a check: damage shows there with probability 1 - 2^-16 a lane.
"""

from __future__ import annotations

import numpy as np

from .errors import CodecError
from .spec import Array

PRECISION_BITS = 12
TOTAL = 1 << PRECISION_BITS
STASH_BITS = 16  # what a lane's first state carries
_FLOOR = np.uint32(1 << 16)


def rans_encode(starts: Array, widths: Array, stash: Array) -> bytes:
    """The bytes of symbols whose share of [0, 2^12) begins at `starts` and is `widths` wide.

    Both are uint32 `[steps, lanes]`, `stash` is uint16 `[lanes]`. A width of 2^12 costs nothing.
    """
    state = stash.astype(np.uint32) + _FLOOR
    words: list[Array] = []
    for start, width in zip(starts[::-1], widths[::-1], strict=True):
        full = (state >> 20) >= width
        words.append(state[full].astype("<u2"))
        state = np.where(full, state >> 16, state)
        quotient, rest = np.divmod(state, width)
        state = (quotient << PRECISION_BITS) + rest + start
    return b"".join((state.astype("<u4").tobytes(), *(word.tobytes() for word in words[::-1])))


def symbol_table(frequencies: Array) -> Array:
    """What the decoder looks up: uint32 `[contexts * 2^12]`, from `[contexts, symbols]` of uint32.

    Each row of `frequencies` adds up to 2^12, there are at most 16 symbols. An entry holds the
    symbol (4 bits), its frequency less one (12) and the slot's offset within the symbol (12).
    """
    contexts, symbols = frequencies.shape
    flat = frequencies.ravel()
    first = (np.cumsum(frequencies, axis=1) - frequencies).ravel()
    of_slot = np.repeat(np.arange(contexts * symbols), flat)
    slots = np.tile(np.arange(TOTAL), contexts)
    entries = (
        (of_slot % symbols) << 24 | (flat[of_slot] - 1) << PRECISION_BITS | slots - first[of_slot]
    )
    table: Array = entries.astype(np.uint32)
    return table


class RansDecoder:
    """Decodes payloads of several samples side by side, one step of all their lanes at a time.

    Raises `CodecError` for a payload that ends too early, has bytes left over, or does not come
    back to where its encoder began.
    """

    def __init__(self, payloads: list[bytes], lanes: int) -> None:
        head = 4 * lanes
        for payload in payloads:
            if len(payload) < head or len(payload) % 2:
                raise CodecError("entropy-coded payload ends within its lanes")
        most = max((len(payload) - head) // 2 for payload in payloads)
        count = len(payloads)
        # A lane may run ahead of the words by one step before that is noticed at the end.
        self._width = most + 1
        words = np.zeros((count, self._width), np.uint32)
        self._state = np.empty((count, lanes), np.uint32)
        self._ends = np.empty((count, 1), np.int64)
        for row, payload in enumerate(payloads):
            self._state[row] = np.frombuffer(payload, "<u4", lanes)
            own = np.frombuffer(payload, "<u2", offset=head)
            words[row, : len(own)] = own
            self._ends[row] = len(own)
        self._words = words.ravel()
        self._rows = np.arange(count, dtype=np.int64)[:, None] * self._width
        self._next = np.zeros((count, 1), np.int64)
        if (self._state < _FLOOR).any():
            raise CodecError("entropy-coded payload is damaged")

    def step(self, table: Array, contexts: Array) -> Array:
        """The next symbol of every lane, uint32 `[samples, lanes]`; `contexts` are theirs."""
        state = self._state
        entry = table[(contexts << PRECISION_BITS) + (state & (TOTAL - 1))]
        state = ((entry >> PRECISION_BITS & (TOTAL - 1)) + 1) * (state >> PRECISION_BITS) + (
            entry & (TOTAL - 1)
        )
        low = state < _FLOOR
        place = self._next + np.cumsum(low, axis=1)
        word = self._words[self._rows + np.minimum(place, self._width) - 1]
        self._state = np.where(low, (state << 16) | word, state)
        self._next = place[:, -1:]
        return entry >> 24

    def finish(self) -> Array:
        """The uint16 `[samples, lanes]` that the encoder was given."""
        if (self._next != self._ends).any() or (self._state >> 16 != 1).any():
            raise CodecError("entropy-coded payload is damaged")
        return (self._state & 0xFFFF).astype(np.uint16)
