"""What do a worker and an agent cost a frame, in CPU time, beside a bare echo of the same bytes?

A calibrated model of next to no compute, whose inner boundary is 60 kB as float32: raw, `q8` and
`fkt@4` there, and JPEG at its input. First an agent streams to a worker. Then a load of streams
that only send what was built before keeps the worker busy, and a bare grpc.aio echo of the same
messages after it, in turn. CPU time is user and system of a whole process over its frames: on a
machine with other work it changes less than times do.

    python benchmarks/ingest.py [--quick] [--streams 1 4 16 64]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from bare_echo import ECHO, ECHOED_BYTES, start_echo
from listening import start
from photos import own_photos
from quick_bundle import compiled
from report import Table, write_report
from splitpoint.codec import Array
from splitpoint.edge import EdgeAgent, Given, Outcome, Result
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.bundle.codec_tables import codecs_of
from splitpoint.partition.bundle.samples import find_pictures
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import encode_tensors, parse_server
from steady_load import CpuClock, Loaded, hello_of, load, messages_of
from thin_model import THIN

SERVE = ["-c", "from splitpoint.cli.main import main; main()", "serve"]
BOUNDARY, BYTES = 1, 60_000
CUTS = ((BOUNDARY, "raw"), (BOUNDARY, "q8"), (BOUNDARY, "fkt@4"), (0, "jpeg"))


@dataclass(frozen=True)
class Sent:
    """A photo's frame at one boundary, and what the worker has to answer."""

    boundary: int
    codec: str
    messages: list[bytes]
    inputs: dict[str, Array]
    expected: Array

    @property
    def name(self) -> str:
        return f"{self.codec}, {len(self.messages[0]) / 1e3:.1f} kB"

    def check(self, output: Array) -> None:
        """Values, after the clock has stopped: as near as the codec is to the tensor."""
        error = np.abs(output - self.expected).max() / np.abs(self.expected).max()
        assert error < (1e-4 if self.codec == "raw" else 0.2), (self.codec, error)


def frames_of(bundle: Bundle, photo: Path) -> list[Sent]:
    """The photo as each of `CUTS` sends it."""
    manifest = bundle.manifest
    assert manifest.picture is not None
    assert manifest.boundaries[BOUNDARY].nbytes == BYTES
    codecs, chain = codecs_of(manifest, bundle.folder), OnnxChain(bundle)
    inputs = {manifest.boundaries[0].tensors[0].name: manifest.picture.read(photo)[np.newaxis]}
    states = [chain.place(inputs)]
    for segment in range(len(manifest.segments)):
        chain.load(segment)
        states.append(states[-1] | chain.step(segment, states[-1]))
    output = states[-1][manifest.boundaries[-1].tensors[0].name]
    found = []
    for boundary, name in CUTS:
        specs, codec = manifest.boundaries[boundary].tensors, codecs.named(name, boundary)
        tensors = encode_tensors(states[boundary], specs, codec)
        messages = messages_of(boundary, name, tensors)
        found.append(Sent(boundary, name, messages, inputs, output))
    return found


# One agent. -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Way:
    """Of one run with a full window: frames a second, and CPU of this process and of the other."""

    per_s: float
    here_ms: float
    there_ms: float


async def streamed(agent: EdgeAgent, sent: Sent, frames: int, pid: int) -> Way:
    given = Given(inputs=sent.inputs)
    here, there = CpuClock(), CpuClock(pid)
    results: list[Result] = [r async for r in agent.stream(given for _ in range(frames))]
    (here_s, passed_s), (there_s, _) = here.read(), there.read()
    for result in results:
        assert result.outcome is Outcome.ANSWERED, result.why
        sent.check(next(iter(result.outputs.values())))
    return Way(frames / passed_s, 1e3 * here_s / frames, 1e3 * there_s / frames)


async def own_ms(agent: EdgeAgent, sent: Sent, frames: int) -> tuple[float, float]:
    """Of one frame at a time: what is neither compute nor codec, and what the agent's are."""
    results = [await agent.infer(sent.inputs) for _ in range(frames)]
    own, half = [], []
    for result in results:
        assert result.outcome is Outcome.ANSWERED, result.why
        stages = result.stages_ms
        half.append(stages.edge + stages.encode)
        own.append(result.total_ms - half[-1] - stages.cloud)
    return statistics.median(own), statistics.median(half)


async def echoed(call: Any, sent: Sent, frames: int, pid: int) -> Way:
    message, window = sent.messages[0], 4
    here, there = CpuClock(), CpuClock(pid)
    for _ in range(window):
        await call.write(message)
    for number in range(frames):
        assert await call.read() == message[:ECHOED_BYTES]
        if number < frames - window:
            await call.write(message)
    (here_s, passed_s), (there_s, _) = here.read(), there.read()
    return Way(frames / passed_s, 1e3 * here_s / frames, 1e3 * there_s / frames)


async def one_agent(
    sent: Sent, bundle: Bundle, servers: Servers, folder: Path, options: argparse.Namespace
) -> tuple[list[str], dict[str, float]]:
    frames, rounds = (100, 2) if options.quick else (1000, 5)
    split, echo = [], []
    async with (
        grpc.aio.insecure_channel(servers.echo_address) as channel,
        EdgeAgent(
            servers.address, bundle=bundle.folder, split=str(sent.boundary) if sent.boundary else
            "input", codec=sent.codec, cache=folder, threads=1, finish_locally=False,
            budget_ms=60_000,
        ) as agent,
    ):  # fmt: skip
        call = channel.stream_stream(ECHO)()
        await echoed(call, sent, frames // 4, servers.echo.pid)
        await streamed(agent, sent, frames // 4, servers.worker.pid)
        own, half = await own_ms(agent, sent, frames)
        for _ in range(rounds):
            echo.append(await echoed(call, sent, frames, servers.echo.pid))
            split.append(await streamed(agent, sent, frames, servers.worker.pid))
        call.cancel()
    median = statistics.median
    found = {
        "own_ms": own,
        "device_ms": half,
        "agent_cpu_ms": median(way.here_ms for way in split),
        "worker_cpu_ms": median(way.there_ms for way in split),
        "fps": median(way.per_s for way in split),
        "echo_client_cpu_ms": median(way.here_ms for way in echo),
        "echo_server_cpu_ms": median(way.there_ms for way in echo),
        "of_echo": median(s.per_s / e.per_s for s, e in zip(split, echo, strict=True)),
    }
    row = [sent.name, *(f"{found[key]:.2f}" for key in list(found)[:4]), f"{found['fps']:.0f}",
           f"{found['echo_client_cpu_ms']:.2f}", f"{found['echo_server_cpu_ms']:.2f}",
           f"{found['of_echo']:.2f}x"]  # fmt: skip
    return row, found


AGENT_COLUMNS = [
    "one agent, window full", "own ms, one by one (p50)", "compute + encode, ms (p50)",
    "agent, CPU ms", "worker, CPU ms", "frames/s", "echo's client, CPU ms", "echo, CPU ms",
    "of the echo's frames/s",
]  # fmt: skip


# Many streams. --------------------------------------------------------------------------------


async def many_streams(
    sent: Sent, streams: int, bundle: Bundle, servers: Servers, options: argparse.Namespace
) -> tuple[list[str], dict[str, float]]:
    seconds, rounds = (0.5, 1) if options.quick else (2.0, 5)
    worker, echo = [], []
    for _ in range(rounds):
        echo.append(await load(
            servers.echo_address, servers.echo.pid, sent.messages, streams, seconds, None
        ))  # fmt: skip
        worker.append(await load(
            servers.address, servers.worker.pid, sent.messages, streams, seconds,
            hello_of(bundle.digest),
        ))  # fmt: skip
        check(sent, worker[-1])
    median = statistics.median
    found = {
        "worker_cpu_ms": median(run.server_ms for run in worker),
        "echo_cpu_ms": median(run.server_ms for run in echo),
        "load_cpu_ms": median(run.load_ms for run in worker),
        "fps": median(run.per_s for run in worker),
        "echo_fps": median(run.per_s for run in echo),
        "of_echo": median(w.per_s / e.per_s for w, e in zip(worker, echo, strict=True)),
    }
    cores = os.cpu_count() or 1
    limits = [max(found, key=found.count) for found in (
        [run.at_limit(cores) for run in runs] for runs in (worker, echo)
    )]  # fmt: skip
    row = [sent.name, str(streams), *(f"{found[key]:.3f}" for key in list(found)[:3]),
           f"{found['fps']:.0f}", f"{found['echo_fps']:.0f}", f"{found['of_echo']:.2f}x",
           *limits]  # fmt: skip
    return row, found


def check(sent: Sent, run: Loaded) -> None:
    """The latest reply of each stream."""
    for data in run.replies:
        reply = parse_server(data).reply
        assert reply.status == pb.OK, reply.reason
        sent.check(np.frombuffer(reply.outputs[0].payload, np.float32))


STREAMS_COLUMNS = [
    "frame", "streams", "worker, CPU ms", "echo, CPU ms", "load, CPU ms", "frames/s",
    "echo's frames/s", "of the echo's", "at its limit", "with the echo",
]  # fmt: skip


@dataclass(frozen=True)
class Servers:
    """The worker and the echo, each a process of its own."""

    worker: subprocess.Popen[str]
    address: str
    echo: subprocess.Popen[str]
    echo_address: str

    @classmethod
    def start(cls, bundle: Bundle) -> Servers:
        where = ["--listen", "127.0.0.1:0", "--device", "cpu"]
        return cls(*start([*SERVE, str(bundle.folder), *where]), *start_echo())

    def stop(self) -> None:
        for process in (self.worker, self.echo):
            process.terminate()
            process.communicate(timeout=20)


async def measure(
    bundle: Bundle, photo: Path, folder: Path, options: argparse.Namespace
) -> tuple[Table, Table, dict[str, Any]]:
    servers = Servers.start(bundle)
    agents: list[list[str]] = []
    rows: list[list[str]] = []
    summary: dict[str, Any] = {"agent": {}, "streams": {}}
    try:
        for sent in frames_of(bundle, photo):
            row, found = await one_agent(sent, bundle, servers, folder / "cache", options)
            agents.append(row)
            summary["agent"][sent.codec] = found
            gc.collect()
            for streams in options.streams:
                row, found = await many_streams(sent, streams, bundle, servers, options)
                rows.append(row)
                summary["streams"][f"{sent.codec} {streams}"] = found
    finally:
        servers.stop()
    return Table(AGENT_COLUMNS, agents), Table(STREAMS_COLUMNS, rows), summary


def run(folder: Path, options: argparse.Namespace) -> tuple[Table, Table, dict[str, Any]]:
    photos = own_photos(folder / "photos", 0)
    target = options.bundle or compiled(THIN, folder / "thin.split", "--calibrate", photos)
    measured = measure(open_bundle(target), find_pictures(photos)[0], folder, options)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(measured)
    return uvloop.run(measured)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--bundle", type=Path, help=f"{THIN}, compiled and calibrated already")
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--quick", action="store_true", help="a minute's version")
    options = parser.parse_args()
    if options.quick:
        options.streams = [1, 16]
    with tempfile.TemporaryDirectory() as name:
        agents, streams, summary = run(Path(name), options)
    write_report(
        "ingest", str(__doc__).splitlines()[0], streams, summary,
        save=not options.quick, in_short=[agents],
    )  # fmt: skip


if __name__ == "__main__":
    main()
