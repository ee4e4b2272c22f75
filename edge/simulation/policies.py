"""Ways to run the frames of a world: one arm for all, and the agent's own dispatcher."""

from __future__ import annotations

from ..dispatch.arms import Arms
from ..dispatch.conditions import Conditions
from ..dispatch.dispatcher import LOOKS_S, Dispatcher
from ..dispatch.probing import probe_bytes, probe_is_due
from .breaker import SimBreaker
from .course import SimFrame
from .world import CREDITS, World

WINDOW = CREDITS + 2  # frames under way, as in `EdgeAgent.stream`


class Fixed:
    """All frames take one arm, the newest first, as an agent with a named split does.

    With `finishes` the device finishes what the cloud would not answer in time.
    """

    def __init__(self, arm: int, *, finishes: bool = False) -> None:
        self._arm, self._finishes = arm, finishes
        self._waiting: SimFrame | None = None
        self._running, self._asking = 0, set[int]()
        self._alone = set[int]()  # frames that do not wait for the worker
        self._world: World

    def enter(self, world: World) -> None:
        """Frames are about to come in this world."""
        self._world, self._breaker = world, SimBreaker(world)

    def taken(self, frame: SimFrame) -> None:
        """One that waits for the device makes room for a newer one."""
        if self._waiting is not None:
            self._world.let_go(self._waiting)
        self._waiting = frame
        self._begin()

    def computed(self, frame: SimFrame) -> None:
        """The device is done with it: the next may begin."""
        if not frame.finishing and not frame.done:
            if frame.number in self._alone:
                self._finish(frame)
            else:
                self._ask(frame)
        self._begin_soon()

    def worth_sending(self, frame: SimFrame) -> bool:
        """Always, where it may wait for an answer."""
        return frame.number not in self._alone

    def sent(self, frame: SimFrame) -> None:
        """Nothing depends on that."""

    def answered(self, frame: SimFrame, server_s: float, queue_s: float) -> None:
        """What comes in time keeps the way to the worker open."""
        if frame.number < 0:
            self._breaker.echoed(frame.number)
        elif not frame.done:
            self._asking.discard(frame.number)
            self._breaker.answered()

    def ended(self, frame: SimFrame) -> None:
        """It makes room for another."""
        if frame.begun:
            self._running -= 1
        if frame.number in self._asking:
            self._asking.discard(frame.number)
            self._breaker.failed()
        self._alone.discard(frame.number)
        if frame is self._waiting:
            self._waiting = None
        self._begin_soon()

    def _begin_soon(self) -> None:
        if self._waiting is not None:
            self._world.at(self._world.now_s, self._begin)

    def _begin(self) -> None:
        frame, world = self._waiting, self._world
        if frame is None or self._running >= WINDOW or world.computing:
            return
        self._waiting = None
        self._running += 1
        sends = world.truth.nbytes[self._arm] > 0
        if sends and self._finishes and not self._breaker.allows():
            self._alone.add(frame.number)
        world.begin(frame, self._arm)
        if world.truth.edge_s[self._arm] == 0:
            self.computed(frame)

    def _ask(self, frame: SimFrame) -> None:
        world = self._world
        if world.truth.nbytes[self._arm] == 0:
            return
        self._asking.add(frame.number)
        if self._finishes:
            # All that are asked may become due at once.
            kept_s = world.truth.rest_s[self._arm] * len(self._asking)
            left_s = frame.deadline_s - world.now_s
            begins_s = frame.deadline_s - (kept_s if left_s > kept_s else 0.0)
            world.at(begins_s, lambda: self._finish(frame))

    def _finish(self, frame: SimFrame) -> None:
        if not frame.done and not frame.finishing:
            self._world.finish(frame)


class Dispatching:
    """The agent's own dispatcher over `arms`; `rate` is the uplink's in bytes/s at the start.

    The device is so much slower than the profile that the arms are from.
    """

    def __init__(
        self, arms: Arms, rate: float, *, finishes: bool = True, slowdown: float = 1.0
    ) -> None:
        self._arms, self._rate, self._finishes, self._slowdown = arms, rate, finishes, slowdown
        self._world: World
        self._dispatcher: Dispatcher
        self._probed_s, self._probes = 0.0, 0

    def enter(self, world: World) -> None:
        """Frames are about to come in this world."""
        self._world = world
        conditions = Conditions(1e3 * world.round_trip_s)
        conditions.edge_factor = self._slowdown
        self._dispatcher = Dispatcher(self._arms, world.course.budget_s, conditions, self._rate)
        self._dispatcher.can_finish = self._finishes

    def taken(self, frame: SimFrame) -> None:
        """It takes the way that is chosen for it, or none."""
        dispatcher, now_s = self._dispatcher, self._world.now_s
        arm = dispatcher.choose(now_s, frame.number)
        if arm is None or self._arms.nbytes[arm] == 0:
            self._probe()
        if arm is None:
            self._world.let_go(frame)
            return
        self._world.begin(frame, int(self._arms.index[arm]))
        if self._finishes and self._arms.nbytes[arm] > 0:
            latest_s = frame.deadline_s - dispatcher.rest_s(arm)
            for before_s in LOOKS_S:
                self._world.at(latest_s - before_s, lambda: self._look(frame))

    def computed(self, frame: SimFrame) -> None:
        """The device is done with it."""
        dispatcher = self._dispatcher
        dispatcher.in_hand.computed(self._world.now_s, frame.number)
        if frame.took_s > 0 and not frame.finishing:
            expected_s = float(self._world.truth.edge_s[frame.arm]) / self._slowdown
            dispatcher.conditions.edge_took(1e3 * frame.took_s, 1e3 * expected_s)

    def worth_sending(self, frame: SimFrame) -> bool:
        """Whether it may still be answered in time; where not, the device may finish it."""
        if self._dispatcher.worth_sending(self._world.now_s, frame.number):
            return True
        self._look(frame)
        return False

    def sent(self, frame: SimFrame) -> None:
        """Its bytes are given to the link."""
        if frame.number >= 0:
            self._dispatcher.in_hand.send(self._world.now_s, frame.number, frame.nbytes)

    def answered(self, frame: SimFrame, server_s: float, queue_s: float) -> None:
        """Wanted or not, the worker says how long it had it, and how busy it is."""
        self._dispatcher.answered(self._world.now_s, frame.number, server_s)
        if frame.number >= 0:
            self._dispatcher.conditions.queued(self._world.now_s, 1e3 * queue_s)

    def ended(self, frame: SimFrame) -> None:
        """It has its outcome."""
        self._dispatcher.in_hand.end(frame.number)

    def _look(self, frame: SimFrame) -> None:
        now_s = self._world.now_s
        if frame.done or frame.finishing or now_s >= frame.deadline_s or not frame.is_computed:
            return
        if self._dispatcher.worth_finishing(now_s, frame.number):
            self._dispatcher.finish_begins(now_s, frame.number)
            self._world.finish(frame)

    def _probe(self) -> None:
        now_s, dispatcher = self._world.now_s, self._dispatcher
        if probe_is_due(now_s, self._probed_s, dispatcher):
            self._probed_s = now_s
            self._probes -= 1
            nbytes = probe_bytes(dispatcher)
            dispatcher.in_hand.send_probe(now_s, self._probes, nbytes)
            self._world.probe(nbytes, self._probes)
