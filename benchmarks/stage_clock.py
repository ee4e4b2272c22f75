"""CPU time by stage and by thread inside a process that handles frames: functions are timed.

As a script it is a worker whose functions are timed; SIGUSR1 has it write what it took so far.

    python benchmarks/stage_clock.py FIGURES.json serve NAME.split --listen 127.0.0.1:0
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Place = tuple[Any, str, str]  # of a function: its owner, its name there, and the stage that it is


class StageClock:
    """Seconds of each stage, without those of stages inside it."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._ns: Counter[str] = Counter()
        self._running = threading.local()
        for owner, name, stage in places:
            setattr(owner, name, self._timed(getattr(owner, name), stage))

    def figures(self) -> dict[str, Any]:
        """By stage, and of whole threads: a name may stand for several of them."""
        threads: Counter[str] = Counter()
        known = {thread.native_id: thread.name for thread in threading.enumerate()}
        for task in Path("/proc/self/task").iterdir():
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            ticks = int(fields[11]) + int(fields[12])
            name = known.get(int(task.name), "gRPC").rpartition("_")
            threads[name[0] or name[2]] += ticks / os.sysconf("SC_CLK_TCK")
        return {"stages": {s: ns / 1e9 for s, ns in self._ns.items()}, "threads": dict(threads)}

    def _timed(self, real: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def timed(*args: Any, **keywords: Any) -> Any:
            inside: list[int] = self._running.__dict__.setdefault("inside", [0])
            inside.append(0)
            begin_ns = time.thread_time_ns()
            try:
                return real(*args, **keywords)
            finally:
                took_ns = time.thread_time_ns() - begin_ns
                self._ns[stage] += took_ns - inside.pop()
                inside[-1] += took_ns

        return timed


def of_worker() -> list[Place]:
    from splitpoint.cloud.engine import executor
    from splitpoint.cloud.engine.engines import Engines
    from splitpoint.cloud.frames import answers, frame_work, intake
    from splitpoint.partition.run.onnx_segment import OnnxSegment
    from splitpoint.proto.frames import CheckedFrame
    from splitpoint.proto.session.worker_session import WorkerSession

    return [
        (WorkerSession, "read", "parse"),
        (intake, "check_frame", "check"),
        (CheckedFrame, "decode", "decode"),
        (frame_work.FrameWork, "take", "take and plan"),
        (Engines, "check", "take and plan"),
        (Engines, "submit", "take and plan"),
        (answers.Answers, "give", "answer"),
        (frame_work, "encoded", "answer"),
        (answers, "load_of", "tell the load"),
        (executor, "advance", "batch"),
        (executor.Executor, "_work", "batch"),
        (OnnxSegment, "__call__", "onnxruntime"),
    ]


def of_agent() -> list[Place]:
    from splitpoint.edge.frames import edge_half, path
    from splitpoint.partition.run.onnx_segment import OnnxSegment
    from splitpoint.proto.session.edge_session import EdgeSession

    return [
        (OnnxSegment, "__call__", "onnxruntime"),
        (edge_half.EdgeHalf, "compute", "compute, besides"),
        (edge_half.EdgeHalf, "encode", "encode"),
        (path, "build_frame", "build the frame"),
        (EdgeSession, "receive", "read the reply"),
        (path, "decode_reply", "check the reply"),
    ]


def main() -> None:
    from splitpoint.cli.main import main as command

    target, sys.argv[1:] = Path(sys.argv[1]), sys.argv[2:]
    clock = StageClock(of_worker())

    def write(*_: object) -> None:
        beside = target.with_suffix(".part")
        beside.write_text(json.dumps(clock.figures()))
        beside.replace(target)

    signal.signal(signal.SIGUSR1, write)
    command()


if __name__ == "__main__":
    main()
