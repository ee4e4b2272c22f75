"""Chart: where the time of each candidate goes."""

from __future__ import annotations

from collections.abc import Sequence

from splitpoint.partition.plan.plan import NO_CODEC, name_of
from splitpoint.partition.plan.planner import Prediction

from .svg import at, chart, figure, legend, line, pct, shortened, tag, text, ticks, tip

STAGES = ("edge", "encode", "uplink", "queue", "cloud", "downlink")
# The axis ends at this multiple of the best: a raw upload over a slow link would squash all others.
CLIP, SHOWN = 4.0, 32
_ROW, _BAR, _TALL_ROW = 22, 14, 36


def candidates_chart(candidates: Sequence[Prediction]) -> str:
    """HTML: a stacked bar for each candidate in the given order, the best first."""
    limit = min(CLIP * candidates[0].latency_ms, max(c.p95_ms for c in candidates) * 1.02)
    limit = limit if limit > 0 else 1.0
    several = len({c.runtime for c in candidates}) > 1
    parts = [
        legend(
            [(f"s-{stage}", stage) for stage in STAGES] + [("whisker", "to the 95th percentile")]
        )
    ]
    parts.append(_bars("candidates", candidates[:SHOWN], limit, several, chosen=True))
    rest = candidates[SHOWN:]
    if rest:
        bars = _bars("candidates-more", rest, limit, several, chosen=False)
        parts.append(f"<details><summary>{len(rest)} more candidates</summary>{bars}</details>")
    return "".join(parts)


def short_name(boundary: int | None, codec: str) -> str:
    """`device`, `input jpeg` or `3 q8`, for narrow places."""
    if boundary is None:
        return "none"
    if codec == NO_CODEC:
        return "device"
    return f"{boundary or 'input'} {codec}"


def _bars(
    ident: str, candidates: Sequence[Prediction], limit: float, several: bool, chosen: bool
) -> str:
    marks, rows, top = ticks(limit), [], 0.0
    for rank, candidate in enumerate(candidates):
        height = _ROW if candidate.feasible else _TALL_ROW
        rows.append(_row(candidate, top, height, limit, several, chosen and rank == 0))
        top += height
    grid = []
    for index, ms in enumerate(marks):
        x = pct(ms / limit)
        grid.append(line(x, 0, x, top, "axis" if ms == 0 else "grid"))
        even = "" if index % 2 == 0 else " wide"
        for y in (-7, top + 16):
            grid.append(text(f"{ms:g}", x, y, text_anchor="middle", class_=f"tick{even}"))
    grid.append(text("total ms", "100%", -7, dx=56, class_="tick total"))
    grid.append(text("p95", "100%", -7, dx=112, class_="tick total wide"))
    best = candidates[0]
    return chart(
        ident,
        "Predicted latency of every candidate, by stage",
        f"{len(candidates)} stacked bars, the best first: "
        f"{name_of(best.boundary, best.codec)} with {figure(best.latency_ms)} ms. "
        "The same figures stand in the table at the end of the page.",
        top,
        "bars",
        "".join(grid + rows),
    )


def _row(
    candidate: Prediction, top: float, height: float, limit: float, several: bool, chosen: bool
) -> str:
    name = name_of(candidate.boundary, candidate.codec)
    runtime = candidate.runtime.replace("onnxruntime", "ort") if several else ""
    short = short_name(candidate.boundary, candidate.codec)
    y = top + (_ROW - _BAR) / 2
    words = ", ".join(f"{s} {figure(max(candidate.stages_ms[s], 0))}" for s in STAGES)
    parts = [
        tip(
            f"{name} ({candidate.runtime}): {figure(candidate.latency_ms)} ms, "
            f"p95 {figure(candidate.p95_ms)} ms\n{words}\n{candidate.why}"
        )
    ]
    if chosen:
        parts.append(at("0%", top, '<rect class="chosen" x="-4" y="0" width="5" height="22"/>'))
        parts.append(tag("rect", x=0, y=top, width="100%", height=height, class_="chosen-row"))
    for label, kind in (
        (shortened(f"{name} · {runtime}" if runtime else name, 28), "wide"),
        (shortened(f"{short} · {runtime[:3]}" if runtime else short, 16), "narrow"),
    ):
        parts.append(text(label, -9, top + 15, text_anchor="end", class_=f"name {kind}"))
    start = 0.0
    for stage in STAGES:
        end = min(start + max(candidate.stages_ms[stage], 0.0) / limit, 1.0)
        if end > start:
            parts.append(
                tag(
                    "rect",
                    x=pct(start),
                    y=y,
                    width=pct(end - start),
                    height=_BAR,
                    class_=f"bar s-{stage}",
                )
            )
        start = end
    parts.append(_ending(candidate, start, y, limit))
    if not candidate.feasible:
        flags = ", ".join(candidate.broken)
        why = candidate.why if len(candidate.why) <= 75 or not flags else f"breaks {flags}"
        parts.append(text(why, 2, top + 31, class_="reason wide"))
        parts.append(text(flags[:36], 2, top + 31, class_="reason narrow"))
    kind = "row" + (" best" if chosen else "") + ("" if candidate.feasible else " out")
    return tag("g", *parts, class_=kind)


def _ending(candidate: Prediction, end: float, y: float, limit: float) -> str:
    """The way to the 95th percentile, the mark of what goes on, and both figures at the right."""
    middle = y + _BAR / 2
    parts = [
        text(figure(candidate.latency_ms), "100%", middle + 4, dx=56, class_="total"),
        text(figure(candidate.p95_ms), "100%", middle + 4, dx=112, class_="total late wide"),
    ]
    far = min(candidate.p95_ms / limit, 1.0)
    if candidate.latency_ms > limit:
        mark = f'<path class="break" d="M-14 -3 l6 {_BAR + 6} M-8 -3 l6 {_BAR + 6}"/>'
        parts.append(at("100%", y, mark))
    elif far - end > 0.002:
        parts.append(line(pct(end), middle, pct(far), middle, "whisker"))
        if candidate.p95_ms <= limit:
            parts.append(line(pct(far), middle - 4, pct(far), middle + 4, "whisker"))
        else:
            parts.append(at("100%", middle, '<path class="whisker" d="M-6 -4 L0 0 L-6 4"/>'))
    return "".join(parts)
