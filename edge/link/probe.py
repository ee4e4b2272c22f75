"""Measures the link to a worker, in about a second."""

from __future__ import annotations

from splitpoint.partition.plan.link import Link, link_from_probe
from splitpoint.proto.limits import ENVELOPE_BYTES

from .frame_stream import FrameStream

EMPTY_PROBES, LARGE_PROBES = 7, 3
FIRST_BYTES, MOST_BYTES = 4 << 10, 1 << 20
# Long beside the jitter of a round trip, short beside a user's patience.
LONG_ENOUGH_MS, TOO_LONG_MS = 150.0, 1000.0


async def probe_link(stream: FrameStream, server: str) -> Link:
    """The uplink's rate and the round trip, with their spread, as they are now.

    Messages grow until one takes a while; that size is then sent a few times more, and only those
    count: the first of a size is late, by the time that TCP takes to open its windows. Raises
    `UnreachableError` when the stream is lost, `LinkError` when the link is too fast to tell.
    """
    probes = [(0, await stream.probe()) for _ in range(EMPTY_PROBES)]
    round_trip_ms = sorted(ms for _, ms in probes)[EMPTY_PROBES // 2]
    most = min(MOST_BYTES, stream.session.welcome.max_frame_bytes - ENVELOPE_BYTES)
    most = max(most, FIRST_BYTES)
    nbytes = FIRST_BYTES
    while True:
        ms = await stream.probe(nbytes)
        if nbytes == most or ms - round_trip_ms > LONG_ENOUGH_MS:
            break
        nbytes = min(4 * nbytes, most)
    more = LARGE_PROBES if ms < TOO_LONG_MS else 1
    probes += [(nbytes, await stream.probe(nbytes)) for _ in range(more)]
    return link_from_probe(server, probes)
