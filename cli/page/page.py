"""The page of `splitpoint plan --html`: one file with everything in it, charts included."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from splitpoint.codec import SplitpointError
from splitpoint.partition.bundle.bundle import Manifest
from splitpoint.partition.plan.breakeven import Interval
from splitpoint.partition.plan.costs import CostTable
from splitpoint.partition.plan.link import Link
from splitpoint.partition.plan.plan import name_of
from splitpoint.partition.plan.planner import Report
from splitpoint.partition.profile.profile import Profile
from splitpoint.partition.significant import significant

from .candidates_chart import CLIP, candidates_chart
from .curves import Curves
from .layers_chart import layers_chart
from .style import STYLE
from .svg import esc, figure
from .tables import candidates_table, segments_table
from .three_answers import three_answers
from .uplink_chart import uplink_chart


class PageError(SplitpointError):
    """The page cannot be written."""


def write_page(
    path: Path,
    manifest: Manifest,
    table: CostTable,
    report: Report,
    link: Link,
    edge: Profile,
    cloud: Profile,
    *,
    queue_ms: float = 0.0,
    server_factor: float = 1.0,
) -> None:
    """Writes the page whole or not at all; `PageError` when it cannot.

    `table`, `queue_ms` and `server_factor` are those that `report` was made from.
    """
    page = _page(manifest, table, report, link, edge, cloud, queue_ms, server_factor)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(page, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        # Where the draft's folder is no folder, not even looking for it succeeds.
        if draft.parent.is_dir():
            draft.unlink(missing_ok=True)
        raise PageError(
            f"cannot write {path} ({error.strerror})", "give --html a file in a folder that exists"
        ) from error


def _page(
    manifest: Manifest,
    table: CostTable,
    report: Report,
    link: Link,
    edge: Profile,
    cloud: Profile,
    queue_ms: float,
    server_factor: float,
) -> str:
    def curves(quantity: str) -> Curves:
        return Curves(
            table=table,
            report=report,
            link=link,
            quantity=quantity,
            queue_ms=queue_ms,
            server_factor=server_factor,
        )

    latency = uplink_chart("latency", "Latency over the uplink's rate", "ms", curves("latency_ms"))
    energy = uplink_chart(
        "energy", "Energy of the device over the uplink", "mJ", curves("energy_mj")
    )
    kinds = _energy_kinds(report)
    sections = [
        _heading(manifest, link, edge, cloud, queue_ms, server_factor),
        _answer(report),
        _section(
            "Where the time goes",
            "Every candidate, the best by the objective first; what a constraint keeps out is pale "
            f"and at the end. The axis ends at {CLIP:g} times the best: a bar with a double stroke "
            "goes on, and its number is true.",
            candidates_chart(report.candidates),
        ),
        _section(
            "Latency over the uplink",
            f"At a round trip of {link.round_trip_ms:g} ms. {_of_the_rate(link)}"
            if latency
            else _NOTHING_SENDS,
            latency,
        ),
        _section(
            "Energy over the uplink",
            f"What the device draws for a frame, in millijoules: {kinds}. {_METER_NOTE}",
            energy,
        )
        if energy
        else _section(
            "Energy over the uplink",
            _NOTHING_SENDS
            if kinds
            else "Not known: neither the profile nor a power model says what this device draws.",
            "",
        ),
        _section(
            "Layers on the device",
            "In the order in which they run. Layers that the runtime fused share their kernel's "
            "time. Point at a bar for all of its figures.",
            layers_chart(manifest, edge, report.chosen.boundary),
        ),
        _section("Segments", "", segments_table(manifest, edge, cloud)),
        _section("All candidates", "", candidates_table(report)),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{esc(manifest.name)}: the plan for {esc(link.name)}</title>\n"
        f"<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


_NOTHING_SENDS = "No way that sends anything keeps to the constraints, whatever the uplink."
_METER_NOTE = "The line of the plan is what the chosen plans draw, which need not be the least."


def _section(title: str, words: str, body: str) -> str:
    intro = f"<p>{esc(words)}</p>" if words else ""
    return f"<section>\n<h2>{esc(title)}</h2>\n{intro}{body}\n</section>"


def _heading(
    manifest: Manifest,
    link: Link,
    edge: Profile,
    cloud: Profile,
    queue_ms: float,
    server_factor: float,
) -> str:
    load = f"a frame waits {queue_ms:g} ms" if queue_ms else "idle"
    if server_factor != 1:
        load += f", {server_factor:g} times as slow as its profile"
    entries = [
        ("link", _link_words(link)),
        ("device", _device_words(edge)),
        ("worker", f"{_device_words(cloud)}; {load}"),
        ("pictures", f"codecs measured on {edge.pictures}" if edge.pictures else "not said"),
        ("bundle", f"{edge.digest[:12]}, {len(manifest.segments)} segments, "
                   f"{len(manifest.layers)} layers"),
    ]  # fmt: skip
    listed = "".join(f"<dt>{esc(key)}</dt><dd>{esc(value)}</dd>" for key, value in entries)
    notes = "".join(f"<li>{esc(note)}</li>" for note in _notes(edge, cloud))
    return (
        f"<header>\n<h1>{esc(manifest.name)} over {esc(link.name)}</h1>\n<dl>{listed}</dl>\n"
        f'<ul class="notes">{notes}</ul>\n</header>'
    )


def _link_words(link: Link) -> str:
    words = (
        f"{link.name}, {significant(link.uplink_mbps)} Mbit/s up, "
        f"{significant(link.round_trip_ms)} ms round trip ({link.source})"
    )
    if link.trace or link.probed_mbps:
        p20, p50, p95 = (significant(link.percentile_mbps(p)) for p in (20, 50, 95))
        words += f"; p20 {p20}, median {p50}, p95 {p95} Mbit/s"
    return words


def _of_the_rate(link: Link) -> str:
    if link.trace:
        return (
            "The upright line is the mean of the recorded link; the bars above go through the "
            "recording itself, with its slow moments, and so may differ from what stands here."
        )
    return "The upright line is the link of this plan."


def _device_words(profile: Profile) -> str:
    threads = f", {profile.threads} threads" if profile.threads else ""
    return f"{profile.device}, {profile.runtime}{threads}, profile of {profile.date[:10]}"


def _notes(edge: Profile, cloud: Profile) -> Iterable[str]:
    yield "Latencies and energies on this page are predicted from the profiles and the link."
    for who, profile in (("device", edge), ("worker", cloud)):
        if profile.emulated:
            yield f"The {who}'s times are emulated: {profile.emulated}."
        if profile.modelled:
            yield f"The {who}'s times are modelled: {profile.modelled}."
        for note in profile.notes:
            yield f"The {who}: {note}"


def _energy_kinds(report: Report) -> str:
    """`modelled`, or `measured for 1 candidate, modelled for 28`."""
    kinds = Counter(c.energy_kind for c in report.candidates if c.energy_kind != "none")
    if len(kinds) == 1:
        return next(iter(kinds))
    return ", ".join(
        f"{kind} for {count} candidate{'s' if count > 1 else ''}"
        for kind, count in sorted(kinds.items())
    )


def _answer(report: Report) -> str:
    chosen, first = report.chosen, report.candidates[0]
    return (
        '<section class="answer">\n'
        f"<p><strong>{esc(_capital(name_of(chosen.boundary, chosen.codec)))}: "
        f"{figure(first.latency_ms)} ms a frame</strong>"
        f"{esc(_capital(chosen.why))}; in {esc(chosen.runtime)}.</p>\n"
        f"<div><h3>How soon, how many, at what cost</h3>{_answers(report)}</div>\n"
        f"<div><h3>By uplink</h3>{_intervals(report.uplinks, 'Mbit/s')}</div>\n"
        f"<div><h3>By waiting at the worker</h3>{_intervals(report.queues, 'ms')}</div>\n"
        "</section>"
    )


def _answers(report: Report) -> str:
    lines = (esc(_capital(answer.line)) for answer in three_answers(report.candidates))
    return "<ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _intervals(intervals: Sequence[Interval], unit: str) -> str:
    """`below 0.9 Mbit/s: all on the device`, and so on, as a list."""
    lines = []
    for interval in intervals:
        name = name_of(interval.boundary, interval.codec)
        what = "nothing keeps to the constraints" if interval.boundary is None else name
        lines.append(f"<li>{esc(interval.where(unit))}: <b>{esc(what)}</b></li>")
    return f"<ul>{''.join(lines)}</ul>"
