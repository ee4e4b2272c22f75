"""How long this process wanted to compute and could not, since others had the cores."""

from __future__ import annotations

from pathlib import Path

_THREADS = Path("/proc/self/task")


def cpu_wait_s() -> float:
    """Seconds, over all threads that live now: those that each was ready to run and did not.

    Linux counts them (the second figure of `schedstat`); 0.0 where nobody does.
    """
    waited_ns = 0
    for path in _THREADS.glob("*/schedstat"):
        try:
            waited_ns += int(path.read_text().split()[1])
        except (OSError, ValueError, IndexError):  # the thread has ended, or the kernel counts not
            continue
    return waited_ns / 1e9
