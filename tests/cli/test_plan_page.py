"""The page of `plan --html`: what it shows, in words and drawings, and that it is sound."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from plan_pages import check, count, planned, profile, with_energy, written
from splitpoint.cli.page.page import PageError
from splitpoint.cli.page.svg import esc, figure, log_ticks, pct, shortened, spread_out, tag, ticks
from splitpoint.partition.bundle.bundle import Bundle, Manifest
from splitpoint.partition.plan.link import Link, parse_link
from splitpoint.partition.plan.plan import name_of

HOSTILE = '<script>alert("1 & 2")</script>\x00\ud800'


@pytest.fixture
def manifest(small_bundle: Bundle) -> Manifest:
    return small_bundle.manifest


def test_page_shows_every_candidate_and_every_layer(manifest: Manifest, tmp_path: Path) -> None:
    edge = with_energy(profile(manifest, 30, emulated="slowed down 8 times", notes=("hot",)))
    page, report = written(tmp_path / "plan.html", manifest, edge)
    bars, latency, energy, layers = check(page)
    assert [p.name for p in tmp_path.iterdir()] == ["plan.html"]
    for candidate in report.candidates:
        name = name_of(candidate.boundary, candidate.codec)
        assert f">{name}</text>" in bars
        assert f"<td class=words>{name}</td>" in page
    chosen = name_of(report.chosen.boundary, report.chosen.codec)
    assert f"{chosen[0].upper()}{chosen[1:]}: " in page
    assert 'class="row best"' in bars
    for layer in manifest.layers:
        assert layer.name in layers
    for boundary in manifest.boundaries:
        assert f"boundary {boundary.id}" in layers
    assert "uplink, Mbit/s" in latency
    assert ">mJ</text>" in energy
    assert "slowed down 8 times" in page
    assert "The device: hot" in page
    sending = len(report.candidates) - 1
    assert f"in millijoules: measured for 1 candidate, modelled for {sending} candidates." in page


def test_break_even_points_are_told_and_drawn(manifest: Manifest, tmp_path: Path) -> None:
    page, report = written(tmp_path / "plan.html", manifest, profile(manifest, 30))
    assert len(report.uplinks) > 1
    assert math.isinf(report.uplinks[-1].high)
    latency = check(page)[1]
    inside = [i for i in report.uplinks if 0.1 < i.low < 1000]
    assert latency.count('class="even"') == len(inside) > 0
    assert latency.count('class="plan"') == len(report.uplinks)
    for interval in report.uplinks:
        assert f": <b>{name_of(interval.boundary, interval.codec)}</b>" in page
    assert f"<li>below {report.uplinks[0].high:.3g} Mbit/s: <b>all on the device</b>" in page


def test_one_winner_everywhere(manifest: Manifest, tmp_path: Path) -> None:
    page, report = written(
        tmp_path / "plan.html", manifest, profile(manifest, 0.01), link=parse_link("3g")
    )
    assert len(report.uplinks) == 1
    check(page)
    assert "<li>everywhere: <b>all on the device</b></li>" in page


def test_energy_that_is_not_known_has_a_sentence_and_no_chart(
    manifest: Manifest, tmp_path: Path
) -> None:
    page, report = written(tmp_path / "plan.html", manifest, profile(manifest, 30))
    assert {c.energy_mj for c in report.candidates} == {None}
    assert len(check(page)) == 3
    assert "Not known: neither the profile nor a power model" in page
    assert "nan" not in page.replace("nano", "").lower()


def test_all_but_one_candidate_infeasible(manifest: Manifest, tmp_path: Path) -> None:
    page, report = written(
        tmp_path / "plan.html", manifest, with_energy(profile(manifest, 30)), max_kb_per_frame=0.01
    )
    assert sum(c.feasible for c in report.candidates) == 1
    bars = check(page)[0]
    assert "Not known" not in page  # energy is, of the only way that is left
    assert page.count("No way that sends anything keeps to the constraints") == 2
    assert "The upright line" not in page
    assert bars.count('class="row out"') == len(report.candidates) - 1
    assert "it sends too much (--max-kb-per-frame)" in bars


def test_deadline_that_slow_links_miss_leaves_a_gap(manifest: Manifest, tmp_path: Path) -> None:
    page, report = written(
        tmp_path / "plan.html",
        manifest,
        profile(manifest, 300),
        link=parse_link("100mbps,5ms"),
        deadline_ms=120,
    )
    assert report.uplinks[0].boundary is None
    latency = check(page)[1]
    assert "strip nobody" in latency
    assert "nothing keeps to the constraints" in page


def test_names_are_escaped(manifest: Manifest, tmp_path: Path) -> None:
    layers = (replace(manifest.layers[0], name=HOSTILE), *manifest.layers[1:])
    boundaries = list(manifest.boundaries)
    boundaries[1] = replace(boundaries[1], after=HOSTILE)
    hostile = replace(manifest, name=HOSTILE, layers=layers, boundaries=tuple(boundaries))
    edge = profile(hostile, 30, device=HOSTILE, modelled=HOSTILE, pictures=HOSTILE)
    link = replace(parse_link("lte"), name=HOSTILE, source=HOSTILE)
    page, _ = written(tmp_path / "plan.html", hostile, edge, link=link)
    check(page)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&quot;1 &amp; 2&quot;)&lt;/script&gt;\ufffd?") > 5


def test_trace_and_probes_show_their_spread(manifest: Manifest, tmp_path: Path) -> None:
    trace = Link(
        name="drive",
        uplink_mbps=5,
        round_trip_ms=50,
        source="drive.csv",
        trace=((0.0, 2.0), (1.0, 8.0), (2.0, 5.0)),
    )
    probed = replace(parse_link("wifi"), probed_mbps=(10.0, 18.0, 30.0))
    for link in (trace, probed):
        page, _ = written(tmp_path / "plan.html", manifest, profile(manifest, 30), link=link)
        assert 'class="band"' in check(page)[1]
        assert "; p20 " in page


def test_links_beyond_the_axis_stay_inside(manifest: Manifest, tmp_path: Path) -> None:
    for text in ("0.01mbps,900ms", "40000mbps,0ms"):
        page, _ = written(
            tmp_path / "plan.html", manifest, profile(manifest, 30), link=parse_link(text)
        )
        assert "(off the axis)" in check(page)[1]


def test_many_layers_candidates_and_runtimes(manifest: Manifest, tmp_path: Path) -> None:
    many = tuple(replace(manifest.layers[i * len(manifest.layers) // 432], name=f"block.{i}.conv")
                 for i in range(432))  # fmt: skip
    deep = replace(manifest, layers=many)
    edges = [profile(deep, 30 - i, runtime=("onnxruntime", "torch")[i % 2]) for i in range(5)]
    page, report = written(tmp_path / "plan.html", deep, edges[0], more=tuple(edges[1:]))
    assert len(report.candidates) > 40
    bars, rest, *_, layers = check(page)
    assert bars.count('class="row') + rest.count('class="row') == len(report.candidates)
    assert f"<summary>{len(report.candidates) - 32} more candidates" in page
    assert layers.count('class="row"') == 432
    assert "torch" in bars


def test_profile_of_an_older_version_has_no_layers(manifest: Manifest, tmp_path: Path) -> None:
    page, _ = written(tmp_path / "plan.html", manifest, profile(manifest, 30, layers=()))
    check(page)
    assert "no times of single layers" in page


def test_layers_that_take_no_time_are_drawn(manifest: Manifest, tmp_path: Path) -> None:
    edge = profile(manifest, 30)
    edge = replace(edge, layers=tuple(replace(layer, ms=0.0) for layer in edge.layers))
    check(written(tmp_path / "plan.html", manifest, edge)[0])


def test_page_that_cannot_be_written_leaves_nothing(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "taken.html").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("taken.html", "missing/plan.html", "file/plan.html"):
        with pytest.raises(PageError, match="cannot write") as found:
            written(tmp_path / name, manifest, profile(manifest, 30))
        assert found.value.remedy
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "taken.html"]


def test_page_that_stood_there_is_kept_when_writing_fails(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.html"
    path.write_text("old")

    def full(self: Path, *args: object, **kwargs: object) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(PageError, match="No space left"):
            written(path, manifest, profile(manifest, 30))
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("plan.html", "old")]


@pytest.mark.parametrize("quantity", ["latency_ms", "energy_mj"])
def test_curves_go_through_the_predictions(manifest: Manifest, quantity: str) -> None:
    curves = replace(planned(manifest, [with_energy(profile(manifest, 30))])[0], quantity=quantity)
    at_link = curves.at_rate(np.array([curves.link.uplink_mbps]))[0]
    keys = zip(curves.table.boundary.tolist(), curves.table.codec, strict=True)
    found = dict(zip(keys, at_link, strict=True))
    for candidate in curves.report.candidates:
        expected = getattr(candidate, quantity)
        assert found[candidate.boundary, candidate.codec] == pytest.approx(expected)


def test_plan_is_drawn_at_the_best_candidate(manifest: Manifest) -> None:
    curves = planned(manifest, [profile(manifest, 30)])[0]
    for rates, latencies in curves.plan():
        assert np.allclose(latencies, curves.at_rate(rates).min(1), rtol=2e-3)


def test_only_what_is_barred_on_every_link_has_no_curve(manifest: Manifest) -> None:
    late = planned(manifest, [profile(manifest, 30)], deadline_ms=121)[0]
    assert not all(c.feasible for c in late.report.candidates)
    assert late.allowed.all()
    heavy = planned(manifest, [profile(manifest, 30)], max_kb_per_frame=30)[0]
    assert heavy.allowed.tolist() == [n <= 30e3 for n in heavy.table.nbytes]


def test_plan_is_drawn_with_a_runtime_that_is_allowed(manifest: Manifest) -> None:
    small = profile(manifest, 30, base_mb=10.0)
    small = replace(small, segments=tuple(replace(s, memory_mb=1.0) for s in small.segments))
    large = replace(
        small,
        runtime="torch",
        base_mb=900.0,
        segments=tuple(replace(s, ms=1.0) for s in small.segments),
    )
    curves = planned(manifest, [small, large], max_edge_mb=100)[0]
    _, latencies = curves.plan()[0]
    assert curves.report.uplinks[0].codec == "none"
    assert np.allclose(latencies, 30 * count(manifest))


def test_bars_that_go_on_are_marked(manifest: Manifest, tmp_path: Path) -> None:
    link = parse_link("1.1mbps,10ms")
    page, report = written(tmp_path / "plan.html", manifest, profile(manifest, 30), link=link)
    limit = 4 * report.candidates[0].latency_ms
    longer = [c for c in report.candidates if c.latency_ms > limit]
    assert longer
    assert check(page)[0].count('class="break"') == len(longer)


def test_markup_is_escaped_and_positions_are_finite() -> None:
    assert tag("text", "a", x=1.50, text_anchor='"', class_="b") == (
        '<text x="1.5" text-anchor="&quot;" class="b">a</text>'
    )
    assert tag("g", x=100) == '<g x="100"></g>'
    assert esc("<\x07'") == "&lt;\ufffd&#x27;"
    for spoilt in (math.nan, math.inf):
        with pytest.raises(ValueError, match="x is"):
            tag("rect", x=spoilt)
        with pytest.raises(ValueError, match="position"):
            pct(spoilt)


def test_axes_have_round_ticks() -> None:
    assert ticks(250) == [0, 50, 100, 150, 200, 250]
    assert np.allclose(ticks(0.31), [0, 0.1, 0.2, 0.3])
    for limit in np.geomspace(1e-4, 1e6, 400):
        assert 2 <= len(ticks(limit)) <= 7
    assert np.allclose(log_ticks(0.4, 30), [0.5, 1, 2, 5, 10, 20])
    assert len(log_ticks(1e-3, 1e6)) == 10


def test_labels_move_apart_and_stay_inside() -> None:
    moved = spread_out([10, 10, 98, 99, 50], 5, 100)
    assert moved[4] == 50
    assert max(moved) <= 100
    assert min(np.diff(sorted(moved))) >= 5 - 1e-9
    assert [figure(x) for x in (0.123, 45.67, 1234.5)] == ["0.12", "45.7", "1,234"]
    assert shortened("backbone.layer4.2.conv3", 20) == "backbone…er4.2.conv3"
    assert shortened("abcdefgh", 5) == "…efgh"
