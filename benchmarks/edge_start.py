"""How long does the edge take from its start to the first answer, and how much memory does it need?

A worker process serves a bundle; edge processes in which torch cannot be imported start with a warm
cache: the segments, the device's profile and Python's bytecode are there, as on any device that ran
before. Once as `EdgeAgent` in a program, with the split `auto` and with one that is named, and once
as `splitpoint run`, where the time is that of the whole process up to its first line. Medians.

    python benchmarks/edge_start.py [--model efficientnet-lite0] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from listening import start
from photos import own_photos
from quick_bundle import QUICK, compiled
from report import Table, write_report
from splitpoint.partition.bundle.bundle import Bundle, open_bundle

LIMITS = {"first_s": 1.5, "import_s": 0.6, "beyond_weights_mb": 150.0}

BLOCK = """
import sys, time
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
"""
AGENT = """
begin, worked = time.perf_counter(), time.process_time()
import splitpoint.edge
imported, import_cpu = time.perf_counter() - begin, time.process_time() - worked
import asyncio, json, numpy as np, psutil
from pathlib import Path
async def main(address, split, cache):
    begin, worked = time.perf_counter(), time.process_time()
    async with splitpoint.edge.EdgeAgent(address, split=split, cache=Path(cache)) as agent:
        ready = time.perf_counter() - begin
        spec = agent.manifest.boundaries[0].tensors[0]
        result = await agent.infer({spec.name: np.zeros(spec.shape, spec.numpy_dtype)})
        assert result.outputs, result.error
        first, first_cpu = time.perf_counter() - begin, time.process_time() - worked
        while not (agent.is_local or agent.can_finish):
            await asyncio.sleep(0.01)
        for _ in range(20):
            await agent.infer({spec.name: np.zeros(spec.shape, spec.numpy_dtype)})
        print(json.dumps({"import_s": imported, "ready_s": ready, "first_s": first,
                          "import_cpu_s": import_cpu, "first_cpu_s": first_cpu,
                          "boundary": agent.plan.boundary, "torch": "torch" in sys.modules,
                          "mb": psutil.Process().memory_info().rss / 1e6}))
asyncio.run(main(*sys.argv[1:]))
"""
RUN = "from splitpoint.cli.main import main; main()"


def environment(folder: str) -> dict[str, str]:
    """Ours, with a place for bytecode, as an installed package has it."""
    own = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return own | {"PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}


def agent(address: str, split: str, folder: str) -> dict[str, float]:
    """One start of the agent in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCK + AGENT, address, split, f"{folder}/cache"],
        capture_output=True, text=True, check=True, env=environment(folder),
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    assert not found["torch"]
    return found


def run(address: str, photo: str, folder: str, split: str) -> dict[str, float]:
    """One `splitpoint run`, from the start of its process to the first frame's line."""
    begin = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", BLOCK + RUN, "run", "--server", address, "--source", photo,
         "--cache", f"{folder}/cache", "--split", split, "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(folder),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        first = time.perf_counter() - begin
        process.stdout.read()
    assert line["outcome"] in ("answered", "local"), line
    return {"first_s": first, "boundary": line["split"], "total_s": time.perf_counter() - begin}


def weights_mb(bundle: Bundle) -> float:
    """What the segments' weights take, each of them once."""
    return sum(bundle.path(s.weights).stat().st_size for s in bundle.manifest.segments) / 1e6


def medians(one: Callable[[], dict[str, float]], times: int) -> Mapping[str, float]:
    """Of so many starts. Where there are several, one before them fills the cache."""
    found = [one() for _ in range(times + (times > 1))][-times:]
    return {key: statistics.median(each[key] for each in found) for key in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--bundle", type=Path, help="compiled already")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    times = 1 if args.quick else 7
    summary: dict[str, object] = {"limits": LIMITS}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bundle = open_bundle(
            args.bundle or compiled(QUICK if args.quick else args.model, Path(folder) / "m.split")
        )
        photo = str(sorted(Path(own_photos(Path(folder) / "photos", 0)).iterdir())[0])
        weights = weights_mb(bundle)
        worker, address = start(
            ["-c", "from splitpoint.cli.main import main; main()",
             "serve", str(bundle.folder), "--listen", "127.0.0.1:0", "--device", "cpu"]
        )  # fmt: skip
        try:
            # With auto the device measures itself first, which takes most of a minute.
            splits = ["auto"] * (not args.quick) + [str(len(bundle.manifest.segments) // 2)]
            for split in splits:
                found = medians(partial(agent, address, split, folder), times)
                beyond = found["mb"] - weights
                summary[f"EdgeAgent, {split}"] = {**found, "beyond_weights_mb": beyond}
                rows.append(
                    [f"EdgeAgent, split {split}",
                     f"{found['import_s']:.2f} ({found['import_cpu_s']:.2f})",
                     f"{found['first_s']:.2f} ({found['first_cpu_s']:.2f})",
                     f"{found['import_s'] + found['first_s']:.2f}",
                     f"{found['mb']:.0f}", f"{beyond:.0f}"]
                )  # fmt: skip
            found = medians(partial(run, address, photo, folder, splits[0]), times)
            summary[f"splitpoint run, {splits[0]}"] = found
            name = f"splitpoint run, split {splits[0]}"
            rows.append([name, "", "", f"{found['first_s']:.2f}", "", ""])
        finally:
            worker.terminate()
            worker.communicate(timeout=20)
    summary["weights_mb"] = weights
    columns = ["edge", "import, s (of CPU)", "agent's start to first answer, s (of CPU)",
               "from nothing to first answer, s", "all segments loaded, MB",
               "beyond the weights, MB"]  # fmt: skip
    rows.append(["at most", f"{LIMITS['import_s']:.1f}", f"{LIMITS['first_s']:.1f}",
                 "", "", f"{LIMITS['beyond_weights_mb']:.0f}"])  # fmt: skip
    write_report(
        "edge_start", __doc__.splitlines()[0], Table(columns, rows), summary, save=not args.quick
    )


if __name__ == "__main__":
    main()
