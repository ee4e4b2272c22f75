"""What does the framework itself cost a frame?

Two processes on loopback: a worker with a trivial model whose only inner boundary is 60 kB, and
this process as the edge. Rivals in the same run, in turn: a bare grpc.aio bidirectional echo of
the same bytes. Measured: the framework's own time for one frame at a time (end to end less edge
compute less cloud compute), frames a second with a full window, and where the time goes.

    python benchmarks/overhead.py [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch
from bare_echo import ECHO, ECHOED_BYTES, start_echo
from listening import start
from report import Table, write_report
from splitpoint.edge import EdgeAgent, Given, Outcome, Result
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.model_spec import ModelSpec

WINDOW = 4


class Trivial(torch.nn.Module):
    """As good as no compute on either side; 15,000 floats cross."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` is `[batch, 1875, 8]`."""
        return self.last(torch.relu(self.first(x)[:, :, :])).mean(1)


async def echo_one(call: Any, payload: bytes, frames: int) -> list[float]:
    """Milliseconds of each echo, one at a time."""
    times = []
    for _ in range(frames):
        begin = time.perf_counter()
        await call.write(payload)
        assert await call.read() == payload[:ECHOED_BYTES]
        times.append(1e3 * (time.perf_counter() - begin))
    return times


async def echo_rate(call: Any, payload: bytes, frames: int) -> float:
    """Echoes a second with WINDOW in flight."""

    async def read() -> None:
        for _ in range(frames):
            assert await call.read() == payload[:ECHOED_BYTES]
            credits.release()

    credits = asyncio.Semaphore(WINDOW)
    begin = time.perf_counter()
    reading = asyncio.create_task(read())
    for _ in range(frames):
        await credits.acquire()
        await call.write(payload)
    await reading
    return frames / (time.perf_counter() - begin)


async def split_one(
    agent: EdgeAgent, given: Given, expected: np.ndarray, frames: int
) -> list[Result]:
    results = [await agent.infer(given.inputs) for _ in range(frames)]
    check(results, expected)
    return results


async def split_rate(
    agent: EdgeAgent, given: Given, expected: np.ndarray, frames: int
) -> tuple[float, list[Result]]:
    begin = time.perf_counter()
    results = [result async for result in agent.stream(given for _ in range(frames))]
    rate = frames / (time.perf_counter() - begin)
    check(results, expected)
    return rate, results


def check(results: list[Result], expected: np.ndarray) -> None:
    """Values, after the clock has stopped."""
    for result in results:
        assert result.outcome is Outcome.ANSWERED, result.error
        np.testing.assert_allclose(result.outputs["output"], expected, rtol=1e-4, atol=1e-5)


def own_ms(result: Result, compute_ms: float) -> float:
    """End to end less edge compute less the worker's compute."""
    return result.total_ms - result.stages_ms.edge - compute_ms


async def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    model = Trivial().eval()
    spec = ModelSpec(source="trivial", module=model, args=(torch.randn(2, 1875, 8),))
    bundle = compile_model(spec, folder / "trivial.split", boundaries=20)
    boundary = next(b for b in bundle.manifest.boundaries if b.nbytes == 60_000 and b.id > 0)
    x = torch.randn(1, 1875, 8)
    expected = model(x).detach().numpy()
    given = Given(inputs={bundle.manifest.boundaries[0].tensors[0].name: x.numpy()})
    worker, address = start(
        [
            "-c",
            "from splitpoint.cli.main import main; main()",
            "serve",
            str(bundle.folder),
            "--listen",
            "127.0.0.1:0",
            "--device",
            "cpu",
        ]
    )
    echo, echo_address = start_echo()
    frames, rounds = (150, 2) if args.quick else (1500, 5)
    found: dict[str, list[Any]] = {
        key: [] for key in ("echo_ms", "echo_fps", "split", "split_fps", "streamed")
    }
    try:
        async with (
            grpc.aio.insecure_channel(echo_address) as channel,
            EdgeAgent(
                address, split=str(boundary.id), codec="raw", cache=folder / "cache", threads=1
            ) as agent,
        ):
            call = channel.stream_stream(ECHO)()
            payload = bytes(60_000)
            await echo_one(call, payload, 50)
            await split_one(agent, given, expected, 50)
            for _ in range(rounds):
                found["echo_ms"] += await echo_one(call, payload, frames // 3)
                found["split"] += await split_one(agent, given, expected, frames // 3)
                found["echo_fps"].append(await echo_rate(call, payload, frames))
                rate, results = await split_rate(agent, given, expected, frames)
                found["split_fps"].append(rate)
                found["streamed"] += results
            call.cancel()
    finally:
        for process in (worker, echo):
            process.terminate()
            process.communicate(timeout=20)
    return found


def summarise(found: dict[str, list[Any]]) -> tuple[Table, dict[str, Any]]:
    # The worker reports decode + compute together as `cloud`; with raw and a trivial model what
    # is left of it is the hop to the compute thread and back, which is the framework's own.
    own = [own_ms(r, r.cloud_compute_ms) for r in found["split"]]
    median = statistics.median
    echo_ms, echo_fps = median(found["echo_ms"]), median(found["echo_fps"])
    split_fps = median(found["split_fps"])
    ratio = median(s / e for s, e in zip(found["split_fps"], found["echo_fps"], strict=True))
    rows = [
        [
            "own time a frame, ms (p50)",
            f"{median(own):.3f}",
            f"{echo_ms:.3f}",
            f"{median(own) / echo_ms:.2f}x",
        ],
        [
            "own time a frame, ms (p95)",
            f"{np.percentile(own, 95):.3f}",
            f"{np.percentile(found['echo_ms'], 95):.3f}",
            "",
        ],
        ["frames a second, 4 in flight", f"{split_fps:.0f}", f"{echo_fps:.0f}", f"{ratio:.2f}x"],
    ]
    stages = {
        name: median(getattr(r.stages_ms, name) for r in found["split"])
        for name in ("edge", "encode", "uplink", "queue", "cloud", "downlink")
    }
    stages["rest of the agent"] = median(
        r.total_ms - sum(r.stages_ms.to_json().values()) for r in found["split"]
    )
    rows += [[f"  of one frame: {name}, ms", f"{ms:.3f}", "", ""] for name, ms in stages.items()]
    summary = {
        "own_ms_p50": median(own),
        "echo_ms_p50": echo_ms,
        "split_fps": split_fps,
        "echo_fps": echo_fps,
        "fps_ratio": ratio,
        "stages_ms": stages,
    }
    return Table(["", "splitpoint", "bare echo", "ratio"], rows), summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a minute's version")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(args, Path(folder)))
    table, summary = summarise(found)
    write_report("overhead", __doc__.splitlines()[0], table, summary, save=not args.quick)


if __name__ == "__main__":
    main()
