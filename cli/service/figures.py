"""What `GET /stats` says: the plan and why, and what became of each source's frames."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from splitpoint.edge import EdgeAgent, Result
from splitpoint.edge.figures.recent import RecentFrames
from splitpoint.edge.figures.run_energy import RunEnergy
from splitpoint.edge.figures.run_stats import RunStats
from splitpoint.partition.plan.plan import name_of
from splitpoint.proto.printable import printable

from ..run.lost_frames import LostFrames
from ..run.result_lines import best_answer

MOST_EVENTS, MOST_SAID = 50, 300  # characters of one


class Events(logging.Handler):
    """The last things that happened, with their times: bounded, however long a run lasts.

    As a handler of log lines it takes warnings; `say` adds others. Any thread may call it.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(logging.WARNING)
        self._clock, self._guarded = clock, threading.Lock()
        self._lines: deque[dict[str, str]] = deque(maxlen=MOST_EVENTS)

    def say(self, line: str) -> None:
        """One more, now."""
        at = datetime.fromtimestamp(self._clock(), timezone.utc)
        time_ = at.isoformat(timespec="seconds")
        with self._guarded:
            self._lines.append({"time": time_, "text": printable(line, MOST_SAID)})

    def emit(self, record: logging.LogRecord) -> None:
        """A line of the log."""
        self.say(record.getMessage())

    def to_json(self) -> list[dict[str, str]]:
        """The latest first."""
        with self._guarded:
            return list(reversed(self._lines))


class SourceFigures:
    """What became of the frames of one source."""

    def __init__(self, budget_ms: float) -> None:
        self._budget_ms = budget_ms
        self._stats, self._recent = RunStats(), RecentFrames()
        self._in_time = 0
        self._last: Result | None = None  # that has an answer

    def add(self, result: Result) -> None:
        """One frame."""
        self._stats.add(result)
        self._recent.add(result)
        if result.outputs:
            self._in_time += result.total_ms <= self._budget_ms
            self._last = result

    def to_json(self, agent: EdgeAgent, min_score: float) -> dict[str, Any]:
        """`ways` are the shares of the last seconds' answers; times are of the latest 512."""
        stages = self._recent.stage_medians_ms()
        return {
            **self._stats.summary(),
            "in_time": self._in_time,
            "fps": round(self._recent.rate(), 2),
            "mb_up": round(self._stats.bytes_up / 1e6, 6),
            "stages_ms": {name: round(ms, 3) for name, ms in stages.items()},
            "ways": [
                {"split": split, "codec": codec, "way": name_of(split, codec), "share": share}
                for (split, codec), share in self._recent.ways().items()
            ],
            "answer": "" if self._last is None else best_answer(agent, self._last, min_score),
        }


class ServiceFigures:
    """All that a run tells of itself, in memory that does not grow with it."""

    def __init__(
        self, agent: EdgeAgent, energy: RunEnergy, *, budget_ms: float, min_score: float
    ) -> None:
        self._agent, self._energy = agent, energy
        self._budget_ms, self._min_score = budget_ms, min_score
        self._began_s = time.monotonic()
        self._sources: dict[str, SourceFigures] = {}
        self.events = Events()
        self._lost = LostFrames(self.events.say)

    def source(self, name: str) -> None:
        """There is such a source, whether or not it has given a frame."""
        self._sources.setdefault(name, SourceFigures(self._budget_ms))

    def name_of_source(self, number: str) -> str | None:
        """Of the source with that number in `sources`; None where there is none."""
        names = list(self._sources)
        known = {str(place): name for place, name in enumerate(names)}
        return known.get(number)

    def add(self, name: str, result: Result) -> None:
        """Counts a frame of the source called `name`."""
        self.source(name)
        self._sources[name].add(result)
        if result.error is not None:
            self._lost.add(result)

    def to_json(self) -> dict[str, Any]:
        """The document of `GET /stats`; its names are those of `run --json` where both say it."""
        agent, reading = self._agent, self._energy.reading
        manifest, plan = agent.manifest, agent.plan
        sources = [
            {"name": printable(name), **figures.to_json(agent, self._min_score)}
            for name, figures in self._sources.items()
        ]
        outcomes: dict[str, int] = {}
        for source in sources:
            for outcome, count in source["outcomes"].items():
                outcomes[outcome] = outcomes.get(outcome, 0) + count
        return {
            "model": {
                "name": printable(manifest.name),
                "digest": agent.digest,
                "task": manifest.task.kind,
            },
            "plan": {
                "split": plan.boundary,
                "after": printable(manifest.boundaries[plan.boundary].after or "the input"),
                "codec": plan.codec,
                "runtime": plan.runtime,
                "way": name_of(plan.boundary, plan.codec),
                "why": printable(plan.why, MOST_SAID),
            },
            "uplink_mbps": agent.uplink_mbps,
            "budget_ms": self._budget_ms,
            "seconds": round(time.monotonic() - self._began_s, 1),
            "frames": sum(outcomes.values()),
            "outcomes": outcomes,
            "in_time": sum(source["in_time"] for source in sources),
            "mb_up": round(sum(source["mb_up"] for source in sources), 6),
            "energy_wh": None if reading.mj is None else round(reading.mj / 3.6e6, 6),
            "energy_kind": reading.kind if reading.mj is not None else "none",
            "sources": sources,
            "events": self.events.to_json(),
        }
