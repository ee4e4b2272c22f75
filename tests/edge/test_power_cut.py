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

CUTS, BESIDE = 8, 4
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


async def cut_off(
    older: Bundle, newer: Bundle, cache: Path, at_s: float | None = None
) -> tuple[str, float]:
    """The digest that the device starts with, and how long the upgrade took until it was cut off.

    That is `at_s` after the newer model is there, or else once it has it.
    """
    listen = f"127.0.0.1:{free_port()}"
    with device(listen, cache) as process:
        async with local_worker(older, listen=listen):
            await says(process, "ready")
        async with local_worker(newer, listen=listen):
            begin_s = time.monotonic()
            if at_s is None:
                await says(process, "switched")
            else:
                await asyncio.sleep(at_s)
            process.kill()
            took_s = time.monotonic() - begin_s
    async with EdgeAgent(listen, cache=cache) as agent:  # nobody is there
        result = await agent.infer({"pixels": np.zeros((1, 24, 24, 3), np.uint8)})
        assert result.outcome is Outcome.LOCAL
        return agent.digest, took_s


@pytest.mark.slow
async def test_whenever_it_is_cut_off_it_starts_with_one_of_both(
    small_bundle: Bundle, newer_bundle: Bundle, tmp_path: Path
) -> None:
    listen = f"127.0.0.1:{free_port()}"
    warm = tmp_path / "warm"
    async with local_worker(small_bundle, listen=listen):
        with device(listen, warm) as process:
            await says(process, "ready")

    def warm_cache(name: str) -> Path:
        return Path(shutil.copytree(warm, tmp_path / name))

    digest, took_s = await cut_off(small_bundle, newer_bundle, warm_cache("whole"))
    assert digest == newer_bundle.digest
    found = set()
    # Each is mostly waiting, and some wait beside each other.
    for first in range(CUTS // BESIDE):
        cuts = [
            cut_off(small_bundle, newer_bundle, warm_cache(f"cut{n}"), (n + 1) / CUTS * took_s)
            for n in range(first, CUTS, CUTS // BESIDE)
        ]
        found |= {digest for digest, _ in await asyncio.gather(*cuts)}
    assert found <= {small_bundle.digest, newer_bundle.digest}
    assert small_bundle.digest in found
