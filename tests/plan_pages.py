"""Pages of plans that a test makes up, and what must hold of each."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from splitpoint.cli.page.curves import Curves
from splitpoint.cli.page.page import write_page
from splitpoint.partition.bundle.bundle import Manifest
from splitpoint.partition.energy.radio import radio_for
from splitpoint.partition.plan.costs import cost_table
from splitpoint.partition.plan.link import Link, parse_link
from splitpoint.partition.plan.objective import Constraints, Objective
from splitpoint.partition.plan.planner import Report, make_plan
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.partition.profile.profile import CodecTime, LayerTime, Profile, SegmentTime

NUMBERS = re.compile(r'\s(?:x|y|x1|x2|y1|y2|dx|width|height|points|d|viewBox)="([^"]*)"')


def profile(manifest: Manifest, ms: float, **changes: Any) -> Profile:
    """Every segment takes `ms`, every boundary has two codecs."""
    segments = [
        SegmentTime(id=i, ms=ms, p95_ms=1.2 * ms, samples=20) for i in range(count(manifest))
    ]
    share = 1 / len(manifest.layers)
    layers = [
        LayerTime(
            name=layer.name,
            op=layer.op,
            ms=ms * count(manifest) * share,
            mj=None,
            share=share,
            output_shape=layer.output_shape,
            output_bytes=layer.output_bytes,
            flops=layer.flops,
            params=layer.params,
        )
        for layer in manifest.layers
    ]
    codecs = [
        CodecTime(
            boundary=boundary,
            codec=codec,
            nbytes=nbytes / (1 + boundary),
            p95_bytes=nbytes,
            encode_ms=0.3,
            decode_ms=0.2,
            pictures=3,
        )
        for boundary in range(count(manifest))
        for codec, nbytes in ((("raw", 90e3)), ("q8" if boundary else "jpeg", 20e3))
    ]
    made = Profile(
        device="board",
        runtime="onnxruntime",
        threads=4,
        date="2026-01-02T03:04:05+00:00",
        digest="ab" * 32,
        versions={},
        segments=tuple(segments),
        layers=tuple(layers),
        codecs=tuple(codecs),
        pictures="3 photos",
    )
    return replace(made, **changes)


def count(manifest: Manifest) -> int:
    return len(manifest.segments)


def with_energy(found: Profile) -> Profile:
    segments = tuple(replace(s, mj=5 * s.ms) for s in found.segments)
    return replace(found, segments=segments, energy_kind="measured", busy_w=5.0, idle_w=2.0)


def planned(
    manifest: Manifest,
    edges: list[Profile],
    *,
    link: Link | None = None,
    **constraints: Any,
) -> tuple[Curves, Profile]:
    """A plan's latencies, for a loaded worker that is fifty times as fast, and its profile."""
    link = link or parse_link("lte")
    cloud = profile(manifest, edges[0].segments[0].ms / 50, device="worker", runtime="torch")
    table = cost_table(manifest, edges, CloudTimes.from_profile(cloud), radio=radio_for(link.name))
    report = make_plan(
        manifest,
        table,
        link,
        objective=Objective.parse("latency"),
        constraints=Constraints(**constraints),
        queue_ms=3,
        server_factor=2,
    )
    curves = Curves(
        table=table,
        report=report,
        link=link,
        quantity="latency_ms",
        queue_ms=3,
        server_factor=2,
    )
    return curves, cloud


def written(
    path: Path,
    manifest: Manifest,
    edge: Profile,
    *,
    more: tuple[Profile, ...] = (),
    **conditions: Any,
) -> tuple[str, Report]:
    """The page and what it shows."""
    curves, cloud = planned(manifest, [edge, *more], **conditions)
    table, report, link = curves.table, curves.report, curves.link
    write_page(path, manifest, table, report, link, edge, cloud, queue_ms=3, server_factor=2)
    return path.read_text(encoding="utf-8"), report


class Balanced(HTMLParser):
    """Fails at a tag that is closed out of turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def drawings(page: str) -> list[str]:
    """The outermost SVGs."""
    found, depth, start = [], 0, 0
    for match in re.finditer(r"<svg\b|</svg>", page):
        opens = match.group() != "</svg>"
        if opens and depth == 0:
            start = match.start()
        depth += 1 if opens else -1
        if depth == 0:
            found.append(page[start : match.end()])
    return found


def check(page: str) -> list[str]:
    """What holds for every page; returns its drawings."""
    seen = Balanced(page).seen
    assert not seen & {"script", "link", "img", "iframe", "object"}
    assert "://" not in page
    assert "@import" not in page
    assert "url(" not in page
    found = drawings(page)
    for drawing in found:
        root = ElementTree.fromstring(drawing)
        assert [child.tag for child in root[:2]] == ["title", "desc"]
        assert root[0].text
        assert root[1].text
        for numbers in NUMBERS.findall(drawing):
            assert not re.search("nan|inf", numbers)
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    return found
