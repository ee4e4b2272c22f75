"""A worker, a link emulator or a rival as a process of its own, once it can be reached."""

from __future__ import annotations

import subprocess
import sys


def start(command: list[str]) -> tuple[subprocess.Popen[str], str]:
    """The process and its address, once it says where it listens."""
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "listening on" in line:
            return process, line.split()[-1]
    raise RuntimeError("the process ended before it listened")
