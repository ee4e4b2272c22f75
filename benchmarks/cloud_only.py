"""Where everything is sent to the cloud, how does the worker compare with LitServe?

The same JPEGs to both, from simulated clients that each wait for their answer; the same model, the
same largest batch, each server a process of its own, in turn, several rounds. LitServe runs as its
documentation sets it up (base64 in JSON, PIL, torch), with the best of one and two workers and of
two batch timeouts; and on a CPU once more with our runtime in it.

    python benchmarks/cloud_only.py [--models resnet18 efficientnet-lite0] [--clients 1 8 32]
                                    [--device cuda]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from listening import start
from quick_bundle import QUICK
from report import Table, write_report
from serving import MODELS, WORKER, bundle_of, source_of
from simulated_edges import Load, Payload, closed_loop
from splitpoint.codec import codec_named
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.bundle.samples import synthetic_samples
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.proto.frames import encode_tensors

MAX_BATCH = 32
PREFIX_BYTES = 4  # of our codec, before the JPEG file
# LitServe: workers on the device, and how long a batch may wait for more, in seconds.
SETUPS = ((1, 0.0), (1, 0.01), (2, 0.0))
RUNTIMES = ("torch", "onnxruntime")  # the latter is the worker's on a CPU
OVER = {"torch": "over_torch", "onnxruntime": "over_same_runtime"}


def jpeg_payload(bundle: Bundle) -> Payload:
    """A picture as JPEG at the input, and the model's answer to what JPEG made of it."""
    manifest, codec = bundle.manifest, codec_named("jpeg")
    (spec,) = manifest.boundaries[0].tensors
    picture = synthetic_samples(manifest).inputs[0][spec.name]
    decoded = codec.decode(codec.encode(picture, spec), spec, 1)
    chain = OnnxChain(bundle)
    state = chain.place({spec.name: decoded})
    for segment in range(len(chain)):
        chain.load(segment)
        state |= chain.step(segment, state)
    top = int(state[manifest.boundaries[-1].tensors[0].name].argmax())
    return Payload(0, "jpeg", encode_tensors({spec.name: picture}, [spec], codec), top)


async def http_loop(port: int, jpeg: bytes, top: int, clients: int, seconds: float) -> Load:
    """Clients with a kept-alive connection each, that post the picture again and again."""
    load = Load(seconds=seconds)
    body = json.dumps({"image": base64.b64encode(jpeg).decode()}).encode()
    request = (f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
               f"Content-Length: {len(body)}\r\n\r\n").encode() + body  # fmt: skip
    begin_s = time.perf_counter() + seconds / 4
    end_s = begin_s + seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < end_s:
            start_s = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head.split(b"\r\n")[0], head
            length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n")
                          if line.startswith(b"content-length"))  # fmt: skip
            answer = json.loads(await reader.readexactly(length))
            now_s = time.perf_counter()
            load.wrong += answer["top"] != top
            if begin_s <= now_s <= end_s:
                load.ms.append(1e3 * (now_s - start_s))
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(client() for _ in range(clients)))
    return load


async def rival(
    source: str, weights: str, runtime: str, bundle: Bundle, payload: Payload,
    clients: Sequence[int], options: argparse.Namespace,
) -> dict[int, tuple[str, Load]]:  # fmt: skip
    """The best of its set-ups for each number of clients, and which it was."""
    best: dict[int, tuple[str, Load]] = {}
    for workers, timeout_s in SETUPS[: 1 if options.quick else None]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = rival_process(source, weights, runtime, options.device, str(bundle.folder),
                                str(port), str(MAX_BATCH), str(timeout_s),
                                str(workers))  # fmt: skip
        try:
            await _until_it_answers(process, port)
            for count in clients:
                jpeg = payload.tensors[0].payload[PREFIX_BYTES:]
                load = await http_loop(port, jpeg, payload.top, count, options.seconds)
                assert not load.wrong, "the rival's answers differ"
                name = f"{workers} workers, {1e3 * timeout_s:g} ms"
                if count not in best or load.per_s > best[count][1].per_s:
                    best[count] = name, load
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
    return best


def rival_process(*arguments: str) -> subprocess.Popen[bytes]:
    script = str(Path(__file__).with_name("rival_server.py"))
    return subprocess.Popen(
        [sys.executable, script, *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


async def _until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(600):
        assert process.poll() is None, "LitServe has ended"
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        if b" 200 " in answer.split(b"\r\n")[0]:
            return
        await asyncio.sleep(0.1)
    raise RuntimeError("LitServe did not get ready")


async def run(options: argparse.Namespace, folder: Path) -> tuple[Table, dict[str, Any]]:
    rows: list[list[str]] = []
    summary: dict[str, dict[str, dict[str, list[float]]]] = {}
    for given in options.models:
        bundle = open_bundle(bundle_of(given, folder))
        model = bundle.manifest.name
        source, weights = source_of(bundle.manifest.source.removeprefix("torchvision:"))
        payload = jpeg_payload(bundle).on(options.device)
        for number in range(options.rounds):
            print(f"{model}: round {number + 1}", file=sys.stderr, flush=True)
            own: dict[int, Load] = {}
            for _ in SETUPS[: 1 if options.quick else None]:  # the best of as many runs
                for clients, load in (await ours(bundle, payload, options)).items():
                    if clients not in own or load.per_s > own[clients].per_s:
                        own[clients] = load
            rivals = {
                runtime: await rival(
                    source, weights, runtime, bundle, payload, options.clients, options
                )
                for runtime in RUNTIMES[: None if options.device == "cpu" else 1]
            }
            for clients in options.clients:
                loads = {"splitpoint": own[clients]}
                for runtime, found in rivals.items():
                    setup, load = found[clients]
                    loads[f"LitServe, {runtime} ({setup})"] = load
                    summary.setdefault(model, {}).setdefault(str(clients), {}).setdefault(
                        OVER[runtime], []
                    ).append(own[clients].per_s / load.per_s)
                print(
                    f"  {clients} clients, requests/s: "
                    + ", ".join(f"{name} {load.per_s:.1f}" for name, load in loads.items()),
                    file=sys.stderr,
                    flush=True,
                )
                for name, load in loads.items():
                    rows.append([model, str(clients), str(number + 1), name, f"{load.per_s:.1f}",
                                 f"{load.percentile(50):.0f}", f"{load.percentile(99):.0f}",
                                 f"{own[clients].per_s / load.per_s:.2f}"])  # fmt: skip
    ratios = {
        model: {
            clients: {over: round(float(np.median(found)), 2) for over, found in by_over.items()}
            for clients, by_over in by_clients.items()
        }
        for model, by_clients in summary.items()
    }
    return Table(COLUMNS, rows), ratios


COLUMNS = ["model", "clients", "round", "server", "requests/s", "p50 ms", "p99 ms",
           "splitpoint over it"]  # fmt: skip


async def ours(bundle: Bundle, payload: Payload, options: argparse.Namespace) -> dict[int, Load]:
    process, address = start(
        ["-c", WORKER, str(bundle.folder), "suffix", options.device, str(MAX_BATCH)]
    )
    found = {}
    try:
        for count in options.clients:
            found[count] = await closed_loop(
                address, bundle.digest, [payload], count, options.seconds, options.seconds / 4
            )
            assert not found[count].wrong
            assert not found[count].failed, found[count].failed
    finally:
        process.terminate()
        process.wait(30)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--models", nargs="+", help="names, or bundles")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="of both servers")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.clients, options.seconds, options.rounds = [4], 1, 1
    options.models = options.models or ([QUICK] if options.quick else MODELS)
    with tempfile.TemporaryDirectory() as name:
        table, summary = asyncio.run(run(options, Path(name)))
    write_report("cloud_only", str(__doc__).splitlines()[0], table, summary,
                 save=not options.quick, device=options.device)  # fmt: skip


if __name__ == "__main__":
    main()
