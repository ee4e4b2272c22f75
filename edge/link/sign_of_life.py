"""Asks a silent worker whether it is still there.

A link can die without a word, and a camera may see nothing for hours. The frame that comes then
should not be the one that finds out.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from splitpoint.proto.session.edge_session import EdgeSession
from splitpoint.proto.status import WireError

QUIET_S, ECHO_S = 10.0, 5.0  # silence before it is asked, and the time for its answer


class Stream(Protocol):
    """What is watched."""

    session: EdgeSession

    async def probe(self, padding_bytes: int = 0, timeout_s: float = 0.0) -> float:
        """Milliseconds until an echo is there; `WireError` if none comes."""
        ...


async def watch_over(stream: Stream, quiet_s: float = QUIET_S, echo_s: float = ECHO_S) -> None:
    """Probes the worker after `quiet_s` without a word; a stream that does not echo is lost.

    Messages of the stream do that, rather than HTTP/2's pings: they reach the worker itself through
    whatever stands in between, and no server hangs up for their number. While frames are under way
    their budgets tell as much, and a probe behind a large frame would be late.
    """
    while stream.session.broken is None:
        silent_s = time.perf_counter() - stream.session.heard_s
        if silent_s < quiet_s:
            await asyncio.sleep(quiet_s - silent_s)
        elif not stream.session.idle:
            await asyncio.sleep(echo_s)
        else:
            try:
                await stream.probe(timeout_s=echo_s)
            except WireError:
                return  # it has said so to the stream, which is opened again for the next frame
