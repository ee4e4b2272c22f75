"""A worker that is told to stop while it loads stops, whatever the compute thread is doing."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from local_worker import local_worker
from processes import free_port, rest_of
from splitpoint.cloud.compute import load as load_model
from splitpoint.cloud.compute.runner import Runner
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.bundle.samples import synthetic_samples

# A runtime that does not come back: what `serve` does when a model takes minutes in native code.
STUCK = """
import time
from splitpoint.cli.main import main
from splitpoint.cloud.compute import load as load_model
def stuck(*_, **__):
    print("stuck", file=__import__("sys").stderr, flush=True)
    time.sleep(1000)
load_model.measure_server = stuck
main()
"""


async def test_loading_is_broken_off_between_two_segments(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring, before = threading.Event(), set(threading.enumerate())

    def measure(bundle: Bundle, runner: Runner, *_: Any) -> None:
        values = synthetic_samples(bundle.manifest).inputs[0]
        while True:  # batches of a large model on a slow device
            runner.step(0, runner.enter(0, [values]), 1)
            measuring.set()

    monkeypatch.setattr(load_model, "measure_batches", measure)
    port = free_port()
    worker = local_worker(small_bundle, listen=f"127.0.0.1:{port}", runtime="torch", measure=True)
    loading = asyncio.create_task(worker.__aenter__())
    assert await asyncio.to_thread(measuring.wait, 60)
    begun = set(threading.enumerate()) - before
    computing = [t for t in begun if t.name == "splitpoint-compute"]
    assert computing
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    for thread in computing:
        await asyncio.to_thread(thread.join, 30)
        assert not thread.is_alive()
    with pytest.raises(OSError, match=r"[Cc]onnect"):
        await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_worker_that_is_stuck_in_a_runtime(
    small_bundle: Bundle, tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-c", STUCK, "serve", str(small_bundle.folder)]
    process = subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0", "--runtime", "torch", "--measure"],
        stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        assert any("stuck" in line for line in process.stderr)
        process.send_signal(number)
        said = rest_of(process)[1]
        assert process.returncode == 0, said
        assert "stopped before the models were loaded" in said
        assert "Traceback" not in said
    finally:
        process.kill()
    assert not list(tmp_path.iterdir())


def test_a_second_signal_ends_it_at_once(small_bundle: Bundle) -> None:
    """While frames that never end are waited for."""
    script = STUCK.replace(
        "load_model.measure_server = stuck",
        "from splitpoint.cloud.wire.service import SplitService\n"
        "async def drain(*_):\n"
        "    print('waiting', file=__import__('sys').stderr, flush=True)\n"
        "    await __import__('asyncio').sleep(1000)\n"
        "SplitService.drain = drain",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "serve", str(small_bundle.folder),
         "--listen", "127.0.0.1:0", "--runtime", "torch"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        assert any("listening" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        assert any("waiting" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        rest_of(process)
        assert process.returncode == 130
    finally:
        process.kill()
