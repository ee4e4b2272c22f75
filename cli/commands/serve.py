"""`splitpoint serve`.

Longer than others: its options are as many as a worker has, and each is declared once, here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from splitpoint.cloud.errors import DeviceLost
from splitpoint.cloud.options import MOST_INGEST, HttpFile, StreamLimits, WorkerOptions
from splitpoint.cloud.ray.options import RayOptions
from splitpoint.partition.tasks.user_head import allow_head as trust_head
from splitpoint.proto.tasks import run_in_loop

from ..shell.config_file import config_option
from ..shell.early_signals import signals_end_at_once
from ..shell.log_lines import setup_log_lines
from ..shell.shared_options import AllowHead
from ..shell.stop_signals import Stopped, StopSignals
from ..shell.systemd import Systemd

if TYPE_CHECKING:
    from splitpoint.cloud.frames.tracing import FrameTraces
    from splitpoint.cloud.worker import Worker


LIMITS = StreamLimits()
HTTP_PORT = 8000


def _command() -> Callable[..., object]:
    return serve


def serve(
    bundles: Annotated[
        list[Path] | None, typer.Argument(help="NAME.split …", show_default=False)
    ] = None,
    config: Annotated[Path | None, config_option(_command)] = None,
    allow_head: AllowHead = None,
    watch: Annotated[
        Path | None,
        typer.Option(help="Serve the bundles of this folder as they come and go, too."),
    ] = None,
    listen: Annotated[
        str, typer.Option(help="HOST:PORT; port 0 takes any free one and prints it.")
    ] = WorkerOptions.listen,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda (every GPU) or cuda:N")
    ] = WorkerOptions.device,
    max_batch: Annotated[
        int, typer.Option(help="Most samples computed together.", min=1)
    ] = WorkerOptions.max_batch,
    runtime: Annotated[
        str, typer.Option(help="auto (the faster one), torch or onnxruntime (CPU only).")
    ] = WorkerOptions.runtime,
    precision: Annotated[
        str,
        typer.Option(
            help="auto (on a GPU the fastest whose answers are within 1 % of fp32's), fp32, tf32, "
            "bf16 or fp16."
        ),
    ] = WorkerOptions.precision,
    gpu_memory_fraction: Annotated[
        float, typer.Option(help="Most of each GPU's memory that it takes, 0 to 1.", max=1)
    ] = WorkerOptions.gpu_memory_fraction,
    max_queued_mb: Annotated[
        int, typer.Option(help="Most megabytes of tensors that may wait.", min=1)
    ] = WorkerOptions.max_queued_bytes >> 20,
    grace: Annotated[
        float, typer.Option(help="Seconds to finish what was taken, on SIGTERM.", min=0)
    ] = WorkerOptions.grace_s,
    profile: Annotated[
        list[Path] | None,
        typer.Option(help="Announce the times of this profile instead of measuring at start."),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure at start even what was measured and kept before."),
    ] = False,
    tune_minutes: Annotated[
        float,
        typer.Option(
            help="On a GPU: so long the first start of a model may try compilers (inductor, "
            "TensorRT). 0: never, as they have been measured on no GPU yet.",
            min=0,
        ),
    ] = WorkerOptions.tune_minutes,
    ingest: Annotated[
        int,
        typer.Option(
            help="Take calls and decode frames in so many processes beside the one that computes "
            "(Linux): no more than half of the cores.",
            min=0,
            max=MOST_INGEST,
        ),
    ] = WorkerOptions.ingest,
    tls_cert: Annotated[
        Path | None, typer.Option(help="The worker's certificate (PEM).", show_default=False)
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="The key of that certificate (PEM).", show_default=False)
    ] = None,
    client_ca: Annotated[
        Path | None,
        typer.Option(help="Demand a certificate of this CA from every client.", show_default=False),
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(help="The clients, their tokens' digests and limits.", show_default=False),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Let anybody come who can reach the address, unencrypted."),
    ] = False,
    max_streams: Annotated[
        int, typer.Option(help="Most streams at a time.", min=1)
    ] = LIMITS.max_streams,
    max_streams_per_client: Annotated[
        int, typer.Option(help="Most streams of one client.", min=1)
    ] = LIMITS.max_streams_per_client,
    idle_s: Annotated[
        float, typer.Option(help="End a stream that was silent for so long.", min=1)
    ] = LIMITS.idle_s,
    max_age_s: Annotated[
        float, typer.Option(help="Have clients connect anew so often, 0: never.", min=0)
    ] = LIMITS.max_age_s,
    announce: Annotated[
        str,
        typer.Option(
            help="Announce it in the local network (mDNS) by this name; auto: the machine's.",
            show_default="not at all",
        ),
    ] = WorkerOptions.announce,
    metrics: Annotated[
        str, typer.Option(help="Serve Prometheus metrics at HOST:PORT.", show_default="nowhere")
    ] = "",
    http: Annotated[
        str,
        typer.Option(
            help="Show a page, /healthz and /stats (JSON) at HOST:PORT, to this machine alone.",
            show_default="nowhere",
        ),
    ] = WorkerOptions.http,
    traces: Annotated[
        str,
        typer.Option(
            help="Send OpenTelemetry spans of frames to the OTLP collector at HOST:PORT.",
            show_default="nowhere",
        ),
    ] = "",
    log_format: Annotated[str, typer.Option(help="text, or json: one object a line.")] = "text",
    reflection: Annotated[bool, typer.Option(help="Offer gRPC server reflection.")] = False,
    ray: Annotated[
        bool, typer.Option("--ray", help="Serve as replicas on Ray (docs/guides/scale-out.md).")
    ] = False,
    replicas: Annotated[str, typer.Option(help="With --ray: how many, or auto.")] = str(
        RayOptions.replicas
    ),
    max_replicas: Annotated[
        int, typer.Option(help="With --replicas auto: the most.", min=1)
    ] = RayOptions.max_replicas,
    http_port: Annotated[
        int, typer.Option(help="With --ray: port of Ray's HTTP proxy, on loopback.", min=1)
    ] = HTTP_PORT,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every client.")] = False,
) -> None:
    """Run the cloud worker: finish the inference of many edges.

    Prints "listening on HOST:PORT" when it is ready. SIGTERM and Ctrl-C drain: what was taken is
    answered, then it exits 0. A second one ends it at once. It exits 1 where a GPU hangs or fails,
    as only a new process can go on with it: let it be started again.
    """
    from splitpoint.cloud.access.security import Security

    tell = setup_log_lines(log_format, verbose)
    if ray:
        from .serve_on_ray import serve_on_ray

        plain = {
            "--profile": profile, "--reflection": reflection, "--watch": watch,
            "--tls-cert": tls_cert, "--tls-key": tls_key, "--client-ca": client_ca,
            "--metrics": metrics, "--traces": traces, "--announce": announce,
            "--http": http, "--allow-head": allow_head, "--ingest": ingest,
            "--gpu-memory-fraction": gpu_memory_fraction != WorkerOptions.gpu_memory_fraction,
            "--tune-minutes": tune_minutes,
        }  # fmt: skip
        if any(plain.values()):
            names = ", ".join(name for name, given in plain.items() if given)
            raise typer.BadParameter(f"not for --ray: {names}")
        serve_on_ray(
            listen, tell, http_port=http_port, replicas=replicas, max_replicas=max_replicas,
            insecure=insecure, bundles=[str(bundle.resolve()) for bundle in bundles or []],
            device=device, runtime=runtime, precision=precision, max_batch=max_batch,
            max_queued_mb=max_queued_mb, grace_s=grace, max_streams=max_streams,
            max_streams_per_client=max_streams_per_client, idle_s=idle_s, measure=measure,
            max_stream_s=max_age_s or RayOptions.max_stream_s,
            tokens=str(tokens.resolve()) if tokens else "",
        )  # fmt: skip
        return
    of_ray = {
        "--replicas": replicas != str(RayOptions.replicas),
        "--max-replicas": max_replicas != RayOptions.max_replicas,
        "--http-port": http_port != HTTP_PORT,
    }  # fmt: skip
    if any(of_ray.values()):
        names = ", ".join(name for name, given in of_ray.items() if given)
        raise typer.BadParameter(f"only with --ray: {names}")
    for head in allow_head or ():
        trust_head(head)
    options = WorkerOptions(
        listen=listen,
        device=device,
        runtime=runtime,
        precision=precision,
        max_batch=max_batch,
        gpu_memory_fraction=gpu_memory_fraction,
        max_queued_bytes=max_queued_mb << 20,
        grace_s=grace,
        ingest=ingest,
        traces_to=traces if ingest else "",
        reflection=reflection,
        profiles=profile or [],
        measure=measure,
        tune_minutes=tune_minutes,
        security=Security(
            tls_cert=tls_cert,
            tls_key=tls_key,
            client_ca=client_ca,
            tokens=tokens,
            insecure=insecure,
        ),
        limits=StreamLimits(
            max_streams=max_streams,
            max_streams_per_client=max_streams_per_client,
            idle_s=idle_s,
            max_age_s=max_age_s,
        ),
        watch=watch,
        announce=announce,
        metrics=metrics,
        http=http,
        http_files=_page() if http else {},
    )
    with signals_end_at_once():
        from splitpoint.cloud.worker import Worker

        spans = _traces(traces) if traces and not ingest else None
    worker = partial(Worker, bundles or [], options, traces=spans, progress=tell)
    code = run_in_loop(_serve(worker, tell))
    # All is answered, closed and told. What Python would do now, to take torch apart, lasts up to
    # seconds, and pulls the ground from under a thread that is still inside a runtime.
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


def _page() -> Mapping[str, HttpFile]:
    from ..service.worker_page import worker_page  # aiohttp

    return worker_page()


def _traces(endpoint: str) -> FrameTraces:
    from splitpoint.cloud.frames.tracing import otlp_traces  # the extra otel

    return otlp_traces(endpoint)


async def _serve(make_worker: Callable[[], Worker], tell: Callable[[str], None]) -> int:
    """The process's exit code."""
    systemd = Systemd()
    with StopSignals() as stop:
        worker = make_worker()
        async with AsyncExitStack() as stack:
            try:
                await stop.unless_requested(stack.enter_async_context(worker))
            except Stopped:
                tell("stopped before the models were loaded")
                return 0
            except DeviceLost as error:
                tell(f"error: {error}")
                return 1
            if worker.metrics_address:
                tell(f"metrics on http://{worker.metrics_address}/metrics")
            if worker.http_address:
                tell(f"page on http://{worker.http_address}/, figures on /stats")
            tell(f"listening on {worker.address}")
            systemd.ready()
            alive = asyncio.create_task(systemd.keep_alive())
            lost = ""
            with suppress(Stopped):
                lost = await stop.unless_requested(worker.until_lost())
            alive.cancel()
            systemd.stopping()
            tell(f"the GPU is lost ({lost}); start the worker again" if lost else "draining")
        tell("stopped")
    return 1 if lost else 0
