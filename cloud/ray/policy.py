"""How many replicas Ray shall run, by how long frames wait and how busy the devices are.

Ray's default counts requests, and a stream is one request however many frames it carries: it would
count devices, not work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

# Above the first, a replica more; the second is where the wait of a queue begins to climb
# (twice the service time at 2/3 in M/M/1, see `docs/guides/scale-out.md`).
MOST_WAIT_MS, BUSY = 40.0, 0.65
# One decision does not more than double the replicas.
MOST_GROWTH = 2.0
WAIT, UTILISATION = "wait_ms", "utilisation"  # what a replica reports


class Scaling(Protocol):
    """What the policy reads of Ray's `AutoscalingContext`."""

    @property
    def current_num_replicas(self) -> int:
        """How many run."""
        ...

    @property
    def target_num_replicas(self) -> int:
        """How many there shall be."""
        ...

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[Any, float]] | None:
        """What the replicas reported, a mean over the last while for each."""
        ...


def replicas_for_wait(context: Scaling) -> tuple[float, dict[str, Any]]:
    """The replicas wanted, any number; Ray rounds it up, keeps it in bounds and delays it.

    Until replicas have reported, as many as there shall be already.
    """
    running, reported = context.current_num_replicas, context.aggregated_metrics or {}
    waits, shares = reported.get(WAIT, {}), reported.get(UTILISATION, {})
    if not running or not waits or not shares:
        return context.target_num_replicas, {}
    wait_ms = sum(waits.values()) / len(waits)
    wanted = running * sum(shares.values()) / len(shares) / BUSY
    if wait_ms > MOST_WAIT_MS:  # a device that is always busy tells no more than that it is
        growth = min(wait_ms / MOST_WAIT_MS, MOST_GROWTH)
        wanted = max(wanted, running * growth, running + 1.0)
    elif wait_ms > MOST_WAIT_MS / 2:
        wanted = max(wanted, float(running))
    return min(wanted, max(MOST_GROWTH * running, running + 1.0)), {}
