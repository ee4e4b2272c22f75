"""Does the agent stay small and whole when something fails every 20 seconds?

An agent in a process of its own takes frames as fast as they end, over an emulated link, from a
worker that is a process too. Every 20 seconds comes the next fault: the link is cut, stalls, is a
black hole, flips bits; the worker is killed and started again, or drained. Each second the agent
says how much memory it has, how many sockets, file descriptors and threads are open, and what
became of its frames.

    python benchmarks/soak.py [--minutes 15] [--bundle NAME.split] [--quick]

No frame may be lost, and memory and sockets after the first minute must not grow: a line is fitted
to each.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from listening import start
from quick_bundle import QUICK, compiled
from report import RESULTS, Table, write_report
from splitpoint.cli.emulate.relay import Relay
from splitpoint.edge import EdgeAgent, Given
from splitpoint.partition.plan.link import parse_link

MAIN = ["-c", "from splitpoint.cli.main import main; main()"]
FAULT_EVERY_S, BUDGET_MS = 20.0, 500.0
LINK = "50mbps,10ms"


async def agent(server: str, cache: str, seconds: float) -> None:
    """The child: runs frames until the time is over, and says a line a second."""
    me = psutil.Process()
    async with EdgeAgent(
        server, split="2", codec="q8", cache=Path(cache), budget_ms=BUDGET_MS, threads=1
    ) as running:
        await running.settled()
        spec = running.manifest.boundaries[0].tensors[0]
        pixels = np.random.default_rng(0).integers(
            0, 256, (1, *spec.shape_without_batch), dtype=np.uint8
        )

        def source() -> Iterator[Given]:
            while time.perf_counter() - began < seconds:
                yield Given(inputs={spec.name: pixels})

        began = time.perf_counter()
        ended, said, slowest_ms = 0, began, 0.0
        async for result in running.stream(source()):
            ended += 1
            slowest_ms = max(slowest_ms, result.total_ms)
            now = time.perf_counter()
            if now - said >= 1:
                said = now
                print(json.dumps({
                    "at_s": round(now - began, 2),
                    "rss_mb": me.memory_info().rss / 1e6,
                    "sockets": len(me.net_connections("inet")),
                    "files": me.num_fds(),
                    "threads": me.num_threads(),
                    "tasks": len(asyncio.all_tasks()),
                    "ended": ended,
                    "slowest_ms": slowest_ms,
                    "outcomes": {o.value: n for o, n in running.outcomes.items()},
                }), flush=True)  # fmt: skip
        assert sum(running.outcomes.values()) == ended
    outcomes = {o.value: n for o, n in running.outcomes.items()}
    print(json.dumps({"ended": ended, "outcomes": outcomes}), flush=True)


class Faults:
    """One after the other, in turn."""

    def __init__(self, relay: Relay, serve: list[str]) -> None:
        self._relay, self._serve = relay, serve
        self.worker: subprocess.Popen[str] | None = None
        self._turn = itertools.cycle(
            (self.cut, self.stall, self.flip, self.kill, self.black_hole, self.drain)
        )
        self.count = 0

    async def next(self) -> str:
        fault = next(self._turn)
        await fault()
        self.count += 1
        return fault.__name__.replace("_", " ")

    async def cut(self) -> None:
        await self._relay.cut(2)

    async def stall(self) -> None:
        await self._relay.stall(2)

    async def flip(self) -> None:
        for _ in range(5):
            self._relay.flip()
            await asyncio.sleep(0.3)

    async def black_hole(self) -> None:
        await self._relay.black_hole(6)

    async def kill(self) -> None:
        await self._again(signal.SIGKILL)

    async def drain(self) -> None:
        await self._again(signal.SIGTERM)

    async def _again(self, number: signal.Signals) -> None:
        assert self.worker is not None
        self.worker.send_signal(number)
        await asyncio.to_thread(self.worker.wait, 30)
        self.worker, _ = await asyncio.to_thread(start, self._serve)


def bundle_of(folder: Path, *, quick: bool) -> Path:
    if quick:
        return compiled(QUICK, folder / "quick.split")
    weights = ("--weights", "none", "--boundaries", "4")
    return compiled("torchvision:mobilenet_v3_small", folder / "small.split", *weights)


async def soak(
    bundle: Path, seconds: float, fault_every_s: float, folder: Path
) -> tuple[list[Any], Any, int]:
    serve = [*MAIN, "serve", str(bundle), "--listen"]
    worker, address = start([*serve, "127.0.0.1:0"])
    serve.append(address)
    async with Relay(address, parse_link(LINK)) as relay:
        faults = Faults(relay, serve)
        faults.worker = worker
        child = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--agent", relay.address, "--cache", str(folder / "cache"),
            "--minutes", f"{seconds / 60}", stdout=subprocess.PIPE,
        )  # fmt: skip
        samples: list[Any] = []
        runs = asyncio.Event()

        async def listen() -> None:
            assert child.stdout is not None
            async for line in child.stdout:
                samples.append(json.loads(line))
                runs.set()
            runs.set()

        listening = asyncio.create_task(listen())
        try:
            await runs.wait()
            began = time.perf_counter()
            while time.perf_counter() - began < seconds - fault_every_s / 2:
                await asyncio.sleep(fault_every_s)
                if child.returncode is None:
                    print(f"{time.perf_counter() - began:6.0f} s  {await faults.next()}",
                          file=sys.stderr, flush=True)  # fmt: skip
            await listening
            assert await child.wait() == 0
        finally:
            if child.returncode is None:
                child.kill()
            listening.cancel()
            faults.worker.send_signal(signal.SIGTERM)
            await asyncio.to_thread(faults.worker.wait, 30)
    return samples[:-1], samples[-1], faults.count


def slope_per_hour(samples: list[Any], name: str, after_s: float) -> float:
    later = [s for s in samples if s["at_s"] > after_s]
    if len(later) < 3:
        return float("nan")
    hours = np.array([s["at_s"] for s in later]) / 3600
    return float(np.polyfit(hours, [s[name] for s in later], 1)[0])


def draw(samples: list[Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(3, 1, figsize=(8, 7), sharex=True)
    minutes = [s["at_s"] / 60 for s in samples]
    names = (("rss_mb", "resident memory, MB"), ("sockets", "open sockets"), ("ended", "frames"))
    for axis, (name, label) in zip(axes, names, strict=True):
        axis.plot(minutes, [s[name] for s in samples], lw=1)
        axis.set_ylabel(label)
        axis.set_ylim(0, 1.1 * max(s[name] for s in samples))
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("minutes; a fault each 20 s")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--bundle", type=Path, help="a compiled model")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--agent", help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    options = parser.parse_args()
    seconds = 60 * options.minutes
    if options.agent:
        asyncio.run(agent(options.agent, options.cache, seconds))
        return
    os.environ.setdefault("GOMP_SPINCOUNT", "60000")
    if options.quick:
        seconds = 6.0
    with tempfile.TemporaryDirectory() as name:
        every_s = 1.0 if options.quick else FAULT_EVERY_S
        bundle = options.bundle or bundle_of(Path(name), quick=options.quick)
        samples, last, faults = asyncio.run(soak(bundle, seconds, every_s, Path(name)))
    lost = last["ended"] - last["outcomes"]["answered"] - last["outcomes"]["local"]
    after_s = 0.0 if options.quick else 60.0
    at = [s for s in samples if s["at_s"] > after_s]
    rows = [
        [label, f"{at[0][name]:.1f}", f"{max(s[name] for s in at):.1f}", f"{at[-1][name]:.1f}",
         f"{slope_per_hour(samples, name, after_s):+.1f}"]
        for name, label in (("rss_mb", "resident memory, MB"), ("sockets", "sockets"),
                            ("files", "file descriptors"), ("threads", "threads"),
                            ("tasks", "tasks"))
    ]  # fmt: skip
    table = Table(
        ["of the agent", "after 1 min", "most", "at the end", "a fitted line, per h"], rows
    )
    summary = {
        "minutes": round(seconds / 60, 2), "faults": faults, "frames": last["ended"],
        "outcomes": last["outcomes"], "without_an_answer": lost,
        "slowest_ms": round(samples[-1]["slowest_ms"], 1), "budget_ms": BUDGET_MS,
        "link": f"{LINK} (emulated)",
    }  # fmt: skip
    write_report("soak", str(__doc__).splitlines()[0], table, summary, save=not options.quick)
    print(json.dumps(summary))
    if not options.quick:
        newest = max(RESULTS.glob("soak-*.json"), key=lambda path: path.stat().st_mtime)
        draw(samples, newest.with_suffix(".png"))
    assert lost == 0, last


if __name__ == "__main__":
    main()
