"""What a run is doing, as a table on the terminal that keeps up with it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from splitpoint.edge import EdgeAgent, Outcome, Result
from splitpoint.edge.dispatch.regime import uplink_words
from splitpoint.edge.figures.recent import RecentFrames
from splitpoint.edge.figures.run_energy import RunEnergy
from splitpoint.edge.meaning import MIN_SCORE
from splitpoint.proto.printable import printable

from ..shell.output import err
from .energy_words import energy_words
from .result_lines import best_answer

LAST = 3  # answers that are shown


class LiveTable:
    """A sink that shows the last frames on stderr; `refresh` redraws, some times a second."""

    def __init__(
        self,
        agent: EdgeAgent,
        energy: RunEnergy,
        *,
        min_score: float = MIN_SCORE,
        console: Console = err,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._agent, self._energy, self._min_score = agent, energy, min_score
        self._recent = RecentFrames(clock=clock)
        self._outcomes = dict.fromkeys(Outcome, 0)
        self._last: deque[str] = deque(maxlen=LAST)
        self._switch = ""
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def add(self, result: Result) -> None:
        """Remembers what the table shows of it."""
        self._outcomes[result.outcome] += 1
        self._recent.add(result)
        answer = best_answer(self._agent, result, self._min_score)
        self._last.append(f"{result.id}  {answer}  {result.total_ms:.1f} ms")

    def switched(self, why: str) -> None:
        """Shows why the plan has changed."""
        self._switch = why

    def refresh(self) -> None:
        """Draws the table again; the first time it starts to."""
        self._live.start()
        self._live.update(self.table(), refresh=True)

    def close(self) -> None:
        """Takes the table away."""
        self._live.stop()

    def table(self) -> Table:
        """The table as it is now."""
        agent, reading = self._agent, self._energy.reading
        boundary = agent.manifest.boundaries[agent.plan.boundary]
        uplink = agent.uplink_mbps
        rows = {
            "frames": f"{sum(self._outcomes.values())}, {self._recent.rate():.1f} a second",
            "outcomes": ", ".join(f"{n} {o.value}" for o, n in self._outcomes.items() if n),
            "split": f"boundary {boundary.id} after {printable(boundary.after or 'the input')}",
            "codec": self._recent.codec or agent.plan.codec,
            "uplink": "" if uplink is None else uplink_words(uplink),
            "latency": self._latency(),
            "energy": energy_words(reading),
            "switched": self._switch,
            "last": "\n".join(self._last),
        }
        # Names are of a manifest that the worker sent, or of a file: they are no markup.
        title = Text(printable(agent.manifest.name))
        table = Table(title=title, show_header=False, box=None, title_justify="left")
        for name, text in rows.items():
            if text:
                table.add_row(name, Text(text))
        return table

    def _latency(self) -> str:
        found = self._recent.percentiles_ms((50, 95, 99))
        if found is None:
            return ""
        p50, p95, p99 = found
        return f"p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms (last {self._recent.answers})"
