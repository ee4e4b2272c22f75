"""Ingest processes as a worker's front: their port, their memory and their shares of limits."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..access.quotas import Places
from ..access.security import Proofs
from ..backend import Backend
from ..between.setup import Setup
from ..between.slab import PIECE
from ..brief_log import keep_log_brief
from ..errors import ServeError
from ..options import WorkerOptions
from .desk import Desk
from .ingest_processes import IngestProcesses
from .port import hold_port

log = logging.getLogger("splitpoint.cloud")


def check_ingest() -> None:
    """Raises `ServeError` where processes cannot share a port and memory as they have to."""
    if sys.platform != "linux":
        raise ServeError(
            "ingest processes share a port and memory as only Linux lets them",
            "leave out --ingest",
        )


@asynccontextmanager
async def ingest_front(
    options: WorkerOptions, proofs: Proofs, backend: Backend, most_bytes: int
) -> AsyncIterator[tuple[IngestProcesses, str]]:
    """The front, and HOST:PORT where all of its processes listen.

    Each has an equal share of the memory in which frames may wait; the largest frame of a model
    finds room whatever that is. Raises `ServeError` where they cannot be started.
    """
    check_ingest()
    cores = len(os.sched_getaffinity(0))
    if options.ingest >= cores:
        log.warning(
            "--ingest %d takes all cores (%d), and leaves none to the process that computes: %s",
            options.ingest,
            cores,
            f"give --ingest {cores // 2}" if cores > 1 else "leave out --ingest",
        )
    held, address = hold_port(options.listen)
    with held:
        keep_log_brief()
        count, limits = options.ingest, options.limits
        setup = Setup(
            listen=address,
            proofs=proofs,
            limits=limits,
            most_frame_bytes=most_bytes,
            reflection=options.reflection,
            device=backend.service.device,
            traces=options.traces_to,
            decoders=max(backend.decoders.threads // count, 1),
            max_decoding_bytes=max(options.max_queued_bytes // count, 1),
            log_level=logging.getLogger("splitpoint").getEffectiveLevel(),
        )
        streams, downloads = backend.service.stream_places, backend.service.fetch_places
        assert isinstance(streams, Places)
        assert isinstance(downloads, Places)
        desk = Desk(backend.service.uses, {"streams": streams, "downloads": downloads})
        # A frame's tensors and its answer, each no larger than the largest message.
        memory_bytes = max(options.max_queued_bytes // count, 2 * most_bytes) // PIECE * PIECE
        processes = IngestProcesses(count, setup, backend, desk, memory_bytes)
        async with processes.running():
            yield processes, address
