"""Runs the installed command as a user does, and background commands until they are left."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from patience import PATIENCE_S

MAIN = [sys.executable, "-W", "error", "-c", "from splitpoint.cli.main import main; main()"]


def splitpoint(
    *arguments: str, cwd: Path | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MAIN, *arguments], capture_output=True, text=True, cwd=cwd, timeout=timeout, check=False
    )


def rest_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it still says on stdout and stderr, up to its end.

    Where a line of either was read before, `communicate` loses what is left in its buffer.
    """
    streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
    with ThreadPoolExecutor(len(streams)) as pool:
        reading = {stream: pool.submit(stream.read) for stream in streams}
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    for stream in streams:
        stream.close()
    out, err = (
        "" if stream is None else reading[stream].result()
        for stream in (process.stdout, process.stderr)
    )
    return out, err


@contextmanager
def background(arguments: Sequence[str], cwd: Path | None = None) -> Iterator[str]:
    """The address of a `serve` or `emulate`; it must end with exit code 0 on SIGTERM."""
    process = subprocess.Popen(
        [*MAIN, *arguments], stderr=subprocess.PIPE, text=True, cwd=cwd, stdin=subprocess.DEVNULL
    )
    assert process.stderr is not None
    said = []
    try:
        for line in process.stderr:
            said.append(line)
            match = re.search(r"listening on ([\w.:\[\]]+)", line)
            if match is not None:
                yield match[1]
                break
        else:
            raise AssertionError(f"it ended: {said}")
    finally:
        process.send_signal(signal.SIGTERM)
        said.append(rest_of(process)[1])
    assert process.returncode == 0, said


def free_port() -> int:
    """Below those that the system gives to connections: nobody else takes it before it is used."""
    while True:
        port = random.randrange(15_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
