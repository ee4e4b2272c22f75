"""How much of a device's time each client took lately. Clients that took little go first.

What clients have in the plan at the moment says nothing about that: of several equal clients, one
or another always has most of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .job import Job
from .rates import MEMORY_S

# A client took clearly more than another if it took `TIMES` as much, and more than `MUCH_S` in all.
# With 1.5, equal clients that overload a device began to differ by chance, and no longer shared
# batches; with 2, one that takes 8 % of a device waited behind two that share the rest.
TIMES, MUCH_S = 1.7, 0.05
# The device's time for frames that go before others only because of that, whoever sends them.
MOST_AHEAD_S = 0.2  # of the last second
FADE_EVERY_S = 0.1 * MEMORY_S
# A client that comes is remembered for a second, even if none of its frames has run by then.
NEW_S, FORGOTTEN_S = 3e-3, 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one client stands among the others at the moment.

    `may_go_first` is false if no client took clearly more, or if enough frames went ahead of others
    lately. `has_much` says that another client, which was here lately, took clearly less.
    """

    seconds: Mapping[str, float]  # that each client took
    took_s: float  # by this one
    has_s: float  # that this one took and asks for
    may_go_first: bool
    has_much: bool

    def goes_before(self, clients: Iterable[str]) -> bool:
        """Whether each of `clients` took clearly more than this one took and asks for together."""
        return self.may_go_first and all(
            _is_more(self.seconds.get(client, 0.0), self.has_s) for client in clients
        )

    def stays_behind(self, clients: Iterable[str]) -> bool:
        """Whether each of `clients` took clearly less than this one."""
        return self.took_s > MUCH_S and all(
            _is_more(self.took_s, self.seconds.get(client, 0.0)) for client in clients
        )


class Taken:
    """The account of a device's time by client. What was taken `MEMORY_S` ago counts 1/e."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._ahead_s, self._faded_s = 0.0, -math.inf
        # The most and the least that any client took; both may be too low until they fade again.
        self._most_s, self._least_s = 0.0, math.inf

    def came(self, now_s: float, client: str) -> None:
        """The client has sent a frame, whatever becomes of it."""
        self._fade(now_s)
        self._least_s = min(self._least_s, self._seconds.setdefault(client, NEW_S))

    def ran(self, now_s: float, took_s: float, jobs: Sequence[Job]) -> None:
        """A step has ended. Its jobs share the time that it took by their samples."""
        self._fade(now_s)
        each_s = took_s / sum(job.samples for job in jobs)
        for job in jobs:
            has_s = self._seconds.get(job.client, 0.0) + job.samples * each_s
            self._seconds[job.client] = has_s
            self._most_s = max(self._most_s, has_s)

    def went_ahead(self, takes_s: float) -> None:
        """A frame that takes so long goes before those of clients that took more."""
        self._ahead_s += takes_s

    def standing(self, client: str, asks_s: float) -> Standing:
        """How `client` stands. `asks_s` is the time of its frames in the plan and of a new one."""
        took_s = self._seconds.get(client, 0.0)
        return Standing(
            seconds=self._seconds,
            took_s=took_s,
            has_s=took_s + asks_s,
            may_go_first=self._ahead_s < MOST_AHEAD_S and _is_more(self._most_s, took_s + asks_s),
            has_much=len(self._seconds) > 1 and _is_more(took_s, self._least_s),
        )

    @property
    def most(self) -> str:
        """The client that took most; empty where nobody took anything."""
        return max(self._seconds, key=self._seconds.__getitem__, default="")

    def _fade(self, now_s: float) -> None:
        passed_s = now_s - self._faded_s
        if passed_s < FADE_EVERY_S:
            return
        left = math.exp(-passed_s / MEMORY_S)
        self._faded_s = now_s
        self._ahead_s *= left
        self._seconds = {
            client: left * took_s
            for client, took_s in self._seconds.items()
            if left * took_s > FORGOTTEN_S
        }
        self._most_s = max(self._seconds.values(), default=0.0)
        self._least_s = min(self._seconds.values(), default=math.inf)


def _is_more(took_s: float, than_s: float) -> bool:
    return took_s > max(TIMES * than_s, MUCH_S)
