"""One device, one link and one worker, event by event under a virtual clock."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from typing import Protocol

from splitpoint.partition.plan.link import Capacity

from .course import Course, SimFrame, Tally, Truth

CREDITS, LOST_CREDIT_S = 4, 1.0


class Policy(Protocol):
    """Decides for the frames of one world."""

    def enter(self, world: World) -> None:
        """Frames are about to come in this world."""

    def taken(self, frame: SimFrame) -> None:
        """The source gave a frame: it may `begin`, wait, or be `let_go`."""

    def computed(self, frame: SimFrame) -> None:
        """The device is done with what it was to compute of a frame, or has not begun it."""

    def worth_sending(self, frame: SimFrame) -> bool:
        """Whether a frame that is encoded is to be sent. One that is not may be finished."""
        ...

    def sent(self, frame: SimFrame) -> None:
        """A frame is given to the link."""

    def answered(self, frame: SimFrame, server_s: float, queue_s: float) -> None:
        """The worker's answer is here, wanted or not.

        It had the frame for `server_s`, of which it waited `queue_s`.
        """

    def ended(self, frame: SimFrame) -> None:
        """A frame has its outcome."""


class World:
    """Runs a course under a policy. `now_s` is the time of the event that is being handled."""

    def __init__(self, truth: Truth, course: Course, policy: Policy) -> None:
        self.truth, self.course, self._policy = truth, course, policy
        self.now_s = 0.0
        self.round_trip_s = course.link.round_trip_ms / 1e3
        self.tally = Tally(course.frames)
        self._capacity = Capacity(course.link)
        self._random = random.Random(course.seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._compute: deque[tuple[SimFrame, Callable[[], float], Callable[[], None]]] = deque()
        self.computing = False
        self._encode: deque[SimFrame] = deque()
        self._encoding = False
        self._link_free_s = 0.0
        self._unanswered = 0
        self._for_credit: deque[SimFrame] = deque()

    def run(self) -> Tally:
        """To the last frame's end."""
        course = self.course
        self._policy.enter(self)
        for number in range(course.frames):
            taken_s = course.start_s + number * course.interval_s
            frame = SimFrame(number, taken_s, taken_s + course.budget_s)
            self.at(taken_s, lambda frame=frame: self._take(frame))  # type: ignore[misc]
        while self._events:
            self.now_s, _, event = heapq.heappop(self._events)
            event()
        return self.tally

    def at(self, when_s: float, event: Callable[[], None]) -> None:
        """Lets something happen then."""
        self._count += 1
        heapq.heappush(self._events, (max(when_s, self.now_s), self._count, event))

    def _take(self, frame: SimFrame) -> None:
        self.at(frame.deadline_s, lambda: self._expire(frame))
        self._policy.taken(frame)

    def _expire(self, frame: SimFrame) -> None:
        self.end(frame, in_time=False)

    # What policies do ---------------------------------------------------------------------

    def begin(self, frame: SimFrame, arm: int) -> None:
        """The frame takes an arm."""
        frame.arm = arm
        self.tally.use(arm)
        if self.truth.edge_s[arm] > 0:
            self._on_device(frame, float(self.truth.edge_s[arm]), self._computed)
        else:
            self._computed(frame)

    def finish(self, frame: SimFrame) -> None:
        """The device finishes what it has begun of the frame."""
        frame.finishing = True
        self.tally.use("finished")
        self._on_device(frame, float(self.truth.rest_s[frame.arm]), self._finished)

    def let_go(self, frame: SimFrame) -> None:
        """Nothing is done for the frame."""
        self.tally.use("let go")
        self.end(frame, in_time=False)

    def end(self, frame: SimFrame, *, in_time: bool) -> None:
        """The frame has its outcome; what it has sent stays on the link."""
        if frame.done:
            return
        frame.done = True
        if in_time and self.now_s <= frame.deadline_s + 1e-9:
            self.tally.in_time += 1
            self.tally.latency_s.append(self.now_s - frame.taken_s)
        if frame in self._for_credit:
            self._for_credit.remove(frame)
        self._policy.ended(frame)
        if frame.holds_credit and frame.left_s > self.now_s - self.round_trip_s:
            # The worker's answer to the cancel brings the credit back, or time does.
            back_s = min(
                max(frame.left_s, self.now_s) + self.round_trip_s,
                self.now_s + LOST_CREDIT_S + 4 * self.round_trip_s,
            )
            self.at(back_s, lambda: self._credit(frame))

    # What happens -------------------------------------------------------------------------

    def _on_device(self, frame: SimFrame, seconds: float, then: Callable[[SimFrame], None]) -> None:
        seconds *= math.exp(self._random.gauss(0, self.truth.edge_spread))
        self._compute.append((frame, lambda: seconds, lambda: then(frame)))
        self._next_on_device()

    def _next_on_device(self) -> None:
        while self._compute and not self.computing:
            frame, seconds, then = self._compute.popleft()
            if frame.done or self.now_s >= frame.deadline_s:
                self._policy.computed(frame)
                self.end(frame, in_time=False)
                continue
            self.computing = True
            if not frame.finishing:
                frame.took_s = seconds()
            self.at(self.now_s + seconds(), lambda f=frame, t=then: self._free(f, t))  # type: ignore[misc]

    def _free(self, frame: SimFrame, then: Callable[[], None]) -> None:
        self.computing = False
        self._policy.computed(frame)
        then()
        self._next_on_device()

    def _finished(self, frame: SimFrame) -> None:
        self.end(frame, in_time=True)

    def _computed(self, frame: SimFrame) -> None:
        frame.is_computed = True
        if self.truth.nbytes[frame.arm] == 0:
            self.end(frame, in_time=True)
        elif not frame.done:
            self._encode.append(frame)
            self._next_encode()

    def _next_encode(self) -> None:
        if self._encode and not self._encoding:
            frame, self._encoding = self._encode.popleft(), True
            self.at(self.now_s + self.truth.encode_s[frame.arm], lambda: self._encoded(frame))

    def _encoded(self, frame: SimFrame) -> None:
        self._encoding = False
        self._next_encode()
        if frame.done:
            return
        if self._policy.worth_sending(frame):
            self._for_credit.append(frame)
            self._send_next()
        elif not frame.finishing:
            self.end(frame, in_time=False)

    def _send_next(self) -> None:
        while self._for_credit and self._unanswered < CREDITS:
            frame = self._for_credit.popleft()
            if frame.finishing:  # the device has begun to finish it
                continue
            self._unanswered += 1
            frame.holds_credit = True
            spread = float(self.truth.bytes_spread[frame.arm])
            usual = float(self.truth.nbytes[frame.arm]) * math.exp(-0.5 * spread * spread)
            frame.nbytes = usual * math.exp(self._random.gauss(0, spread))
            self._send(frame)

    def _send(self, frame: SimFrame) -> None:
        self.tally.nbytes += frame.nbytes
        frame.left_s = self._link_free_s = self._capacity.finish_s(
            max(self.now_s, self._link_free_s), frame.nbytes
        )
        self._policy.sent(frame)
        queue_s = self.course.wait_s(frame.left_s) if frame.begun else 0.0
        server_s = queue_s + (float(self.truth.server_s[frame.arm]) if frame.begun else 0.0)
        self.at(
            frame.left_s + self.round_trip_s + server_s,
            lambda: self._answer(frame, server_s, queue_s),
        )

    def probe(self, nbytes: float, number: int) -> None:
        """A message that the worker echoes."""
        frame = SimFrame(number, self.now_s, math.inf, nbytes=nbytes, done=True)
        self._send(frame)

    def _answer(self, frame: SimFrame, server_s: float, queue_s: float) -> None:
        self._policy.answered(frame, server_s, queue_s)
        self._credit(frame)
        self.end(frame, in_time=True)

    def _credit(self, frame: SimFrame) -> None:
        if frame.holds_credit:
            frame.holds_credit = False
            self._unanswered -= 1
            self._send_next()
