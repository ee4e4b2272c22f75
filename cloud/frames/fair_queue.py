"""Whose work is next, where many wait for few threads. No clock, no threads.

A turn goes to the client that has least of it running, and among those to the one that has taken
least time so far; of one client's connections, to each in turn. So one that brings much, or what
takes long, waits for itself, and one that comes now and then hardly at all.

(Time that was taken is compared as in start-time fair queueing, Goyal, Vin and Cheng, IEEE/ACM
Transactions on Networking 5(5), 1997: who comes back has neither saved up turns nor lost them.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Client(Generic[T]):
    taken_s: float
    running: int = 0
    waiting: dict[str, deque[T]] = field(default_factory=dict)  # by connection, next one first

    def take(self) -> T:
        connection, queue = next(iter(self.waiting.items()))
        del self.waiting[connection]
        item = queue.popleft()
        if queue:
            self.waiting[connection] = queue  # behind the others
        return item


class FairQueue(Generic[T]):
    """What waits and what runs, by client and connection."""

    def __init__(self) -> None:
        self._clients: dict[str, _Client[T]] = {}
        self._least_s = 0.0  # what the client had taken whose turn it was last
        self._waiting = 0

    def __len__(self) -> int:
        """How many wait."""
        return self._waiting

    @property
    def known(self) -> Set[str]:
        """Clients that wait, run, or are to be known when they come back."""
        return self._clients.keys()

    def add(self, client: str, connection: str, item: T) -> None:
        """`item` waits behind all of that connection."""
        known = self._clients.setdefault(client, _Client(self._least_s))
        if not known.waiting and not known.running:
            known.taken_s = max(known.taken_s, self._least_s)
        known.waiting.setdefault(connection, deque()).append(item)
        self._waiting += 1

    def discard(self, client: str, connection: str, item: T) -> None:
        """Nobody waits for it any more; nothing changes where it is not waiting."""
        known = self._clients.get(client)
        queue = known.waiting.get(connection) if known is not None else None
        if known is None or queue is None or item not in queue:
            return
        queue.remove(item)
        self._waiting -= 1
        if not queue:
            del known.waiting[connection]

    def next(self) -> tuple[str, T] | None:
        """The next one, which runs until `done`, and its client; None where nothing waits."""
        waiting = [(c.running, c.taken_s, name) for name, c in self._clients.items() if c.waiting]
        if not waiting:
            return None
        _, taken_s, name = min(waiting)
        client = self._clients[name]
        self._least_s = max(self._least_s, taken_s)
        client.running += 1
        self._waiting -= 1
        return name, client.take()

    def done(self, client: str, took_s: float) -> None:
        """One of the client's has been run, or was not worth it."""
        known = self._clients[client]
        known.running -= 1
        known.taken_s += took_s
        if any(c.waiting or c.running for c in self._clients.values()):
            # Who has taken more than the others may come back and is to be known then.
            for name, c in list(self._clients.items()):
                if not c.waiting and not c.running and c.taken_s <= self._least_s:
                    del self._clients[name]
        else:
            self._clients.clear()
            self._least_s = 0.0
