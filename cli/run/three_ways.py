"""A camera on a slow device, three ways: all on the device, JPEGs, and each frame its own way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from splitpoint.edge import EdgeAgent, Given, Result
from splitpoint.partition.bundle.bundle import open_bundle

SLOWDOWN, FPS, BUDGET_MS, SECONDS = 16.0, 15.0, 500.0, 3.0
WAYS: dict[str, dict[str, Any]] = {
    "all on the device": {"split": "local"},
    "every frame as JPEG": {"split": "input", "codec": "jpeg", "finish_locally": False},
    "each frame its own way": {"split": "auto"},
}


@dataclass(frozen=True, slots=True)
class Way:
    """What became of the frames that went one way over one link."""

    link: str
    name: str
    results: Sequence[Result]

    def row(self) -> dict[str, Any]:
        """Frames a second in time, the median of their times, and kilobytes a frame."""
        good = [r.total_ms for r in self.results if r.outputs and r.total_ms <= BUDGET_MS]
        sent = sum(result.bytes_up for result in self.results)
        return {
            "link": self.link,
            "way": self.name,
            "fps_in_time": round(len(good) / SECONDS, 1),
            "p50_ms": round(float(np.median(good)), 1) if good else None,
            "kb_a_frame": round(sent / 1e3 / len(self.results), 1),
        }


async def run_way(
    name: str, link: str, server: str, bundle: Path, photos: Sequence[Path], cache: Path
) -> Way:
    """Feeds photos as a camera does, which waits for nobody, for `SECONDS`."""
    opened = open_bundle(bundle)
    picture, tensor = opened.manifest.picture, opened.manifest.boundaries[0].tensors[0].name
    assert picture is not None
    pixels = [picture.read(path)[np.newaxis] for path in photos]

    async def camera() -> AsyncIterator[Given]:
        begin_s = time.perf_counter()
        for number in range(int(SECONDS * FPS)):
            await asyncio.sleep(max(begin_s + number / FPS - time.perf_counter(), 0.0))
            yield Given(inputs={tensor: pixels[number % len(pixels)]})

    async with EdgeAgent(
        server, bundle=bundle, cache=cache, slowdown=SLOWDOWN, budget_ms=BUDGET_MS, threads=1,
        **WAYS[name],
    ) as agent:  # fmt: skip
        await agent.settled()
        await agent.infer({tensor: pixels[0]})  # warms both ends up
        results = [result async for result in agent.stream(camera(), live=True)]
    return Way(link, name, results)
