"""What share of the device's raw batched forward does a worker give?

The limit is the unsplit model in torch, on inputs that lie on the device, in its best batch. Beside
it, in turn: the worker's engine with the load inside its process, so that nothing crosses a
network; and a whole worker with ingest processes, to which other processes send JPEGs. All compute
in the number format and layout that the worker chooses, or is told.

    python benchmarks/gpu_limit.py [--model resnet50] [--device cuda:0] [--ingest 4] [--loads 4]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cloud_only import jpeg_payload
from listening import start
from quick_bundle import QUICK
from report import Table, write_report
from serving import MAIN, bundle_of, source_of
from simulated_edges import Payload
from splitpoint.cloud.compute.choose_chain import form_of
from splitpoint.cloud.compute.load import load_served_model
from splitpoint.cloud.compute.loaded_model import LoadedModel
from splitpoint.cloud.compute.measure_batches import batch_sizes
from splitpoint.cloud.compute.precision import computing_in
from splitpoint.cloud.engine.engine import Engine
from splitpoint.cloud.engine.request import Request
from splitpoint.cloud.options import WorkerOptions
from splitpoint.codec import codec_named
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.bundle.samples import synthetic_samples
from splitpoint.partition.models.find import load_model
from splitpoint.partition.run.torch_chain import pick_device
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import parse_server
from splitpoint.proto.tasks import run_in_loop
from steady_load import Loaded, hello_of, load, messages_of

TARGET = 0.8  # of the raw forward
COLUMNS = ["round", "what", "images/s", "of the raw forward"]


class Raw:
    """The unsplit model, as fast as torch runs it without us."""

    def __init__(self, bundle: Bundle, served: LoadedModel, device: torch.device) -> None:
        source, weights = source_of(bundle.manifest.source.removeprefix("torchvision:"))
        self._device, self._form = device, form_of(served.runner.chain)
        self._module = load_model(source, weights).module.eval().to(device)
        if self._form.channels_last:
            self._module = self._module.to(memory_format=torch.channels_last)
        self._inputs = synthetic_samples(bundle.manifest).inputs[0]

    def per_s(self, batch: int, seconds: float) -> float:
        """Images a second in batches of so many."""
        given = [
            torch.from_numpy(np.concatenate([value] * batch)).to(self._device)
            for value in self._inputs.values()
        ]
        # Under one autocast weights are cast once: it keeps them for as long as it lasts.
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self._form.precision)
        kept = torch.autocast(self._device.type, dtype, enabled=dtype is not None)
        with torch.inference_mode(), computing_in("tf32" if self._form.precision == "tf32" else
                                                  "fp32", self._device), kept:  # fmt: skip
            for _ in range(3):
                self._module(*given)
            self._wait()
            begin_s, done = time.perf_counter(), 0
            while time.perf_counter() < begin_s + seconds:
                self._module(*given)
                done += batch
                if done % (8 * batch) == 0:  # no further ahead than that
                    self._wait()
            self._wait()
            return done / (time.perf_counter() - begin_s)

    def best(self, most: int, seconds: float) -> tuple[int, dict[int, float]]:
        """The batch that is fastest, and what each one gives."""
        found: dict[int, float] = {}
        for batch in batch_sizes(most):
            try:
                found[batch] = self.per_s(batch, seconds)
            except torch.OutOfMemoryError:
                break
        return max(found, key=lambda batch: found[batch]), found

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


async def engine_per_s(
    engine: Engine, served: LoadedModel, payload: Payload, in_flight: int, seconds: float
) -> float:
    """Images a second with so many decoded frames in the engine at any time."""
    spec = served.boundaries[0][0]
    values = {spec.name: codec_named("jpeg").decode(payload.tensors[0].payload, spec, 1)}
    counts, wrong, waiting = [0], [0], [in_flight]
    begin_s = time.perf_counter() + seconds / 4
    end_s = begin_s + seconds
    done = asyncio.Event()

    def ask(client: int) -> None:
        engine.submit(Request(
            model=served, boundary=0, samples=1, deadline_s=float("inf"), client=str(client),
            values=values, answer=partial(answered, client), broke=lambda: None,
        ))  # fmt: skip

    def answered(client: int, _: Request, outputs: Any) -> None:
        now_s = time.perf_counter()
        good = isinstance(outputs, dict) and payload.is_answer(next(iter(outputs.values()))[0])
        wrong[0] += not good
        counts[0] += begin_s <= now_s <= end_s
        if now_s < end_s:
            ask(client)
            return
        waiting[0] -= 1
        if waiting[0] == 0:
            done.set()

    for client in range(in_flight):
        ask(client)
    await done.wait()
    assert not wrong[0], f"{wrong[0]} answers are not the model's"
    return counts[0] / seconds


def send(
    address: str, pid: int, digest: str, payload_bytes: bytes, streams: int, seconds: float
) -> Loaded:
    """One process's load, which `steady_load.load` keeps up."""
    messages = messages_of(0, "jpeg", [pb.Tensor.FromString(payload_bytes)])
    return asyncio.run(load(address, pid, messages, streams, seconds, hello_of(digest)))


def worker_per_s(
    address: str, pid: int, bundle: Bundle, payload: Payload, options: argparse.Namespace
) -> float:
    """Images a second of a worker that several processes keep busy."""
    (tensor,) = payload.tensors
    each = max(1, options.streams // options.loads)
    with ProcessPoolExecutor(options.loads, mp_context=get_context("spawn")) as pool:
        sent = [
            pool.submit(send, address, pid, bundle.digest, tensor.SerializeToString(), each,
                        options.seconds)
            for _ in range(options.loads)
        ]  # fmt: skip
        loads = [one.result() for one in sent]
    for data in (reply for one in loads for reply in one.replies):
        reply = parse_server(data).reply
        assert reply.status == pb.OK, reply.reason
        assert payload.is_answer(np.frombuffer(reply.outputs[0].payload, np.float32))
    return sum(one.per_s for one in loads)


async def run(options: argparse.Namespace, folder: Path) -> tuple[Table, dict[str, Any]]:
    bundle, device = open_bundle(bundle_of(options.model, folder)), pick_device(options.device)
    payload = jpeg_payload(bundle).on(device.type)
    engine = Engine(max_batch=options.max_batch, max_queued_bytes=1 << 40)
    worker = WorkerOptions(
        device=options.device, max_batch=options.max_batch, precision=options.precision,
        runtime="torch", times=folder / "times",
    )  # fmt: skip
    engine.start()
    process = None
    try:
        served: LoadedModel = await engine.on_compute_thread(
            partial(load_served_model, bundle.folder, device, worker, profiles={}, progress=_tell)
        )
        form = form_of(served.runner.chain)
        raw = Raw(bundle, served, device)
        batch, by_batch = raw.best(options.max_batch, options.seconds / 4)
        process, address = start(
            [*MAIN, "serve", str(bundle.folder), "--listen", "127.0.0.1:0", "--runtime", "torch",
             "--device", options.device, "--precision", form.precision,
             "--max-batch", str(options.max_batch), "--ingest", str(options.ingest)]
        )  # fmt: skip
        rows, shares = [], {"engine": [0.0], "ingest": [0.0]}
        for number in range(options.rounds):
            limit = raw.per_s(batch, options.seconds)
            inside = await engine_per_s(
                engine, served, payload, 4 * options.max_batch, options.seconds
            )
            whole = await asyncio.to_thread(
                worker_per_s, address, process.pid, bundle, payload, options
            )
            shares["engine"].append(inside / limit)
            shares["ingest"].append(whole / limit)
            for what, per_s in (
                (f"raw forward, batches of {batch}", limit),
                ("engine, load inside its process", inside),
                (f"worker, {options.ingest} ingest processes, JPEG", whole),
            ):
                rows.append([str(number + 1), what, f"{per_s:.0f}", f"{per_s / limit:.2f}"])
                _tell(" ".join(rows[-1]))
    finally:
        await engine.stop()
        if process is not None:
            process.terminate()
            process.wait(30)
    summary = {
        "model": bundle.manifest.name,
        "device": options.device,
        "precision": form.precision,
        "channels_last": form.channels_last,
        "raw_per_s": by_batch,
        "target": TARGET,
        "share": {name: round(max(found), 3) for name, found in shares.items()},
    }
    return Table(COLUMNS, rows), summary


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    cores = os.cpu_count() or 2
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--model", help="a name, or a bundle that is compiled already")
    parser.add_argument("--device", default="auto", help="as of `splitpoint serve`")
    parser.add_argument("--precision", default=WorkerOptions.precision)
    parser.add_argument("--max-batch", type=int, default=128)
    parser.add_argument("--ingest", type=int, default=max(1, cores // 4), help="processes")
    parser.add_argument("--loads", type=int, default=max(1, cores // 4), help="processes, too")
    parser.add_argument("--streams", type=int, default=128, help="of all of them")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a small model, nothing written")
    options = parser.parse_args()
    if options.quick:
        options.max_batch, options.streams, options.seconds, options.rounds = 8, 8, 1, 1
    options.model = options.model or (QUICK if options.quick else "resnet50")
    with tempfile.TemporaryDirectory() as name:
        table, summary = run_in_loop(run(options, Path(name)))
    write_report("gpu_limit", str(__doc__).splitlines()[0], table, summary,
                 save=not options.quick, device=options.device)  # fmt: skip


if __name__ == "__main__":
    main()
