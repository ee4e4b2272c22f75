"""Pieces of one memory of a fixed size: taken, and given back in any order. No memory of its own.

First fit keeps what is in use near the beginning: pages behind it are never touched, and cost
nothing.
"""

from __future__ import annotations

from bisect import bisect_left

PIECE = 4096  # sizes are multiples of it, which bounds how many pieces there can be


class SlabFull(Exception):
    """No piece of that size is free."""


class Slab:
    """Offsets in `size` bytes. One process allocates, whatever others write to them."""

    def __init__(self, size: int) -> None:
        self.size = size // PIECE * PIECE
        # Neighbours are always joined: free pieces by offset, and what each has.
        self._offsets, self._sizes = [0], [self.size]
        self.used = 0

    def take(self, nbytes: int) -> tuple[int, int]:
        """Offset and size of a free piece of at least `nbytes`; raises `SlabFull`."""
        wanted = max(-(-nbytes // PIECE), 1) * PIECE
        place = next((n for n, size in enumerate(self._sizes) if size >= wanted), -1)
        if place < 0:
            raise SlabFull
        offset, size = self._offsets[place], self._sizes[place]
        if size == wanted:
            del self._offsets[place], self._sizes[place]
        else:
            self._offsets[place], self._sizes[place] = offset + wanted, size - wanted
        self.used += wanted
        return offset, wanted

    def give_back(self, offset: int, size: int) -> None:
        """The piece that `take` gave is free again."""
        self.used -= size
        place = bisect_left(self._offsets, offset)
        after = place < len(self._offsets) and self._offsets[place] == offset + size
        if place and self._offsets[place - 1] + self._sizes[place - 1] == offset:
            self._sizes[place - 1] += size
            if after:
                self._sizes[place - 1] += self._sizes[place]
                del self._offsets[place], self._sizes[place]
        elif after:
            self._offsets[place], self._sizes[place] = offset, self._sizes[place] + size
        else:
            self._offsets.insert(place, offset)
            self._sizes.insert(place, size)
