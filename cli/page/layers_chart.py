"""Chart: the time of every layer in the order in which the segments run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from splitpoint.partition.bundle.bundle import Manifest
from splitpoint.partition.profile.profile import LayerTime, Profile

from ..shell.output import human_bytes, human_count
from .svg import at, chart, esc, figure, legend, line, pct, shortened, tag, text, ticks, tip

# Operations that take most of the time get a colour each, the others share one.
_COLOURS, _HEADER = 5, 26
_LABEL_GAP = 14.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    layer: LayerTime
    top: float
    height: float


def layers_chart(manifest: Manifest, edge: Profile, chosen: int) -> str:
    """HTML: a bar for each layer, with the boundaries between the segments.

    `chosen` is the boundary of the plan. Says so where the profile has no layers.
    """
    if not edge.layers:
        return "<p>This profile has no times of single layers.</p>"
    totals: dict[str, float] = defaultdict(float)
    for layer in edge.layers:
        totals[layer.op] += layer.ms
    ranked = sorted(totals, key=lambda op: -totals[op])
    colours = {op: f"op-{min(rank, _COLOURS)}" for rank, op in enumerate(ranked)}
    whole = sum(totals.values()) or 1.0
    entries = [
        (colours[op], f"{op} {figure(totals[op])} ms ({100 * totals[op] / whole:.0f} %)")
        for op in ranked[:_COLOURS]
    ]
    rest = sum(totals[op] for op in ranked[_COLOURS:])
    if len(ranked) > _COLOURS:
        entries.append((f"op-{_COLOURS}", f"others {figure(rest)} ms"))
    return legend(entries) + _drawing(manifest, edge, chosen, colours, whole)


def _drawing(
    manifest: Manifest, edge: Profile, chosen: int, colours: dict[str, str], whole: float
) -> str:
    limit = max(layer.ms for layer in edge.layers) * 1.02 or 1.0
    height = 16.0 if len(edge.layers) <= 60 else 7.0 if len(edge.layers) <= 250 else 4.0
    groups = _by_segment(manifest, edge.layers)
    parts, rows, top = [], [], 0.0
    for boundary in range(len(groups) + 1):
        parts.append(_header(manifest, boundary, top, boundary == chosen))
        top += _HEADER
        for layer in groups[boundary] if boundary < len(groups) else ():
            rows.append(_Row(layer=layer, top=top, height=height))
            top += height
    named = _labelled(rows)
    bars = [_bar(row, limit, colours[row.layer.op], whole, row in named) for row in rows]
    grid = []
    for index, ms in enumerate(ticks(limit)):
        x, even = pct(ms / limit), "" if index % 2 == 0 else " wide"
        grid.append(line(x, 0, x, top, "axis" if ms == 0 else "grid"))
        for y in (-7, top + 16):
            grid.append(text(f"{ms:g}", x, y, text_anchor="middle", class_=f"tick{even}"))
    grid += [text("ms", "100%", y, dx=30, class_="tick") for y in (-7, top + 16)]
    slowest = max(edge.layers, key=lambda layer: layer.ms)
    return chart(
        "layers",
        "Time of every layer on the device",
        f"{len(rows)} bars in execution order, grouped by segment. The slowest layer is "
        f"{slowest.name} with {figure(slowest.ms)} ms of {figure(whole)} ms.",
        top,
        "bars layers",
        "".join(grid + parts + bars),
    )


def _by_segment(manifest: Manifest, layers: Sequence[LayerTime]) -> list[list[LayerTime]]:
    """A layer that the manifest does not know stays with the one before it."""
    segments = {layer.name: layer.segment for layer in manifest.layers}
    groups: list[list[LayerTime]] = [[] for _ in manifest.segments]
    current = 0
    for layer in layers:
        current = min(max(segments.get(layer.name, current), 0), len(groups) - 1)
        groups[current].append(layer)
    return groups


def _header(manifest: Manifest, index: int, top: float, chosen: bool) -> str:
    boundary = manifest.boundaries[index]
    size = human_bytes(boundary.nbytes)
    if index == 0:
        name = "boundary 0, the input"
    elif index == len(manifest.boundaries) - 1:
        name = f"boundary {index}, the output"
    else:
        name = f"boundary {index}"
    after = f", after {shortened(boundary.after, 44)}" if boundary.after else ""
    many = f" in {len(boundary.tensors)} tensors" if len(boundary.tensors) > 1 else ""
    cut = " ◀ the plan" if chosen else ""
    kind = "cut chosen-cut" if chosen else "cut"
    parts = [line(0, top + 22, "100%", top + 22, kind)]
    full = f"{name}{after}: {size} raw{many}{cut}"
    for words, size_class in ((full, "wide"), (f"boundary {index}: {size}{cut}", "narrow")):
        parts.append(text(words, 6, top + 17, class_=f"{kind} {size_class}"))
    return "".join(parts)


def _labelled(rows: Sequence[_Row]) -> list[_Row]:
    """The rows whose names are written: the slowest first, as long as there is room."""
    taken: list[_Row] = []
    least_ms = 0.03 * max(row.layer.ms for row in rows)
    for row in sorted(rows, key=lambda row: -row.layer.ms):
        if row.height >= _LABEL_GAP or (
            row.layer.ms > least_ms
            and all(abs(row.top - other.top) >= _LABEL_GAP for other in taken)
        ):
            taken.append(row)
    return taken


def _bar(row: _Row, limit: float, colour: str, whole: float, named: bool) -> str:
    layer, middle = row.layer, row.top + row.height / 2
    shape = "x".join(map(str, layer.output_shape))
    energy = "" if layer.mj is None else f", {layer.mj:.2f} mJ"
    parts = [
        tip(
            f"{layer.name}\n{layer.op}, output {shape}\n{human_count(layer.flops)} FLOPs, "
            f"{human_count(layer.params)} parameters\n{layer.ms:.3f} ms{energy}, "
            f"{100 * layer.ms / whole:.1f} %"
        ),
        tag("rect", x=0, y=row.top, width="100%", height=row.height, class_="hit"),
    ]
    gap = 2 if row.height > 10 else 0.5
    parts.append(
        tag(
            "rect",
            x=0,
            y=row.top + gap / 2,
            width=pct(layer.ms / limit),
            height=row.height - gap,
            class_=colour,
        )
    )
    if named:
        for most, kind in ((26, "wide"), (12, "narrow")):
            words = shortened(layer.name, most)
            parts.append(text(words, -9, middle + 4, text_anchor="end", class_=f"name {kind}"))
        value = tag("text", esc(figure(layer.ms)), x=6, y=4, class_="value")
        parts.append(at(pct(layer.ms / limit), middle, value))
    return tag("g", *parts, class_="row")
