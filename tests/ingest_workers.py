"""A worker's ingest processes, as a test finds them, and a client on each."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import psutil
from raw_client import RawClient
from splitpoint.cloud.worker import Worker

INGEST = 2


def ingest_processes(parent: int | None = None) -> list[psutil.Process]:
    """Those that run. One that was killed and not waited for yet is none any more."""
    found = []
    for child in psutil.Process(parent).children():
        with suppress(psutil.Error):
            if "cloud.ingest import process" in " ".join(child.cmdline()):
                found.append(child)
    return found


def named_memory() -> set[str]:
    """What a process may leave behind, by names that ours or Python's would have."""
    return {name for name in os.listdir("/dev/shm") if name.startswith(("splitpoint", "psm_"))}


@asynccontextmanager
async def on_each(worker: Worker) -> AsyncIterator[list[RawClient]]:
    """A client on every ingest process, in the order of `ingest_processes`.

    Which one a connection goes to is the kernel's choice: it is tried until all have one.
    """
    port = int(worker.address.rpartition(":")[2])
    found: dict[int, RawClient] = {}
    async with AsyncExitStack() as stack:

        async def try_another() -> None:
            client = await stack.enter_async_context(RawClient(worker))
            await client.hello()
            for process in ingest_processes():
                ends = [c for c in process.net_connections() if c.status == "ESTABLISHED"]
                if process.pid not in found and len(ends) == 1 and ends[0].laddr.port == port:
                    found[process.pid] = client
                    return
            await client.__aexit__()

        for _ in range(200):
            await try_another()
            if len(found) == INGEST:
                break
        yield [found[process.pid] for process in ingest_processes()]
