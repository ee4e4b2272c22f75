"""The latest picture of each source with what was found drawn on it, for those who look."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from PIL import Image
from splitpoint.edge import Result
from splitpoint.edge.sinks.annotated import Drawing
from splitpoint.edge.sources.source import Origin

LOOKED_S = 10.0  # who has asked for a picture so lately still looks
MOST_PIXELS = 10_000_000  # of a photo that is kept for a page: 4K, at 30 MB
SHOWN_PX, QUALITY = (1280, 960), 80


@dataclass(slots=True)
class _Latest:
    result: Result | None = None
    jpeg: bytes = b""
    drawn_id: int | None = None  # of the frame that `jpeg` shows
    drawing: asyncio.Lock = field(default_factory=asyncio.Lock)


class Pictures:
    """Photos are kept and drawn only while somebody looks, and drawn on a thread of their own."""

    def __init__(self, drawing: Drawing, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._drawing, self._clock = drawing, clock
        self._looked_s = float("-inf")
        self._latest: dict[str, _Latest] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="splitpoint-drawing")

    def keeps(self, pixels: int) -> bool:
        """Whether a photo of so many pixels is to stay at its frame. Any thread may ask."""
        return self._is_watched and pixels <= MOST_PIXELS

    def add(self, name: str, result: Result) -> None:
        """Takes the place of the source's last one, where it shows something."""
        if not self._is_watched:
            self._latest.clear()
            return
        origin = result.metadata
        if isinstance(origin, Origin) and origin.picture is not None and result.outputs:
            self._latest.setdefault(name, _Latest()).result = result

    async def latest(self, name: str) -> tuple[int, bytes] | None:
        """The number of the source's latest frame and its JPEG; None where there is none yet."""
        self._looked_s = self._clock()
        latest = self._latest.get(name)
        if latest is None:
            return None
        async with latest.drawing:  # who looks at the same time waits for the same picture
            result = latest.result
            assert result is not None
            if latest.drawn_id != result.id:
                loop = asyncio.get_running_loop()
                latest.jpeg = await loop.run_in_executor(self._thread, self._jpeg, result)
                latest.drawn_id = result.id
            return result.id, latest.jpeg

    async def close(self) -> None:
        """Ends what is under way."""
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    @property
    def _is_watched(self) -> bool:
        return self._clock() - self._looked_s < LOOKED_S

    def _jpeg(self, result: Result) -> bytes:
        origin: Origin = result.metadata
        assert origin.picture is not None
        drawn = self._drawing.drawn(result, origin, origin.picture)
        drawn.thumbnail(SHOWN_PX, Image.Resampling.BILINEAR)
        file = io.BytesIO()
        drawn.save(file, "JPEG", quality=QUALITY)
        return file.getvalue()
