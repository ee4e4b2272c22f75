"""The planner: its figures by hand and by definition, and that it chooses the best."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from plans import EDGE, MBPS, WORKER, link_of, one, plan_of, upper_end
from split_tables import (
    Ladders,
    codec_time,
    profile_of,
    random_ladders,
    random_profiles,
)
from splitpoint.partition.bundle.ladder import (
    DEFAULT_LOSS,
    CodecLevel,
)
from splitpoint.partition.energy.radio import RADIOS, Radio
from splitpoint.partition.errors import PlanError
from splitpoint.partition.plan.cost_rows import MESSAGE_BYTES, TRUSTED
from splitpoint.partition.plan.costs import OWN_MS
from splitpoint.partition.plan.link import Link
from splitpoint.partition.profile.profile import Profile


def test_latency_by_hand() -> None:
    report = plan_of([EDGE], WORKER, link_of(MBPS))
    assert OWN_MS == 0.5
    assert one(report, 3, "none").latency_ms == pytest.approx(10 + 20 + 40)
    # The worker measured its own decoding of jpeg; of the others the device's stands in.
    assert one(report, 0, "jpeg").latency_ms == pytest.approx(3 + 12 + 20 + 0.5 + 1.5 + 7)
    assert one(report, 0, "raw").latency_ms == pytest.approx(150 + 20 + 0.5 + 7)
    assert one(report, 1, "q8").latency_ms == pytest.approx(10 + 1 + 5 + 20 + 0.5 + 0.5 + 6)
    assert one(report, 2, "q8").latency_ms == pytest.approx(30 + 0.5 + 2 + 20 + 0.5 + 0.25 + 4)
    assert (report.chosen.boundary, report.chosen.codec) == (1, "q8")
    assert report.chosen.runtime == "onnxruntime"
    assert one(report, 1, "q8").bytes_up == 5_000
    assert one(report, 3, "none").bytes_up == 0


def test_load_makes_the_worker_wait_and_slow_down() -> None:
    report = plan_of([EDGE], WORKER, link_of(MBPS), queue_ms=7, server_factor=3)
    jpeg = one(report, 0, "jpeg")
    assert jpeg.server_ms == pytest.approx(3 * (1.5 + 7))
    assert jpeg.latency_ms == pytest.approx(3 + 12 + 20 + 0.5 + 7 + 3 * 8.5)
    assert jpeg.stages_ms["queue"] == 7
    assert one(report, 3, "none").latency_ms == pytest.approx(70)
    assert one(report, 3, "none").stages_ms["queue"] == 0


@pytest.mark.parametrize("mbps", [0.3, 1.7, 8.0, 300.0])
def test_the_stages_that_a_reason_names_add_up_to_what_it_explains(mbps: float) -> None:
    report = plan_of([EDGE], WORKER, link_of(mbps, 61.7), queue_ms=7.3, server_factor=1.7)
    best, *others = report.candidates
    explained = [each for each in others if "later than the best" in each.why]
    assert len(explained) == len(others)
    for each in explained:
        later, _, stages = each.why.partition(" ms later than the best: ")
        assert float(later) == pytest.approx(each.latency_ms - best.latency_ms, abs=0.0501)
        named = {
            name: float(ms)
            for name, _, ms in (
                part.rpartition(" ") for part in stages.removesuffix(" ms").split(", ")
            )
        }
        assert sum(named.values()) == pytest.approx(float(later), abs=1e-9)
        for name, ms in each.stages_ms.items():
            assert named.get(name, 0.0) == pytest.approx(ms - best.stages_ms[name], abs=0.101)


def test_what_is_hardly_later_names_no_stage() -> None:
    codecs = [codec_time(1, "q8", 900)]
    edges = [
        profile_of([10, 20], codecs),
        profile_of([10, 20.01], codecs, runtime="torch"),
    ]
    report = plan_of(edges, profile_of([1, 200], runtime="torch"), link_of(MBPS))
    assert report.chosen.boundary == report.candidates[1].boundary == 2
    assert report.candidates[1].why == "0.0 ms later than the best"


def test_the_wait_and_the_round_trip_count_against_the_device_alone() -> None:
    """All on the device does without them, which makes up for most of what it computes more."""
    why = one(plan_of([EDGE], WORKER, link_of(MBPS), queue_ms=7), 3, "none").why
    assert why == (
        "20.0 ms later than the best: edge +60.0, encode -1.0, cloud -6.5, queue -7.0, "
        "downlink -10.0, uplink -15.5 ms"
    )


def test_p95_by_hand() -> None:
    """Independent spreads add up as squares: of the segments that run, wherever they do."""
    edge = profile_of([10, 20], [codec_time(1, "q8", 900)], p95_ms=[13, 24])
    worker = profile_of([1, 2], p95_ms=[1, 6], runtime="torch")
    report = plan_of([edge], worker, link_of(MBPS))
    assert one(report, 2, "none").p95_ms == pytest.approx(30 + math.hypot(3, 4))
    split = one(report, 1, "q8")
    assert split.latency_ms == pytest.approx(10 + 1 + 20.5 + 2)
    assert split.p95_ms == pytest.approx(split.latency_ms + math.hypot(3, 4))


def test_spread_of_the_link_is_in_p95() -> None:
    edge = profile_of([10, 20], [codec_time(1, "q8", 900)])
    worker = profile_of([1, 2], runtime="torch")
    rates = (1.0, 8.0, 8.0, 8.0, 8.0)
    probed = Link(
        name="probed", uplink_mbps=8, round_trip_ms=20, source="probed", probed_mbps=rates
    )
    report = plan_of([edge], worker, probed)
    split = one(report, 1, "q8")
    assert split.latency_ms == pytest.approx(10 + 1 + 20.5 + 2)  # a kilobyte at the median rate
    late_ms = float(np.percentile([8.0, 1, 1, 1, 1], 95)) - 1
    assert late_ms > 5
    assert split.p95_ms == pytest.approx(split.latency_ms + late_ms)
    assert one(report, 2, "none").p95_ms == pytest.approx(30)


def test_deadline_is_for_the_95th_percentile() -> None:
    edge = profile_of([10, 20], [codec_time(1, "q8", 900)], p95_ms=[10, 60])
    worker = profile_of([1, 2], runtime="torch")
    assert plan_of([edge], worker, link_of(MBPS)).chosen.boundary == 2
    report = plan_of([edge], worker, link_of(MBPS), deadline_ms=40)
    assert report.chosen.boundary == 1
    local = one(report, 2, "none")
    assert (local.latency_ms, local.p95_ms) == (30, 70)
    assert not local.feasible
    assert "--deadline-ms" in local.why


@pytest.mark.parametrize("seed", range(20))
def test_stages_add_up(seed: int) -> None:
    edges, worker = random_profiles(seed, runtimes=2)
    report = plan_of(edges, worker, link_of(5, 33), queue_ms=4, server_factor=1.7)
    for candidate in report.candidates:
        assert candidate.stages_ms.keys() == {
            "edge", "encode", "uplink", "queue", "cloud", "downlink",
        }  # fmt: skip
        assert sum(candidate.stages_ms.values()) == pytest.approx(candidate.latency_ms)
        assert all(ms >= 0 for ms in candidate.stages_ms.values())
        assert candidate.stages_ms["cloud"] == pytest.approx(candidate.server_ms)
        if candidate.codec == "none":
            assert candidate.stages_ms["uplink"] == candidate.stages_ms["downlink"] == 0


def seen_by_calibration(codec: str, rungs: Sequence[CodecLevel]) -> dict[str, float]:
    """What is known of a codec's harm: share of changed answers, its bound, and the loss."""
    if codec in ("raw", "png"):
        return {"drop": 0.0, "bound": 0.0, "loss": 0.0}
    found = {"drop": math.nan, "bound": math.nan, "loss": math.nan}
    for rung in rungs:
        if rung.codec == codec:
            found["loss"] = rung.loss
            if rung.agreed is not None:
                changed = rung.judged - rung.agreed
                found["drop"] = changed / rung.judged
                found["bound"] = upper_end(changed, rung.judged)
    return found


def by_definition(
    edges: list[Profile], worker: Profile, *, ladders: Ladders, mbps: float, round_trip: float,
    queue: float, factor: float, radio: Radio,
) -> dict[tuple[str, int, str], dict[str, float]]:  # fmt: skip
    """Every candidate's figures, from the definition and with loops."""
    found = {}
    for edge in edges:
        count = len(edge.segments)
        local_ms = sum(s.ms for s in edge.segments)
        found[edge.runtime, count, "none"] = {
            "latency": local_ms,
            "energy": sum(s.mj for s in edge.segments),
            "throughput": local_ms,
            "bytes": 0.0,
            "server-cost": 0.0,
            "p95": local_ms + sum((s.p95_ms - s.ms) ** 2 for s in edge.segments) ** 0.5,
            "drop": 0.0,
            "bound": 0.0,
            "loss": 0.0,
            "kb": 0.0,
            "mb": edge.base_mb + sum(s.memory_mb for s in edge.segments),
        }
        decode = {(c.boundary, c.codec): c.decode_ms for c in worker.codecs}
        for c in edge.codecs:
            rungs = ladders.get(c.boundary, ())
            if c.codec not in TRUSTED and c.codec not in [rung.codec for rung in rungs]:
                continue
            before, after = edge.segments[: c.boundary], worker.segments[c.boundary :]
            nbytes = c.nbytes
            if not c.pictures:  # the device knows only of synthetic ones
                nbytes = next((rung.nbytes for rung in rungs if rung.codec == c.codec), nbytes)
            nbytes += MESSAGE_BYTES
            edge_ms = sum(s.ms for s in before)
            device_ms = edge_ms + c.encode_ms
            stream_ms = max(edge_ms, c.encode_ms)
            if edge.cores is not None:  # both want cores, and there are only so many
                busy = edge_ms * min(edge.threads, edge.cores) + c.encode_ms
                stream_ms = max(stream_ms, busy / edge.cores)
            upload_ms = nbytes * 8 / (mbps * 1e6) * 1e3
            server_ms = factor * (decode[c.boundary, c.codec] + sum(s.ms for s in after))
            waiting_ms = upload_ms + round_trip + OWN_MS + queue + server_ms
            spreads = [s.p95_ms - s.ms for s in (*before, *after)]
            found[edge.runtime, c.boundary, c.codec] = {
                "latency": device_ms + waiting_ms,
                "energy": sum(s.mj for s in before)
                + edge.busy_w * c.encode_ms
                + edge.idle_w * waiting_ms
                + (radio.up_mw_per_mbps * mbps + radio.base_mw) * upload_ms / 1e3,
                "throughput": max(stream_ms, upload_ms, server_ms),
                "bytes": nbytes,
                "server-cost": server_ms,
                "p95": device_ms + waiting_ms + sum(s**2 for s in spreads) ** 0.5,
                **seen_by_calibration(c.codec, rungs),
                "kb": nbytes / 1e3,
                "mb": edge.base_mb + sum(s.memory_mb for s in before),
            }
    return found


CONDITIONS = (
    dict(mbps=0.7, round_trip=60.0, queue=0.0, factor=1.0),
    dict(mbps=6.0, round_trip=30.0, queue=9.0, factor=2.5),
    dict(mbps=80.0, round_trip=4.0, queue=0.0, factor=0.5),
)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("conditions", CONDITIONS)
def test_every_figure_is_by_definition(seed: int, conditions: dict[str, float]) -> None:
    edges, worker = random_profiles(seed, runtimes=2)
    ladders = random_ladders(seed, len(worker.segments))
    radio = RADIOS["wifi"]
    truth = by_definition(edges, worker, ladders=ladders, radio=radio, **conditions)
    report = plan_of(
        edges,
        worker,
        link_of(conditions["mbps"], conditions["round_trip"]),
        radio=radio,
        ladders=ladders,
        queue_ms=conditions["queue"],
        server_factor=conditions["factor"],
    )
    assert len(report.candidates) == len(truth)
    for c in report.candidates:
        figures = truth[c.runtime, c.boundary, c.codec]
        assert c.latency_ms == pytest.approx(figures["latency"])
        assert c.p95_ms == pytest.approx(figures["p95"])
        assert c.energy_mj == pytest.approx(figures["energy"])
        assert c.fps == pytest.approx(1e3 / figures["throughput"])
        assert c.server_ms == pytest.approx(figures["server-cost"])
        assert c.edge_mb == pytest.approx(figures["mb"])
        assert c.bytes_up == round(1e3 * figures["kb"])
        for value, name in ((c.accuracy_drop, "drop"), (c.drop_bound, "bound")):
            expected = figures[name]
            assert value == (None if math.isnan(expected) else pytest.approx(expected, abs=1e-6))


@pytest.mark.parametrize("conditions", CONDITIONS)
@pytest.mark.parametrize(
    "objective",
    ["latency", "energy", "bytes", "throughput", "server-cost", "latency=2,energy=1",
     "throughput=1,server-cost=0.3,latency=1"],
)  # fmt: skip
def test_the_chosen_one_is_the_best_of_the_feasible(
    objective: str, conditions: dict[str, float]
) -> None:
    """Brute force over the definition, with and without limits that exclude some but not all."""
    radio = RADIOS["lte"]
    weights = {
        part.partition("=")[0]: float(part.partition("=")[2] or 1) for part in objective.split(",")
    }
    choices = set()
    for seed in range(12):
        edges, worker = random_profiles(seed, runtimes=2)
        ladders = random_ladders(seed, len(worker.segments))
        truth = by_definition(edges, worker, ladders=ladders, radio=radio, **conditions)
        median = {
            name: sorted(f[name] for f in truth.values())[len(truth) // 2] for name in weights
        }
        rng = random.Random(seed)
        limits = {
            name: float(np.quantile([f[key] for f in truth.values()], rng.uniform(0.4, 0.9)))
            for name, key in rng.sample(
                [("deadline_ms", "p95"), ("max_edge_mb", "mb"), ("max_kb_per_frame", "kb")],
                rng.randint(0, 2),
            )
        }
        limits = {name: value for name, value in limits.items() if value > 0}
        limits["max_accuracy_drop"] = rng.choice([None, 0.0, 0.02, 0.05, 1.0])

        def keeps(figures: dict[str, float], limits: dict[str, float] = limits) -> bool:
            if limits["max_accuracy_drop"] is None:
                accurate = not figures["loss"] > DEFAULT_LOSS  # there is no JPEG here
            else:
                bound = 1.0 if math.isnan(figures["bound"]) else figures["bound"]
                accurate = bound <= limits["max_accuracy_drop"]
            return (
                accurate
                and figures["p95"] <= limits.get("deadline_ms", math.inf)
                and figures["mb"] <= limits.get("max_edge_mb", math.inf)
                and figures["kb"] <= limits.get("max_kb_per_frame", math.inf)
            )

        def score(
            figures: dict[str, float],
            median: dict[str, float] = median,
        ) -> float:
            if len(weights) == 1:
                return figures[objective]
            return sum(w * figures[n] / (median[n] or 1) for n, w in weights.items())

        feasible = {key: score(figures) for key, figures in truth.items() if keeps(figures)}
        arguments = dict(
            radio=radio,
            ladders=ladders,
            queue_ms=conditions["queue"],
            server_factor=conditions["factor"],
        )
        link = link_of(conditions["mbps"], conditions["round_trip"])
        if not feasible:
            with pytest.raises(PlanError, match="no plan keeps to"):
                plan_of(edges, worker, link, objective, **arguments, **limits)
            continue
        report = plan_of(edges, worker, link, objective, **arguments, **limits)
        chosen = (report.chosen.runtime, report.chosen.boundary, report.chosen.codec)
        assert chosen in feasible
        assert feasible[chosen] == pytest.approx(min(feasible.values()), rel=1e-6)
        choices.add(chosen[1:])
        assert {(c.runtime, c.boundary, c.codec) for c in report.candidates if c.feasible} == set(
            feasible
        )
        ranks = [c.feasible for c in report.candidates]
        assert ranks == sorted(ranks, reverse=True)
        for kind in (True, False):
            scores = [
                score(truth[c.runtime, c.boundary, c.codec])
                for c in report.candidates
                if c.feasible is kind
            ]
            assert all(a <= b * (1 + 1e-6) + 1e-6 for a, b in pairwise(scores))
    assert choices


def test_equal_scores_are_told_apart_by_latency() -> None:
    """All on the device costs the server nothing in either runtime."""
    edges = [
        profile_of([30, 40], [codec_time(0, "raw", 1000)], runtime="torch"),
        profile_of([10, 20], [codec_time(0, "raw", 1000)], runtime="onnxruntime"),
    ]
    report = plan_of(edges, profile_of([1, 2]), link_of(MBPS), "server-cost")
    assert (report.chosen.boundary, report.chosen.runtime) == (2, "onnxruntime")


def test_runtimes_are_candidates() -> None:
    """One starts fast, the other ends fast; each is chosen where it is the better one."""
    codecs = [codec_time(1, "q8", 900)]
    edges = [
        profile_of([5, 100], codecs, runtime="onnxruntime"),
        profile_of([30, 30], codecs, runtime="torch"),
    ]
    worker = profile_of([1, 2], runtime="torch")
    fast = plan_of(edges, worker, link_of(1000, 1))
    assert (fast.chosen.boundary, fast.chosen.runtime) == (1, "onnxruntime")
    slow = plan_of(edges, worker, link_of(0.01, 100))
    assert (slow.chosen.boundary, slow.chosen.runtime) == (2, "torch")
    assert len(slow.candidates) == 4


def test_a_recorded_link_with_standstills() -> None:
    """Nothing is sent by all on the device, so no standstill holds it up."""
    trace = ((0.0, 8.0), (1.0, 0.0), (2.0, 8.0))
    link = Link(name="t", uplink_mbps=5.3, round_trip_ms=20, source="t", trace=trace)
    report = plan_of([EDGE], WORKER, link)
    local = one(report, 3, "none")
    assert (local.latency_ms, local.p95_ms) == (70, 70)
    assert one(report, 1, "q8").p95_ms > 500
    assert one(report, 1, "q8").latency_ms == pytest.approx(43)


def test_the_words_for_the_choice() -> None:
    report = plan_of([EDGE], WORKER, link_of(MBPS))
    assert report.chosen.why == report.candidates[0].why
    assert f"{70 / 43:.2f}x as fast as all on the device (70.0 ms)" in report.chosen.why
    assert f"{44 / 43:.2f}x as fast as sending the input (44.0 ms)" in report.chosen.why
    assert one(report, 0, "raw").why.startswith("134.5 ms later than the best: uplink +145.0, ")


def test_a_stream_is_as_fast_as_its_slowest_stage() -> None:
    """The device encodes a frame while it computes the next; where cores are few, they share."""

    def fps(**fields: int) -> float:
        edge = profile_of([50, 50], [codec_time(1, "q8", 900, encode_ms=40)], **fields)
        report = plan_of([edge], profile_of([1, 1]), link_of(1000, 1))
        (split,) = [c for c in report.candidates if (c.boundary, c.codec) == (1, "q8")]
        return split.fps

    assert fps() == pytest.approx(1000 / 50)
    assert fps(threads=1, cores=4) == pytest.approx(1000 / 50)
    assert fps(threads=4, cores=4) == pytest.approx(1000 / (50 + 40 / 4))
    assert fps(threads=1, cores=1) == pytest.approx(1000 / (50 + 40))


def test_a_rate_that_overlapping_stages_reach_is_a_plan() -> None:
    edge = profile_of([50, 500], [codec_time(1, "q8", 900, encode_ms=40)], threads=1, cores=4)
    report = plan_of([edge], profile_of([1, 1]), link_of(1000, 1), min_fps=15)
    assert (report.chosen.boundary, report.chosen.codec) == (1, "q8")
