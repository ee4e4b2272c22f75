"""The link between edge and cloud, as it is named, measured or recorded."""

from __future__ import annotations

import csv
import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import LinkError

_RATE_AND_TIME = re.compile(
    r"(?P<mbps>\d+(?:\.\d+)?)mbps(?:,(?P<ms>\d+(?:\.\d+)?)ms)?", re.IGNORECASE
)
DEFAULT_ROUND_TRIP_MS = 50.0
MOST_MBPS, MOST_ROUND_TRIP_MS = 1e7, 1e7
TRACE_STARTS = 200
_TRACE = "give a CSV with the header seconds,uplink_mbps and both numbers in each row"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A link's uplink rate and round-trip time, with what is known of their spread.

    `trace` holds (seconds, uplink Mbit/s) steps in order, each valid until the next; it repeats
    after the last step has lasted as long as the one before it. `uplink_mbps` is then its mean.
    `probed_mbps` are equally likely rates where a live link was probed, `uplink_mbps` their median.
    """

    name: str
    uplink_mbps: float
    round_trip_ms: float
    source: str
    trace: tuple[tuple[float, float], ...] = ()
    probed_mbps: tuple[float, ...] = ()

    def upload_ms(self, nbytes: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Equally likely times to push `nbytes` `[n]` into the link, `[samples, n]`, no delay.

        A trace is entered at evenly spaced moments and waited through as it comes, standstills
        included; a rate that was given makes one sample.
        """
        sizes = np.atleast_1d(np.asarray(nbytes, np.float64))
        if self.trace:
            capacity = Capacity(self)
            starts = np.arange(TRACE_STARTS) * capacity.period_s / TRACE_STARTS
            return np.array(
                [[1e3 * (capacity.finish_s(at, n) - at) for n in sizes] for at in starts]
            )
        rates = np.asarray(self.probed_mbps or (self.uplink_mbps,), np.float64)
        return np.asarray(sizes[np.newaxis] * 8e-3 / rates[:, np.newaxis])

    def percentile_mbps(self, percent: float) -> float:
        """The uplink rate below which the link is for that share of the time."""
        if not self.trace:
            return float(np.percentile(self.probed_mbps or (self.uplink_mbps,), percent))
        starts = [at for at, _ in self.trace]
        widths = np.diff([*starts, Capacity(self).period_s])
        rates = np.array([rate for _, rate in self.trace])
        order = np.argsort(rates)
        below = np.cumsum(widths[order]) / widths.sum()
        first = int(np.searchsorted(below, percent / 100))
        return float(rates[order][min(first, len(rates) - 1)])


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
        round_trip_ms = float(match["ms"] or DEFAULT_ROUND_TRIP_MS)
        if rate <= 0:
            raise LinkError(f"the link {text!r} carries nothing", "give a rate above 0")
        if not (rate < MOST_MBPS and round_trip_ms < MOST_ROUND_TRIP_MS):
            raise LinkError(
                f"the link {text[:40]!r} is none that exists",
                f"give less than {MOST_MBPS:g} Mbit/s and {MOST_ROUND_TRIP_MS:g} ms",
            )
        return Link(
            name=text,
            uplink_mbps=rate,
            round_trip_ms=round_trip_ms,
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
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
        steps = [(float(row["seconds"]), float(row["uplink_mbps"])) for row in rows]
    except OSError as error:
        raise LinkError(f"cannot read the trace {path} ({error.strerror})", _TRACE) from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise LinkError(f"{path} is no link trace ({error})", _TRACE) from error
    if len(steps) < 2:
        raise LinkError(f"the trace {path} has fewer than two steps", "give a longer one")
    for at, rate in steps:
        if not (math.isfinite(rate) and rate >= 0):
            raise LinkError(
                f"the trace {path} has a rate of {rate} Mbit/s at {at} s",
                "give 0 or more in each row",
            )
    for (before, _), (at, _) in pairwise(steps):
        if not (at > before and math.isfinite(at) and math.isfinite(before)):
            raise LinkError(f"the trace {path} does not go on at {at} s", "sort it by time")
    start = steps[0][0]
    steps = [(at - start, rate) for at, rate in steps]
    widths = [b[0] - a[0] for a, b in pairwise(steps)]
    widths.append(widths[-1])
    mean = sum(w * rate for w, (_, rate) in zip(widths, steps, strict=True)) / sum(widths)
    if mean <= 0:
        raise LinkError(f"the trace {path} carries nothing at all", "give a rate above 0 somewhere")
    if not mean < MOST_MBPS:
        raise LinkError(
            f"the trace {path} has rates that no link has", f"give less than {MOST_MBPS:g} Mbit/s"
        )
    return Link(
        name=path.stem,
        uplink_mbps=mean,
        round_trip_ms=round_trip_ms,
        source=str(path),
        trace=tuple(steps),
    )


def link_from_probe(name: str, probes: Sequence[tuple[int, float]]) -> Link:
    """The link that timed probes show: `probes` are (bytes, ms until the empty answer).

    The round trip is the median of the probes without bytes. Each large probe then gives one rate,
    from what it took beyond that. Raises `LinkError` for probes that show no rate.
    """
    empty = [ms for nbytes, ms in probes if nbytes == 0]
    if not empty or len(empty) == len(probes):
        raise LinkError("a link is probed with and without bytes", "give probes of both kinds")
    round_trip_ms = float(np.median(empty))
    largest = max(nbytes for nbytes, _ in probes)
    rates = [
        nbytes * 8e-3 / (ms - round_trip_ms)
        for nbytes, ms in probes
        if 2 * nbytes >= largest and ms > round_trip_ms
    ]
    if not rates:
        raise LinkError(
            f"probes of {largest} bytes took no longer than empty ones",
            "the link is too fast to be measured so; name it with --link, as in 1000mbps,1ms",
        )
    return Link(
        name=name,
        uplink_mbps=float(np.median(rates)),
        round_trip_ms=round_trip_ms,
        source=f"probed with {len(rates)} messages of up to {largest} bytes",
        probed_mbps=tuple(sorted(rates)),
    )


class Capacity:
    """When bytes that enter a link have left its sender's end."""

    def __init__(self, link: Link) -> None:
        self._rate = link.uplink_mbps * 1e6 / 8  # bytes a second
        self._starts = [at for at, _ in link.trace]
        self._rates = [rate * 1e6 / 8 for _, rate in link.trace]
        self.period_s = 2 * self._starts[-1] - self._starts[-2] if link.trace else math.inf

    def finish_s(self, start_s: float, nbytes: float) -> float:
        """The time at which `nbytes` that start at `start_s` have been sent."""
        if not self._starts:
            return start_s + nbytes / self._rate
        now, left = start_s, float(nbytes)
        while left > 0:
            cycle, offset = divmod(now, self.period_s)
            step = bisect_right(self._starts, offset) - 1
            last = step + 1 == len(self._starts)
            end = cycle * self.period_s + (self.period_s if last else self._starts[step + 1])
            if end <= now:  # rounding put us on the edge of a step
                end = now + 1e-9
            rate = self._rates[step]
            if rate * (end - now) >= left:
                return now + left / rate
            left -= rate * (end - now)
            now = end
        return now

    def carried(self, times_s: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Bytes that it can send from time 0 to each of `times_s`."""
        at_s = np.asarray(times_s, np.float64)
        if not self._starts:
            return np.asarray(self._rate * at_s)
        edges = np.array([*self._starts, self.period_s])
        until = np.concatenate([[0.0], np.cumsum(np.diff(edges) * self._rates)])
        cycles, offset = np.divmod(at_s, self.period_s)
        return np.asarray(cycles * until[-1] + np.interp(offset, edges, until))
