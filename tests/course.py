"""Frames that go on while something goes wrong, and what must hold of them.

How late something is counts without the time that this process was kept waiting for a processor: on
a machine that does other things everything is later, and nothing is wrong.
"""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from patience import PATIENCE_S, Lateness, until
from processes import MAIN
from splitpoint.edge import EdgeAgent, Outcome, Result
from splitpoint.partition.relative_error import relative_error

FPS, BUDGET_MS = 15, 600.0
# A finish of the small model takes a millisecond; the rest is for a machine that does other things.
FINISH_MS = 400.0
BACK_S = 2.0
SHARED = 4  # a frame passes from process to process, and each waits for its turn


class WorkerProcess:
    """`splitpoint serve` as a process, always on the same port, with `ingest` ones beside it."""

    def __init__(self, bundle: Path, port: int, ingest: int = 0) -> None:
        self._bundle, self.address = bundle, f"127.0.0.1:{port}"
        self._ingest = ingest
        self._process: subprocess.Popen[str] | None = None

    def start(self, bundle: Path | None = None) -> None:
        """Returns once it listens."""
        self._process = subprocess.Popen(
            [
                *MAIN, "serve", str(bundle or self._bundle), "--listen", self.address,
                "--grace", "2", "--ingest", str(self._ingest),
            ],
            stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if re.search(r"listening on \S+", line):
                return
        raise AssertionError("the worker ended before it listened")

    @property
    def memory_mb(self) -> float:
        """Of all of its processes together."""
        assert self._process is not None
        first = psutil.Process(self._process.pid)
        family = [first, *first.children(recursive=True)]
        return sum(process.memory_info().rss for process in family) / 1e6

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Returns its exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.communicate(timeout=PATIENCE_S)
        return self._process.returncode


@contextmanager
def worker_process(bundle: Path, port: int, ingest: int = 0) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(bundle, port, ingest)
    worker.start()
    try:
        yield worker
    finally:
        worker.end(signal.SIGKILL)


@dataclass
class Course:
    """The frames of one agent, with the time at which each ended."""

    agent: EdgeAgent
    expected: np.ndarray
    results: list[tuple[float, Result]] = field(default_factory=list)
    lateness: Lateness = field(default_factory=Lateness)

    def lost_s(self, begin_s: float, end_s: float) -> float:
        """What the machine took from this process and the others in that time."""
        return SHARED * self.lateness.within_s(begin_s, end_s)

    def check(self) -> None:
        """Every frame has its answer, none is later than its budget and one finish."""
        assert sum(self.agent.outcomes.values()) == len(self.results) > 0
        for at_s, result in self.results:
            assert result.outcome in (Outcome.ANSWERED, Outcome.LOCAL), result.why
            assert relative_error(result.outputs["output"], self.expected) < 0.05, result.why
            lost_ms = 1e3 * self.lost_s(at_s - result.total_ms / 1e3, at_s)
            assert result.total_ms < BUDGET_MS + FINISH_MS + lost_ms, result.why

    def count(self, outcome: Outcome, *, after_s: float = 0.0) -> int:
        return sum(r.outcome is outcome and at_s > after_s for at_s, r in self.results)

    def back_after_s(self, end_s: float) -> float:
        """Seconds from `end_s` until a worker answered again."""
        return min(
            (at_s - end_s for at_s, r in self.results
             if at_s > end_s and r.outcome is Outcome.ANSWERED),
            default=float("inf"),
        )  # fmt: skip


@asynccontextmanager
async def course(
    agent: EdgeAgent, pixels: np.ndarray, expected: np.ndarray
) -> AsyncIterator[Course]:
    """Frames at a steady rate until the block ends; a second before it and one after it."""
    async with agent, Lateness() as lateness:
        await until(lambda: agent.can_finish, "the device cannot finish")
        running = Course(agent, expected, lateness=lateness)
        stop = asyncio.Event()

        async def one() -> None:
            result = await agent.infer({"pixels": pixels})
            running.results.append((time.perf_counter(), result))

        async def drive() -> None:
            begin, tasks = time.perf_counter(), []
            while not stop.is_set():
                tasks.append(asyncio.create_task(one()))
                due = begin + len(tasks) / FPS
                await asyncio.sleep(max(due - time.perf_counter(), 0))
            await asyncio.gather(*tasks)

        driving = asyncio.create_task(drive())
        try:
            await asyncio.sleep(1)
            yield running
        finally:
            stop.set()
            await driving
    running.check()
    assert running.count(Outcome.ANSWERED) > 0


async def until_back(running: Course, fault: Awaitable[object]) -> None:
    """Waits for the fault's end, and for a worker's answer after it: `BACK_S` at most."""
    await fault
    end_s = time.perf_counter()
    await until(lambda: running.back_after_s(end_s) < float("inf"), "nobody answers again")
    took_s = running.back_after_s(end_s)
    assert took_s < BACK_S + running.lost_s(end_s, end_s + took_s)
    await asyncio.sleep(0.5)
