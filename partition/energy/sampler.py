"""Power read again and again in the background, and added up to energy."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from .meter import FAILURES, Clock, EnergyReading, no_reading, why

Wait = Callable[[threading.Event, float], bool]

# At most 10 readings a second, and never more than 1 % of the time spent on them: a board that
# measures itself too eagerly measures mostly that.
INTERVAL_S = 0.1
COST_FACTOR = 100


class Background:
    """Calls `step` in a thread until stopped; each call returns the seconds to the next one.

    A step that fails ends the thread; `failure` then says why.
    """

    def __init__(self, step: Callable[[], float], wait: Wait = threading.Event.wait) -> None:
        self._step = step
        self._wait = wait
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.failure = ""

    @property
    def stopping(self) -> bool:
        """Whether `halt` was called."""
        return self._stopped.is_set()

    def start(self, first_s: float) -> None:
        """Begins, with the first step after `first_s` seconds."""
        self.halt()
        self.join()
        self._stopped = threading.Event()
        self.failure = ""
        self._thread = threading.Thread(
            target=self._run, args=(first_s,), name="splitpoint-energy", daemon=True
        )
        self._thread.start()

    def halt(self) -> None:
        """Asks the thread to end, without waiting for it."""
        self._stopped.set()

    def join(self) -> None:
        """Waits until the thread has ended."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self, pause_s: float) -> None:
        try:
            while not self._wait(self._stopped, pause_s):
                pause_s = self._step()
        except FAILURES as error:
            self.failure = why(error)


class SampledMeter:
    """A meter over a sensor of power: `read_w` returns watts, or raises one of `FAILURES`.

    The power is taken as linear between samples. The first sample counts from the end of `start`
    and the last one up to the call of `stop`, so the sampling's own ends are not in the energy.
    """

    def __init__(
        self,
        name: str,
        about: str,
        read_w: Callable[[], float],
        *,
        clock: Clock = time.perf_counter,
        wait: Wait = threading.Event.wait,
    ) -> None:
        self.name = name
        self.kind = "measured"
        self._about = about
        self._read_w = read_w
        self._clock = clock
        self._background = Background(self._step, wait)
        self._failure = "the meter was not started"
        self._joules = 0.0
        self._samples = 0
        self._began_s = self._last_s = self._last_w = 0.0

    def describe(self) -> str:
        """What is measured, and where."""
        return self._about

    def start(self) -> None:
        """Takes the first sample and goes on in the background."""
        self._background.halt()
        self._background.join()
        self._joules, self._samples, self._failure = 0.0, 1, ""
        try:
            _, self._last_w, cost_s = self._sample()
        except FAILURES as error:
            self._failure = why(error)
            return
        self._began_s = self._last_s = self._clock()
        self._background.start(pause_after(cost_s))

    def stop(self) -> EnergyReading:
        """Takes the last sample; the reading carries a warning where there is no other between."""
        # In this order: a step that finds itself not stopping has read before `end_s`.
        self._background.halt()
        end_s = self._clock()
        self._background.join()
        failure = self._failure or self._background.failure
        self._failure = "the meter was not started"
        if not failure:
            try:
                _, watts, _ = self._sample()
            except FAILURES as error:
                failure = why(error)
        if failure:
            return no_reading(self.name, failure)
        between = self._samples - 1
        self._add(end_s, watts)
        lasted_ms = 1e3 * (end_s - self._began_s)
        return EnergyReading(
            mj=1e3 * self._joules,
            kind=self.kind,
            meter=self.name,
            warning="" if between else f"rough energy: no sample within the {lasted_ms:.0f} ms",
        )

    def _step(self) -> float:
        at_s, watts, cost_s = self._sample()
        if not self._background.stopping:
            self._add(at_s, watts)
        return pause_after(cost_s)

    def _sample(self) -> tuple[float, float, float]:
        before = self._clock()
        watts = self._read_w()
        after = self._clock()
        if not (math.isfinite(watts) and watts >= 0):
            raise ValueError(f"the sensor says {watts} W")
        return (before + after) / 2, watts, after - before

    def _add(self, at_s: float, watts: float) -> None:
        self._joules += (at_s - self._last_s) * (watts + self._last_w) / 2
        self._last_s, self._last_w = at_s, watts
        self._samples += 1


def pause_after(cost_s: float) -> float:
    """Seconds to wait after a sample that took `cost_s`: 0.1, or 100 times the cost if longer."""
    return max(INTERVAL_S, COST_FACTOR * cost_s)
