"""Where does the CPU time of a frame go, on a worker and on a device?

The worker and the agent run with their functions timed: each stage's own CPU time, without that of
stages inside it, over the frames. What is left of a thread's time is gRPC, the event loop, and
threads that wait for each other. The frames are those of `ingest.py`.

    python benchmarks/frame_cost.py [--quick] [--before RESULT.json]

`--before` sets an earlier result of this script beside, whose columns come first.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bare_echo import start_echo
from listening import start
from photos import own_photos
from quick_bundle import compiled
from report import Table, write_report
from splitpoint.edge import EdgeAgent, Given, Outcome
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.bundle.samples import find_pictures
from splitpoint.proto.tasks import run_in_loop
from stage_clock import StageClock, of_agent
from steady_load import hello_of, load
from thin_frames import Sent, check, frames_of
from thin_model import THIN

CODECS = ("q8", "fkt@4")
STREAMS = 4
CLOCK = Path(__file__).parent / "stage_clock.py"
REST, ALL, ECHO_OF_IT = "gRPC, event loop, threads that wait", "all", "a bare echo, all"


def us_per_frame(marks: list[dict[str, Any]], frames: int) -> dict[str, float]:
    """Of CPU, by stage, between two marks."""
    before, after = marks
    us = 1e6 / frames
    all_us = us * (sum(after["threads"].values()) - sum(before["threads"].values()))
    found = {
        stage: us * (seconds - before["stages"].get(stage, 0.0))
        for stage, seconds in sorted(after["stages"].items())
    }
    return found | {REST: all_us - sum(found.values()), ALL: all_us}


class TimedWorker:
    """A worker whose functions are timed."""

    def __init__(self, bundle: Bundle, folder: Path) -> None:
        self._figures = folder / "figures.json"
        self.process, self.address = start([
            str(CLOCK), str(self._figures), "serve", str(bundle.folder),
            "--listen", "127.0.0.1:0", "--device", "cpu",
        ])  # fmt: skip

    def figures(self) -> dict[str, Any]:
        """What `StageClock.figures` says there."""
        self._figures.unlink(missing_ok=True)
        os.kill(self.process.pid, signal.SIGUSR1)
        while not self._figures.exists():
            assert self.process.poll() is None, "the worker has ended"
            time.sleep(0.005)
        found: dict[str, Any] = json.loads(self._figures.read_text())
        return found


async def of_worker(
    sent: Sent, bundle: Bundle, worker: TimedWorker, echo: tuple[int, str], seconds: float
) -> dict[str, float]:
    marks: list[dict[str, Any]] = []
    found = await load(
        worker.address, worker.process.pid, sent.messages, STREAMS, seconds,
        hello_of(bundle.digest), lambda: marks.append(worker.figures()),
    )  # fmt: skip
    check(sent, found)
    bare = await load(echo[1], echo[0], sent.messages, STREAMS, seconds, None)
    return us_per_frame(marks, found.frames) | {ECHO_OF_IT: 1e3 * bare.server_ms}


async def of_device(
    sent: Sent, agent: EdgeAgent, clock: StageClock, echo: tuple[int, str], frames: int
) -> dict[str, float]:
    given = Given(inputs=sent.inputs)
    marks = [clock.figures()]
    results = [r async for r in agent.stream(given for _ in range(frames))]
    marks.append(clock.figures())
    for result in results:
        assert result.outcome is Outcome.ANSWERED, result.why
        sent.check(next(iter(result.outputs.values())))
    bare = await load(echo[1], echo[0], sent.messages, 1, 0.3, None)
    return us_per_frame(marks, frames) | {ECHO_OF_IT: 1e3 * bare.load_ms}


async def measure(bundle: Bundle, photo: Path, folder: Path, *, quick: bool) -> dict[str, Any]:
    """Medians of several runs in turn, by codec, of both ends."""
    seconds, frames, rounds = (0.4, 100, 1) if quick else (2.0, 1500, 5)
    clock, worker, (echo, echo_address) = StageClock(of_agent()), None, start_echo()
    sents = [sent for sent in frames_of(bundle, photo) if sent.codec in CODECS]
    found: dict[str, dict[str, Any]] = {sent.codec: {"worker": [], "device": []} for sent in sents}
    try:
        worker = TimedWorker(bundle, folder)
        at = echo.pid, echo_address
        for sent in sents:
            async with EdgeAgent(
                worker.address, bundle=bundle.folder, split=str(sent.boundary), codec=sent.codec,
                cache=folder / "cache", threads=1, budget_ms=60_000,
            ) as agent:  # fmt: skip
                await agent.settled()
                await of_device(sent, agent, clock, at, 100)
                for _ in range(rounds):
                    ends = found[sent.codec]
                    ends["device"].append(await of_device(sent, agent, clock, at, frames))
                    ends["worker"].append(await of_worker(sent, bundle, worker, at, seconds))
    finally:
        for process in (echo, *([worker.process] if worker else [])):
            process.terminate()
            process.communicate(timeout=20)
    return {
        codec: {
            end: {what: statistics.median(run[what] for run in runs) for what in runs[0]}
            for end, runs in ends.items()
        }
        for codec, ends in found.items()
    }


def table_of(now: dict[str, Any], before: dict[str, Any] | None) -> Table:
    """A line for each stage of each end; with `before`, two columns a codec."""
    columns, sets = ["of a frame, us of CPU"], []
    for codec in CODECS:
        if before is not None:
            columns.append(f"{codec} before")
            sets.append(before[codec])
        columns.append(codec)
        sets.append(now[codec])
    rows = [
        [f"{end}: {what}", *(f"{one[end].get(what, 0.0):.0f}" for one in sets)]
        for end in ("worker", "device")
        for what in now[CODECS[0]][end]
    ]
    return Table(columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--bundle", type=Path, help=f"{THIN}, compiled and calibrated already")
    parser.add_argument("--before", type=Path, help="an earlier result's JSON")
    parser.add_argument("--quick", action="store_true", help="a minute's version")
    options = parser.parse_args()
    before = None
    if options.before is not None:
        before = json.loads(options.before.read_text(encoding="utf-8"))["summary"]
    with tempfile.TemporaryDirectory() as name:
        photos = own_photos(Path(name) / "photos", 0)
        target = options.bundle or compiled(THIN, Path(name) / "thin.split", "--calibrate", photos)
        now = run_in_loop(measure(
            open_bundle(target), find_pictures(photos)[0], Path(name), quick=options.quick
        ))  # fmt: skip
    write_report(
        "frame_cost", str(__doc__).splitlines()[0], table_of(now, before), now,
        save=not options.quick,
    )  # fmt: skip


if __name__ == "__main__":
    main()
