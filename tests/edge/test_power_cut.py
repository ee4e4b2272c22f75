"""The power fails at any moment of an upgrade: the device then starts with one of both models."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from local_worker import local_worker
from patience import PATIENCE_S
from processes import free_port
from splitpoint.edge import EdgeAgent, Outcome
from splitpoint.partition.bundle.bundle import Bundle

CUTS = 8
AGENT = """
import asyncio, sys
from pathlib import Path
import numpy as np
from splitpoint.edge import EdgeAgent

async def main(server, cache):
    async with EdgeAgent(server, split="1", codec="raw", cache=Path(cache)) as agent:
        agent.on_switch = lambda why: print("switched", flush=True)
        pixels = np.zeros((1, 24, 24, 3), np.uint8)
        await agent.settled()
        print("ready", flush=True)
        while True:
            result = await agent.infer({"pixels": pixels})
            assert result.outputs, result.error
            await asyncio.sleep(0.01)

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def device(server: str, cache: Path) -> Iterator[subprocess.Popen[str]]:
    """An agent in a process of its own, once it has all of the first model."""
    process = subprocess.Popen(
        [sys.executable, "-c", AGENT, server, str(cache)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def says(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), PATIENCE_S)
    assert line.strip() == word


@pytest.mark.slow
async def test_whenever_it_is_cut_off_it_starts_with_one_of_both(
    small_bundle: Bundle, newer_bundle: Bundle, tmp_path: Path
) -> None:
    listen = f"127.0.0.1:{free_port()}"
    warm, found = tmp_path / "warm", set[str]()
    async with local_worker(small_bundle, listen=listen):
        with device(listen, warm) as process:
            await says(process, "ready")
    took_s = 1.0
    for cut in range(CUTS + 1):
        cache = tmp_path / f"cut{cut}"
        shutil.copytree(warm, cache)
        with device(listen, cache) as process:
            async with local_worker(small_bundle, listen=listen):
                await says(process, "ready")
            async with local_worker(newer_bundle, listen=listen):
                begin_s = time.monotonic()
                if cut == 0:  # the whole of it, to know how long it takes
                    await says(process, "switched")
                    took_s = time.monotonic() - begin_s
                else:
                    await asyncio.sleep(cut / CUTS * took_s)
                process.kill()
        async with EdgeAgent(listen, cache=cache) as agent:  # nobody is there
            result = await agent.infer({"pixels": np.zeros((1, 24, 24, 3), np.uint8)})
            assert result.outcome is Outcome.LOCAL
            found.add(agent.digest)
    assert found == {small_bundle.digest, newer_bundle.digest}
