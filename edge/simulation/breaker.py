"""The agent's breaker under the virtual clock: when no frame waits for the worker."""

from __future__ import annotations

from splitpoint.proto.backoff import Backoff

from ..link.breaker import FIRST_PAUSE_S, LONGEST_PAUSE_S, MOST_FAILURES, PROBE_S, TRIAL_S
from .world import World

PROBE_BYTES = 64.0  # an empty probe, with what HTTP/2 and TCP put around it
_PAUSE = 0.75  # the mean of what pauses vary by


class SimBreaker:
    """Opens when frames go unanswered, as `splitpoint.edge.link.breaker.Breaker` does.

    Its probes have the even ones of the negative numbers, beside those of the dispatcher.
    """

    def __init__(self, world: World) -> None:
        self._world, self._failures, self._probes = world, 0, 0
        self._pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._trial_s: float | None = None
        self._asked: dict[int, bool] = {}  # probes without an echo, and whether one opens it
        self.is_open = False

    def allows(self) -> bool:
        """Whether this frame may wait for the cloud."""
        if self.is_open:
            return False
        if self._trial_s is not None:
            if self._world.now_s < self._trial_s:
                return False
            self._trial_s = self._world.now_s + TRIAL_S
        return True

    def answered(self) -> None:
        """A frame was, in time."""
        self._failures, self._trial_s = 0, None
        self._pauses.reset()

    def failed(self) -> None:
        """A frame was not."""
        self._failures += 1
        if self._failures >= MOST_FAILURES or self._trial_s is not None:
            self._open()
        elif not self._asked:
            self._ask(opens=True)

    def echoed(self, number: int) -> None:
        """A probe of its own, or another's, came back."""
        if self._asked.pop(number, True):
            return
        self.is_open, self._trial_s = False, self._world.now_s

    def _open(self) -> None:
        if not self.is_open:
            self.is_open = True
            self._pause()

    def _pause(self) -> None:
        world = self._world
        world.at(world.now_s + _PAUSE * self._pauses.next_s(), lambda: self._ask(opens=False))

    def _ask(self, *, opens: bool) -> None:
        world = self._world
        self._probes -= 2
        number = self._probes
        self._asked[number] = opens
        world.probe(PROBE_BYTES, number)
        world.at(world.now_s + PROBE_S, lambda: self._silent(number))

    def _silent(self, number: int) -> None:
        opens = self._asked.pop(number, None)
        if opens:
            self._open()
        elif opens is False and not self._ended:
            self._pause()

    @property
    def _ended(self) -> bool:
        """Whether no frame will ask any more: the world ends when nothing happens in it."""
        course = self._world.course
        return self._world.now_s > course.start_s + course.frames * course.interval_s
