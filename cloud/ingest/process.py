"""The main of an ingest process, whose first arguments are descriptors: a socket, and memory.

It ends when its engine's process says so, and at once when that one is gone. What stops a worker is
that process's to hear: signals to the whole group do nothing here.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from typing import NoReturn

from splitpoint.codec import SplitpointError
from splitpoint.proto.tasks import run_in_loop

from ..between.messages import Kind
from ..between.pipe import Pipe, json_fields
from ..between.setup import Setup
from ..between.shared_memory import SharedMemory
from .front import IngestFront
from .log_lines import log_to_engine

GONE = 3  # the exit code of one whose engine's process is gone


def run_ingest_process() -> None:
    """Runs one until it is told to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end, memory = socket.socket(fileno=int(sys.argv[1])), SharedMemory(int(sys.argv[2]))
    _keep_blas_to_one_thread()
    run_in_loop(_run(end, memory))
    os._exit(0)  # as `serve` does


async def _run(end: socket.socket, memory: SharedMemory) -> None:
    setup: asyncio.Future[Setup] = asyncio.get_running_loop().create_future()
    handlers = {Kind.SETUP: lambda data: setup.set_result(Setup.from_json(json_fields(data)))}
    stopping = False

    ended = asyncio.Event()

    def lost(why: Exception | None) -> None:
        ended.set()
        if not stopping:
            _end(why)

    pipe = await Pipe.over(end, handlers, lost)
    told = await setup
    log_to_engine(pipe, told.log_level)
    try:
        front = IngestFront(told, pipe, memory)
        handlers.update(front.handlers)
        await front.run()
    except SplitpointError as error:
        pipe.say(Kind.READY, error={"what": error.what, "remedy": error.remedy})
        pipe.close()
    stopping = True
    await ended.wait()  # until then the last messages are on their way


def _end(why: Exception | None) -> NoReturn:
    """Nothing can be answered any more, and clients know that best from their connections."""
    words = f" ({why})" if why is not None else ""
    sys.stderr.write(f"an ingest process ends: the engine's process is gone{words}\n")
    sys.stderr.flush()
    os._exit(GONE)


def _keep_blas_to_one_thread() -> None:
    """As the command does: the cores are for the engine, and for other frames."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, "blas")
