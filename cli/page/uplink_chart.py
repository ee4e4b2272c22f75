"""Chart: what the candidates cost over the uplink's rate, and which of them is the plan where."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from splitpoint.partition.plan.breakeven import Interval
from splitpoint.partition.plan.costs import Floats
from splitpoint.partition.plan.link import Link
from splitpoint.partition.plan.plan import NO_CODEC, name_of
from splitpoint.partition.significant import significant

from .candidates_chart import short_name
from .curves import HIGH_MBPS, LOW_MBPS, POINTS, Curves, x_of
from .svg import (
    at,
    chart,
    esc,
    figure,
    legend,
    line,
    log_ticks,
    pct,
    shortened,
    spread_out,
    tag,
    text,
    tip,
)

_HEIGHT, _LABEL_GAP, _LABELS = 380, 14, 27


def uplink_chart(ident: str, title: str, unit: str, curves: Curves) -> str:
    """HTML: a line for each boundary with its best codec, the two rivals, and the plan.

    An empty string where the figure is not known of any candidate that sends something.
    """
    rates = np.geomspace(LOW_MBPS, HIGH_MBPS, POINTS)
    values = np.where(curves.allowed, curves.at_rate(rates), np.nan)
    if not np.isfinite(values[:, curves.table.sends > 0]).any():
        return ""
    plan = curves.plan()
    scale = _Scale(values, [y for _, y in plan])
    boundaries = curves.by_boundary(values)
    body = [_grid(scale, unit), _link_mark(curves.link), _strip(curves.report.uplinks)]
    body.append(
        tag(
            "svg",
            *(
                _path(rates, y, scale, "boundary", f"{curves.name_at(b)}, its best codec")
                for b, y in boundaries.items()
            ),
            *(_path(x, y, scale, "plan", "the plan") for x, y in plan),
            *(_path(rates, y, scale, kind, words) for kind, words, y in curves.rivals(values)),
            viewBox=f"0 0 100 {_HEIGHT}",
            preserveAspectRatio="none",
            width="100%",
            height=_HEIGHT,
            class_="lines",
        )
    )
    body.append(_end_labels(curves, boundaries, scale))
    rivals = [(kind, words) for kind, words, _ in curves.rivals(values)]
    entries = [("plan", "the plan"), *rivals, ("boundary", "each boundary with its best codec")]
    if _spread(curves.link):
        entries.append(("band", "p20 to p95 of this link"))
    names = "; ".join(
        f"from {significant(i.low)} Mbit/s {name_of(i.boundary, i.codec)}"
        for i in curves.report.uplinks
    )
    return legend(entries) + chart(
        ident, title, f"The plan over the uplink's rate: {names}.", _HEIGHT, "uplink", "".join(body)
    )


class _Scale:
    """Logarithmic both ways; high enough for the plan and the rivals near it."""

    def __init__(self, values: Floats, plan: Sequence[Floats]) -> None:
        everything = values[np.isfinite(values) & (values > 0)]
        wanted = np.concatenate([*plan, [np.nan]])
        wanted = wanted[np.isfinite(wanted) & (wanted > 0)]
        wanted = wanted if wanted.size else everything
        lowest = min(float(wanted.min()), float(everything.min())) if everything.size else 1.0
        highest = min(6 * float(wanted.max()), float(everything.max())) if everything.size else 10.0
        self.low = lowest / 1.3
        self.high = max(highest * 1.15, 4 * self.low)

    def y(self, values: npt.ArrayLike) -> Floats:
        """Pixels from the top."""
        logs = np.log(np.maximum(np.asarray(values, np.float64), 1e-3 * self.low))
        low, high = math.log(self.low), math.log(self.high)
        return np.asarray(_HEIGHT * (high - logs) / (high - low))


def _path(rates: Floats, values: Floats, scale: _Scale, class_: str, words: str) -> str:
    known = np.isfinite(values)
    if known.sum() < 2:
        return ""
    places = zip(rates[known].tolist(), scale.y(values[known]).tolist(), strict=True)
    points = " ".join(f"{100 * x_of(rate):.2f},{y:.1f}" for rate, y in places)
    return tag("polyline", tip(words), points=points, class_=class_)


def _grid(scale: _Scale, unit: str) -> str:
    parts = [text(unit, -8, -10, text_anchor="end", class_="tick")]
    for value in log_ticks(scale.low, scale.high):
        y = float(scale.y(value))
        parts.append(line(0, y, "100%", y, "grid"))
        parts.append(text(f"{value:,g}", -8, y + 4, text_anchor="end", class_="tick"))
    for mbps in log_ticks(LOW_MBPS, HIGH_MBPS):
        x, whole = pct(x_of(mbps)), round(math.log10(mbps), 6).is_integer()
        parts.append(line(x, 0, x, _HEIGHT, "grid" if whole else "grid fine"))
        size = "tick" if whole else "tick wide"
        parts.append(text(f"{mbps:,g}", x, _HEIGHT + 17, text_anchor="middle", class_=size))
    parts.append(line(0, _HEIGHT, "100%", _HEIGHT, "axis"))
    parts.append(text("uplink, Mbit/s", "50%", _HEIGHT + 36, text_anchor="middle", class_="tick"))
    return "".join(parts)


def _spread(link: Link) -> tuple[float, float] | None:
    if not (link.trace or link.probed_mbps):
        return None
    return link.percentile_mbps(20), link.percentile_mbps(95)


def _link_mark(link: Link) -> str:
    parts, x = [], x_of(link.uplink_mbps)
    spread = _spread(link)
    if spread:
        left, right = map(x_of, spread)
        parts.append(
            tag("rect", x=pct(left), y=0, width=pct(right - left), height=_HEIGHT, class_="band")
        )
    outside = not LOW_MBPS <= link.uplink_mbps <= HIGH_MBPS
    name = "" if "mbps" in link.name.lower() else f"{shortened(link.name, 24)}, "
    words = f"{name}{significant(link.uplink_mbps)} Mbit/s{' (off the axis)' if outside else ''}"
    anchor = "start" if x < 0.15 else "end" if x > 0.85 else "middle"
    parts.append(line(pct(x), 0, pct(x), _HEIGHT, "planned"))
    parts.append(line(pct(x), -32, pct(x), -27, "planned"))
    parts.append(text(words, pct(x), -36, text_anchor=anchor, class_="planned-name"))
    return "".join(parts)


def _strip(intervals: Sequence[Interval]) -> str:
    """Above the plot: who wins where, with a line down at each break-even point."""
    parts = []
    for interval in intervals:
        left, right = x_of(interval.low), x_of(interval.high if interval.high < 1e9 else HIGH_MBPS)
        if right <= left:
            continue
        if interval.boundary is None:
            kind = "nobody"
        elif interval.codec == NO_CODEC:
            kind = "rival-device"
        else:
            kind = "plan" if interval.boundary else "rival-input"
        short = short_name(interval.boundary, interval.codec)
        parts.append(
            tag(
                "rect",
                tip(name_of(interval.boundary, interval.codec)),
                x=pct(left),
                y=-26,
                width=pct(right - left),
                height=20,
                class_=f"strip {kind}",
            )
        )
        need_px, width = 7.0 * len(short) + 8, right - left
        if need_px <= width * 900:
            size = "" if need_px <= width * 250 else " wide"
            parts.append(
                text(
                    short,
                    pct((left + right) / 2),
                    -12,
                    text_anchor="middle",
                    class_=f"strip-name{size}",
                )
            )
        if 0 < left < 1:
            parts.append(line(pct(left), -26, pct(left), _HEIGHT, "even"))
    return "".join(parts)


def _end_labels(curves: Curves, lines: dict[int, Floats], scale: _Scale) -> str:
    """At the right end, which line is which; moved apart where lines meet."""
    step = max(1, math.ceil(len(lines) / _LABELS))
    shown = {b: y for n, (b, y) in enumerate(lines.items()) if n % step == 0}
    ends = {b: float(y[np.isfinite(y)][-1]) for b, y in shown.items()}
    places = [min(max(float(scale.y(end)), 0.0), float(_HEIGHT)) for end in ends.values()]
    parts = []
    moved = spread_out(places, _LABEL_GAP, _HEIGHT)
    for (boundary, end), place, label in zip(ends.items(), places, moved, strict=True):
        words = curves.name_at(boundary)
        short = {"all on the device": "device", "the input": "input"}.get(words, str(boundary))
        leader = f'<path class="leader" d="M1 {place - label:.1f} L10 0"/>'
        parts.append(at("100%", label, leader))
        label_text = tag(
            "text", tip(f"{words}: {figure(end)} at {HIGH_MBPS:g} Mbit/s"), esc(short),
            x="100%", dx=13, y=label + 4, class_="end",
        )  # fmt: skip
        parts.append(label_text)
    return "".join(parts)
