"""Frames that broke a batch, so that the same one does not break the next."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

HELD_S, MOST = 60.0, 1024


class Quarantine:
    """Digests of payloads, each held for `HELD_S`; the oldest make room for new ones."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until_s: OrderedDict[bytes, float] = OrderedDict()
        self.added = 0  # in all

    def add(self, boundary: int, payloads: Iterable[bytes]) -> None:
        """These broke a batch just now."""
        self.added += 1
        digest = _digest(boundary, payloads)
        self._until_s.pop(digest, None)
        self._until_s[digest] = self._clock() + HELD_S
        while len(self._until_s) > MOST:
            self._until_s.popitem(last=False)

    def holds(self, boundary: int, payloads: Iterable[bytes]) -> bool:
        """Whether these broke a batch lately. Costs nothing while none did."""
        now_s = self._clock()
        while self._until_s and next(iter(self._until_s.values())) <= now_s:
            self._until_s.popitem(last=False)
        return bool(self._until_s) and _digest(boundary, payloads) in self._until_s

    def __len__(self) -> int:
        """How many are held."""
        return len(self._until_s)


def _digest(boundary: int, payloads: Iterable[bytes]) -> bytes:
    found = hashlib.blake2b(boundary.to_bytes(4, "big"), digest_size=16)
    for payload in payloads:
        found.update(len(payload).to_bytes(8, "big"))
        found.update(payload)
    return found.digest()
