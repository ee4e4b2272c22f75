"""A camera on a slow device, three ways: all on the device, JPEGs, and each frame its own way."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from splitpoint.edge import EdgeAgent, Given, Result
from splitpoint.partition.bundle.bundle import open_bundle

from .background import Process

SLOWDOWN, FPS, BUDGET_MS, SECONDS = 16.0, 15.0, 500.0, 3.0
WAYS: dict[str, dict[str, Any]] = {
    "all on the device": {"split": "local"},
    "every frame as JPEG": {"split": "input", "codec": "jpeg", "finish_locally": False},
    "each frame its own way": {"split": "auto"},
}
CUT_OFF = "lte, then cut off"
_LEAST_MBPS, _MOST_MBPS, _STEP_S = 0.2, 6.0, 0.1


@dataclass(frozen=True, slots=True)
class Way:
    """What became of the frames that went one way in one situation."""

    situation: str
    name: str
    results: Sequence[Result]

    def row(self) -> dict[str, Any]:
        """Frames a second in time, the median of their times, and kilobytes a frame."""
        good = [r.total_ms for r in self.results if r.outputs and r.total_ms <= BUDGET_MS]
        sent = sum(result.bytes_up for result in self.results)
        return {
            "link": self.situation,
            "way": self.name,
            "fps_in_time": round(len(good) / SECONDS, 1),
            "p50_ms": round(float(np.median(good)), 1) if good else None,
            "kb_a_frame": round(sent / 1e3 / len(self.results), 1),
        }


def situations(folder: Path) -> dict[str, str]:
    """What happens to the camera, and the link that it happens on; `folder` is for a trace."""
    fading = folder / "fading.csv"
    fading.write_text("\n".join(["seconds,uplink_mbps", *_fading()]) + "\n")
    return {"3g": "3g", "lte": "lte", "wifi": "wifi", "fading": str(fading), CUT_OFF: "lte"}


def _fading() -> Iterator[str]:
    """From the best rate to the worst and back."""
    steps = round(SECONDS / _STEP_S)
    for step in range(steps):
        best = 0.5 + 0.5 * math.cos(2 * math.pi * step / steps)
        rate = _LEAST_MBPS * (_MOST_MBPS / _LEAST_MBPS) ** best
        yield f"{step * _STEP_S:.1f},{rate:.3f}"


def run_way(
    name: str,
    situation: tuple[str, str],
    worker: str,
    bundle: Path,
    photos: Sequence[Path],
    cache: Path,
) -> Way:
    """Feeds photos as a camera does, which waits for nobody, for `SECONDS`, over an emulated link.

    `cache` keeps what the device measured of itself.
    """
    what, link = situation
    emulated = Process("emulate", "--server", worker, "--link", link, "--listen", "127.0.0.1:0")
    with emulated:
        half = emulated.kill if what == CUT_OFF else _nothing
        run = _results(name, emulated.address, half, bundle, photos, cache)
        return Way(what, name, asyncio.run(run))


async def _results(
    name: str,
    server: str,
    half: Callable[[], None],
    bundle: Path,
    photos: Sequence[Path],
    cache: Path,
) -> list[Result]:
    """What becomes of each frame; `half` is called in the middle."""
    opened = open_bundle(bundle)
    picture, tensor = opened.manifest.picture, opened.manifest.boundaries[0].tensors[0].name
    assert picture is not None
    pixels = [picture.read(path)[np.newaxis] for path in photos]
    count = int(SECONDS * FPS)

    async def camera() -> AsyncIterator[Given]:
        begin_s = time.perf_counter()
        for number in range(count):
            await asyncio.sleep(max(begin_s + number / FPS - time.perf_counter(), 0.0))
            if number == count // 2:
                half()
            yield Given(inputs={tensor: pixels[number % len(pixels)]})

    async with EdgeAgent(
        server, bundle=bundle, cache=cache, slowdown=SLOWDOWN, budget_ms=BUDGET_MS, threads=1,
        **WAYS[name],
    ) as agent:  # fmt: skip
        await agent.settled()
        await agent.infer({tensor: pixels[0]})  # warms both ends up
        return [result async for result in agent.stream(camera(), live=True)]


def _nothing() -> None:
    pass
