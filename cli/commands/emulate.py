"""`splitpoint emulate`."""

from __future__ import annotations

import asyncio
import signal
from typing import Annotated

import typer
from splitpoint.partition.plan.link import parse_link
from splitpoint.partition.significant import significant

from ..emulate.relay import Relay, parse_fault
from ..shell.output import say


def emulate(
    server: Annotated[
        str, typer.Option(help="The worker behind the link, HOST:PORT.", show_default=False)
    ],
    link: Annotated[
        str, typer.Option(help="3g, lte, wifi, ethernet, 5.85mbps,50ms, or a CSV trace.")
    ] = "lte",
    listen: Annotated[str, typer.Option(help="Where edges connect, HOST:PORT.")] = "127.0.0.1:7071",
    jitter_ms: Annotated[float, typer.Option(help="Up to this much later, each way.", min=0)] = 0,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="cut@5s:2s, stall@5s:2s, blackhole@5s:30s, flip@5s; repeatable."),
    ] = None,
) -> None:
    """Play a slow or faulty link in front of a worker.

    Edges connect to it instead of the worker. All that is measured through it is emulated.
    """
    chosen = parse_link(link)
    faults = [parse_fault(text) for text in fault or []]

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with Relay(
            server, chosen, listen=listen, jitter_ms=jitter_ms, faults=faults
        ) as relay:
            say(
                f"emulated link {chosen.name}: {significant(chosen.uplink_mbps)} Mbit/s up, "
                f"{chosen.round_trip_ms:g} ms round trip ({chosen.source})"
            )
            say(f"listening on {relay.address}")
            await stop.wait()

    asyncio.run(run())
