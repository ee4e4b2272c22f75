"""How much memory does the edge need, and how long does it take to start?

Starts a worker with a bundle, then edge processes in which torch cannot be imported, and reads
their resident memory after `import splitpoint.edge`, and after frames at several splits,
without and with the segments that finish a frame on the device.

    python benchmarks/edge_memory.py [--model efficientnet-lite0] [--quick]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from overhead import start
from report import Table, write_report
from splitpoint.partition.compile import compile_model
from splitpoint.partition.model_source import load_model

EDGE = """
import sys, time
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
begin = time.perf_counter()
import splitpoint.edge
imported = time.perf_counter() - begin
import asyncio, json, numpy as np, psutil
from pathlib import Path
def mb():
    return psutil.Process().memory_info().rss / 1e6
async def main(address, split, cache, finish):
    at_import, begin = mb(), time.perf_counter()
    agent = splitpoint.edge.EdgeAgent(
        address, split=split, codec="auto", cache=Path(cache), finish_locally=finish == "finish"
    )
    async with agent:
        spec = agent.manifest.boundaries[0].tensors[0]
        inputs = {spec.name: np.zeros(spec.shape, spec.numpy_dtype)}
        first = None
        for _ in range(30):
            result = await agent.infer(inputs)
            assert result.outputs, result.error
            first = first or time.perf_counter() - begin
        running = mb()
        while not (agent.is_local or agent.can_finish) and finish == "finish":
            await asyncio.sleep(0.01)
        print(json.dumps({"import_s": imported, "import_mb": at_import, "first_s": first,
                          "mb": running, "ready_mb": mb(), "torch": "torch" in sys.modules}))
asyncio.run(main(*sys.argv[1:]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    rows, found = [], {}
    with tempfile.TemporaryDirectory() as folder:
        bundle = compile_model(load_model(args.model), Path(folder) / "m.split")
        last = len(bundle.manifest.segments)
        worker, address = start(
            ["-c", "from splitpoint.cli.main import main; main()",
             "serve", str(bundle.folder), "--listen", "127.0.0.1:0", "--device", "cpu"]
        )  # fmt: skip
        try:
            for split in ("input", str(last // 2), "local"):
                command = [sys.executable, "-c", EDGE, address, split, f"{folder}/cache"]
                # The first fills the cache, and then waits for what it needs to finish by itself.
                for finish in ("finish", "leave"):
                    output = subprocess.run(
                        [*command, finish], capture_output=True, text=True, check=True
                    )
                    time.sleep(0.2)
                    found[f"{split}, {finish}"] = json.loads(output.stdout)
                edge, ready = found[f"{split}, leave"], found[f"{split}, finish"]
                assert not edge["torch"]
                rows.append(
                    [split, f"{edge['import_s']:.2f}", f"{edge['first_s']:.2f}",
                     f"{edge['import_mb']:.0f}", f"{edge['mb']:.0f}", f"{ready['ready_mb']:.0f}"]
                )  # fmt: skip
        finally:
            worker.terminate()
            worker.communicate(timeout=20)
    table = Table(
        ["split", "import, s", "start to first answer, s", "after import, MB", "running, MB",
         "ready to finish, MB"],
        rows,
    )  # fmt: skip
    write_report("edge_memory", __doc__.splitlines()[0], table, found, save=not args.quick)


if __name__ == "__main__":
    main()
