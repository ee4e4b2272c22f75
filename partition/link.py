"""The link between edge and cloud, as it is named, measured or recorded."""

from __future__ import annotations

import csv
import math
import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from .errors import LinkError

_RATE_AND_TIME = re.compile(
    r"(?P<mbps>\d+(?:\.\d+)?)mbps(?:,(?P<ms>\d+(?:\.\d+)?)ms)?", re.IGNORECASE
)
DEFAULT_ROUND_TRIP_MS = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A link's uplink rate and round-trip time; `trace` gives the rate over time where recorded.

    `trace` holds (seconds, uplink Mbit/s) steps in order, each valid until the next; it repeats
    after the last step has lasted as long as the one before it. `uplink_mbps` is then its mean.
    """

    name: str
    uplink_mbps: float
    round_trip_ms: float
    source: str
    trace: tuple[tuple[float, float], ...] = ()


# Uplinks of 3G, LTE and Wi-Fi: Kang et al., "Neurosurgeon", ASPLOS 2017, measured with TestMyNet.
# Round trips are typical figures chosen for emulation, not measurements of the paper.
NAMED: dict[str, Link] = {
    link.name: link
    for link in (
        Link(name="3g", uplink_mbps=1.1, round_trip_ms=100, source="Neurosurgeon, ASPLOS 2017"),
        Link(name="lte", uplink_mbps=5.85, round_trip_ms=50, source="Neurosurgeon, ASPLOS 2017"),
        Link(name="wifi", uplink_mbps=18.88, round_trip_ms=10, source="Neurosurgeon, ASPLOS 2017"),
        Link(name="ethernet", uplink_mbps=1000, round_trip_ms=1, source="IEEE 802.3ab line rate"),
    )
}


def parse_link(text: str) -> Link:
    """The link that `text` describes: a name, `5.85mbps,50ms`, or the path of a CSV trace.

    Raises `LinkError` for anything else, for a rate of 0, and for a trace that is no trace.
    """
    if text.lower() in NAMED:
        return NAMED[text.lower()]
    match = _RATE_AND_TIME.fullmatch(text.replace(" ", ""))
    if match is not None:
        rate = float(match["mbps"])
        if rate <= 0:
            raise LinkError(f"the link {text!r} carries nothing", "give a rate above 0")
        return Link(
            name=text,
            uplink_mbps=rate,
            round_trip_ms=float(match["ms"] or DEFAULT_ROUND_TRIP_MS),
            source="given",
        )
    if text.lower().endswith(".csv"):
        return read_trace(Path(text))
    raise LinkError(
        f"unknown link {text!r}",
        f"use {', '.join(NAMED)}, a rate like 5.85mbps,50ms, or a CSV of seconds,uplink_mbps",
    )


def read_trace(path: Path, round_trip_ms: float = DEFAULT_ROUND_TRIP_MS) -> Link:
    """A link from a CSV with the header `seconds,uplink_mbps`; rates may be 0, but not all."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        steps = [(float(row["seconds"]), float(row["uplink_mbps"])) for row in rows]
    except OSError as error:
        raise LinkError(f"cannot read the trace {path} ({error.strerror})") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise LinkError(
            f"{path} is no link trace ({error})", "give a CSV with seconds,uplink_mbps in each row"
        ) from error
    if len(steps) < 2:
        raise LinkError(f"the trace {path} has fewer than two steps")
    for (before, _), (at, rate) in pairwise(steps):
        if not (at > before and math.isfinite(at)):
            raise LinkError(f"the trace {path} does not go on at {at} s", "sort it by time")
        if not (math.isfinite(rate) and rate >= 0):
            raise LinkError(f"the trace {path} has a rate of {rate} Mbit/s at {at} s")
    if not steps[0][1] >= 0:
        raise LinkError(f"the trace {path} has a rate of {steps[0][1]} Mbit/s at the start")
    start = steps[0][0]
    steps = [(at - start, rate) for at, rate in steps]
    widths = [b[0] - a[0] for a, b in pairwise(steps)]
    widths.append(widths[-1])
    mean = sum(w * rate for w, (_, rate) in zip(widths, steps, strict=True)) / sum(widths)
    if mean <= 0:
        raise LinkError(f"the trace {path} carries nothing at all")
    return Link(
        name=path.stem,
        uplink_mbps=mean,
        round_trip_ms=round_trip_ms,
        source=str(path),
        trace=tuple(steps),
    )


class Capacity:
    """When bytes that enter a link have left its sender's end."""

    def __init__(self, link: Link) -> None:
        self._rate = link.uplink_mbps * 1e6 / 8  # bytes a second
        self._starts = [at for at, _ in link.trace]
        self._rates = [rate * 1e6 / 8 for _, rate in link.trace]
        if link.trace:
            self._period = 2 * self._starts[-1] - self._starts[-2]

    def finish_s(self, start_s: float, nbytes: int) -> float:
        """The time at which `nbytes` that start at `start_s` have been sent."""
        if not self._starts:
            return start_s + nbytes / self._rate
        now, left = start_s, float(nbytes)
        while True:
            cycle, offset = divmod(now, self._period)
            step = bisect_right(self._starts, offset) - 1
            last = step + 1 == len(self._starts)
            end = cycle * self._period + (self._period if last else self._starts[step + 1])
            if end <= now:  # rounding put us on the edge of a step
                end = now + 1e-9
            rate = self._rates[step]
            if rate * (end - now) >= left:
                return now + left / rate
            left -= rate * (end - now)
            now = end
