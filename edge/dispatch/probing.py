"""When the link is asked what it carries, and with how many bytes."""

from __future__ import annotations

from .dispatcher import Dispatcher

# Where frames leave nothing on the link, a probe shows what it carries. It is to take so long as
# the link is known, and to fit TCP's first window, beyond which a connection that was idle pays
# another round trip.
PROBE_EVERY_S, PROBE_S = 1.0, 20e-3
LEAST_PROBE_BYTES, MOST_PROBE_BYTES = 1 << 10, 16 << 10


def probe_is_due(now_s: float, probed_s: float, dispatcher: Dispatcher) -> bool:
    """Whether nothing was seen of the link lately, and nothing is on it, since the latest probe."""
    silent_s = now_s - max(dispatcher.uplink.seen_s, probed_s)
    return silent_s >= PROBE_EVERY_S and dispatcher.in_hand.link_is_idle


def probe_bytes(dispatcher: Dispatcher) -> int:
    """The padding of a probe."""
    nbytes = int(dispatcher.uplink.mean * PROBE_S)
    return min(max(nbytes, LEAST_PROBE_BYTES), MOST_PROBE_BYTES)
