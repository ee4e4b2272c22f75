"""`splitpoint serve`."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from .output import say, setup_logging


def serve(
    bundles: Annotated[list[Path], typer.Argument(help="NAME.split …", show_default=False)],
    listen: Annotated[
        str, typer.Option(help="HOST:PORT; port 0 takes any free one and prints it.")
    ] = "127.0.0.1:7070",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    max_batch: Annotated[int, typer.Option(help="Most samples computed together.", min=1)] = 128,
    runtime: Annotated[
        str, typer.Option(help="auto (the faster one), torch or onnxruntime (CPU only).")
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="auto (on a GPU the fastest whose answers are within 1 % of fp32's), fp32, tf32, "
            "bf16 or fp16."
        ),
    ] = "auto",
    max_queued_mb: Annotated[
        int, typer.Option(help="Most megabytes of tensors that may wait.", min=1)
    ] = 1024,
    grace: Annotated[
        float, typer.Option(help="Seconds to finish what was taken, on SIGTERM.", min=0)
    ] = 10.0,
    profile: Annotated[
        list[Path] | None,
        typer.Option(help="Announce the times of this profile instead of measuring at start."),
    ] = None,
    reflection: Annotated[bool, typer.Option(help="Offer gRPC server reflection.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every client.")] = False,
) -> None:
    """Run the cloud worker: finish the inference of many edges.

    Prints "listening on HOST:PORT" when it is ready. SIGTERM and Ctrl-C drain: what was taken is
    answered, then it exits 0.
    """
    setup_logging(verbose)
    main = _serve(
        bundles,
        listen=listen,
        device=device,
        runtime=runtime,
        precision=precision,
        max_batch=max_batch,
        max_queued_bytes=max_queued_mb << 20,
        grace_s=grace,
        reflection=reflection,
        profiles=profile or [],
    )
    if importlib.util.find_spec("uvloop") is not None:  # faster, but not made for every platform
        import uvloop

        uvloop.run(main)
    else:
        asyncio.run(main)


async def _serve(bundles: list[Path], **options: Any) -> None:
    from splitpoint.cloud.worker import Worker

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Worker(bundles, progress=say, **options) as worker:
        say(f"listening on {worker.address}")
        await stop.wait()
        say("draining")
    say("stopped")
