"""Frames that broke a batch, so that the same one does not break the next."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

HELD_S, MOST = 60.0, 1024
_DIGEST_BYTES = 16


class Quarantine:
    """Digests of payloads, each held for `HELD_S`; the oldest make room for new ones.

    A frame is what one model was given at one boundary: another model may well take the same bytes.
    Compute threads add, the event loop asks, and whoever reads the figures counts. `tell` is called
    with each digest that `add` finds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[bytes], None] = lambda digest: None,
    ) -> None:
        self._clock, self._tell = clock, tell
        self._lock = threading.Lock()
        self._until_s: OrderedDict[bytes, float] = OrderedDict()
        self.added = 0  # in all

    def add(self, model: str, boundary: int, payloads: Iterable[bytes]) -> None:
        """These broke a batch of the model with that digest just now."""
        digest = _digest(model, boundary, payloads)
        self.hold(digest)
        self._tell(digest)

    def hold(self, digest: bytes) -> None:
        """What has this digest broke a batch just now; `ValueError` for what is none."""
        if len(digest) != _DIGEST_BYTES:
            raise ValueError(f"a digest of {len(digest)} bytes")
        with self._lock:
            self.added += 1
            self._until_s.pop(digest, None)
            self._until_s[digest] = self._clock() + HELD_S
            while len(self._until_s) > MOST:
                self._until_s.popitem(last=False)

    def holds(self, model: str, boundary: int, payloads: Iterable[bytes]) -> bool:
        """Whether these broke a batch lately. Costs nothing while none did."""
        with self._lock:
            now_s = self._clock()
            while self._until_s and next(iter(self._until_s.values())) <= now_s:
                self._until_s.popitem(last=False)
            if not self._until_s:
                return False
        digest = _digest(model, boundary, payloads)
        with self._lock:
            return digest in self._until_s

    def __len__(self) -> int:
        """How many are held."""
        return len(self._until_s)


def _digest(model: str, boundary: int, payloads: Iterable[bytes]) -> bytes:
    found = hashlib.blake2b(boundary.to_bytes(4, "big"), digest_size=_DIGEST_BYTES)
    for payload in (model.encode(), *payloads):
        found.update(len(payload).to_bytes(8, "big"))
        found.update(payload)
    return found.digest()
