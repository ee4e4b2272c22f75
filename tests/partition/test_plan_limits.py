"""Objectives and constraints: what they exclude, which of them binds, and what is refused."""

from __future__ import annotations

import math
import random

import pytest
from plans import EDGE, MBPS, WORKER, link_of, one, plan_of
from split_tables import (
    codec_time,
    manifest_of,
    profile_of,
    random_ladders,
    random_profiles,
)
from splitpoint.partition.energy.radio import NO_RADIO
from splitpoint.partition.errors import PlanError
from splitpoint.partition.plan.costs import cost_table
from splitpoint.partition.plan.objective import Constraints, Objective
from splitpoint.partition.plan.plan import name_of
from splitpoint.partition.profile.cloud_times import CloudTimes


@pytest.mark.parametrize(
    "text", ["", "speed", "latency=", "latency=0", "latency=-1", "latency=nan", "latency=inf",
             "latency=x", "latency,speed", "latency;energy", "energy=1=2", ","],
)  # fmt: skip
def test_unknown_objectives(text: str) -> None:
    if text == "latency=":  # a weight that was left out is 1
        assert Objective.parse(text).weights == {"latency": 1}
        return
    with pytest.raises(PlanError, match="unknown objective") as caught:
        Objective.parse(text)
    assert "server-cost" in str(caught.value)


def test_mixes_are_parsed() -> None:
    assert Objective.parse("latency = 2, energy").weights == {"latency": 2, "energy": 1}


@pytest.mark.parametrize("name", ["deadline_ms", "max_edge_mb", "max_kb_per_frame", "min_fps"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_limits_that_nothing_can_keep(name: str, value: float) -> None:
    with pytest.raises(PlanError, match="--" + name.replace("_", "-")):
        Constraints(**{name: value})


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
def test_a_share_is_from_0_to_1(value: float) -> None:
    with pytest.raises(PlanError, match="--max-accuracy-drop"):
        Constraints(max_accuracy_drop=value)


def test_what_must_stay_on_the_device_does() -> None:
    fast = link_of(1000, 1)
    assert plan_of([EDGE], WORKER, fast).chosen.boundary == 0
    kept = plan_of([EDGE], WORKER, fast, must_not_upload_input=True)
    assert kept.chosen.boundary == 1
    assert "--must-not-upload-input" in one(kept, 0, "raw").why
    for layer, boundary in (("block0.conv", 1), ("block1.conv", 2), ("block2.relu", 3)):
        report = plan_of([EDGE], WORKER, fast, must_run_on_edge=(layer,))
        assert report.chosen.boundary == boundary
        assert all(c.feasible is (c.boundary >= boundary) for c in report.candidates)
        assert all("--must-run-on-edge" in c.why for c in report.candidates if not c.feasible)
    both = plan_of([EDGE], WORKER, fast, must_run_on_edge=("block1.conv", "block0.relu"))
    assert both.chosen.boundary == 2


def test_unknown_layer() -> None:
    with pytest.raises(PlanError, match="has no layer 'Relu'") as caught:
        plan_of([EDGE], WORKER, link_of(MBPS), must_run_on_edge=("Relu",))
    assert "did you mean block0.relu, block1.relu, block2.relu?" in str(caught.value)
    with pytest.raises(PlanError, match="splitpoint inspect"):
        plan_of([EDGE], WORKER, link_of(MBPS), must_run_on_edge=("fc",))


def test_each_limit_excludes_what_exceeds_it() -> None:
    link = link_of(MBPS)
    free = plan_of([EDGE], WORKER, link).candidates
    for name, figure, limit in (
        ("max_edge_mb", lambda c: c.edge_mb, 60.0),
        ("max_kb_per_frame", lambda c: c.bytes_up / 1e3, 5.0),
        ("deadline_ms", lambda c: c.p95_ms, 50.0),
        ("min_fps", lambda c: -c.fps, 50.0),
    ):
        report = plan_of([EDGE], WORKER, link, **{name: limit})
        bound = -limit if name == "min_fps" else limit
        inside = {(c.boundary, c.codec) for c in free if figure(c) <= bound}
        assert 0 < len(inside) < len(free)
        assert {(c.boundary, c.codec) for c in report.candidates if c.feasible} == inside
        flag = "--" + name.replace("_", "-")
        assert all(flag in c.why for c in report.candidates if not c.feasible)


def test_unknown_memory_is_not_known_to_fit() -> None:
    edge = profile_of([10, 20], [codec_time(0, "raw", 1000)])
    with pytest.raises(PlanError, match="--max-edge-mb: measure again with `splitpoint profile`"):
        plan_of([edge], profile_of([1, 2]), link_of(MBPS), max_edge_mb=1e9)


# Nothing feasible


def test_the_binding_constraint_is_named() -> None:
    with pytest.raises(PlanError) as caught:
        plan_of([EDGE], WORKER, link_of(MBPS), deadline_ms=10, max_edge_mb=100)
    words = str(caught.value)
    assert "no plan keeps to --deadline-ms:" in words
    assert "--max-edge-mb" not in words
    assert words.endswith("boundary 1 as q8 would do with --deadline-ms 43")


def test_constraints_that_exclude_each_other() -> None:
    """All on the device takes 110 MB; everything else is sent, and a kilobyte carries nothing."""
    limits = {"max_edge_mb": 90.0, "max_kb_per_frame": 0.5}
    with pytest.raises(PlanError, match="no plan keeps to --max-edge-mb or to --max-kb-per-frame"):
        plan_of([EDGE], WORKER, link_of(MBPS), **limits)
    for name in limits:
        others = {key: value for key, value in limits.items() if key != name}
        assert plan_of([EDGE], WORKER, link_of(MBPS), **others).candidates[0].feasible


def test_constraints_of_which_no_single_one_binds() -> None:
    limits = {"max_edge_mb": 90.0, "max_kb_per_frame": 0.5, "must_run_on_edge": ("block2.conv",)}
    with pytest.raises(PlanError, match="together") as caught:
        plan_of([EDGE], WORKER, link_of(MBPS), deadline_ms=1, **limits)
    for flag in ("--max-edge-mb", "--max-kb-per-frame", "--must-run-on-edge", "--deadline-ms"):
        assert flag in str(caught.value).partition("together")[0]


FLAGS = {
    "--deadline-ms": "deadline_ms",
    "--max-edge-mb": "max_edge_mb",
    "--max-kb-per-frame": "max_kb_per_frame",
    "--min-fps": "min_fps",
    "--max-accuracy-drop": "max_accuracy_drop",
}


def test_without_a_binding_constraint_there_is_a_plan() -> None:
    refused = 0
    for seed in range(120):
        edges, worker = random_profiles(seed)
        ladders = random_ladders(seed, len(worker.segments))
        rng = random.Random(seed)
        limits = {
            "deadline_ms": rng.uniform(20, 150),
            "max_edge_mb": rng.uniform(52, 140),
            "max_kb_per_frame": rng.uniform(5, 500),
            "min_fps": rng.uniform(3, 30),
            "max_accuracy_drop": rng.choice([0.0, 0.03]),
        }
        limits = dict(rng.sample(sorted(limits.items()), rng.randint(1, 4)))
        link = link_of(rng.uniform(0.5, 50))
        try:
            assert plan_of(edges, worker, link, ladders=ladders, **limits).candidates[0].feasible
            continue
        except PlanError as error:
            words, _, remedy = str(error).partition(": ")
        given = dict(option.split(" ") for option in remedy.partition(" with ")[2].split(" and "))
        enough = limits | {FLAGS[flag]: float(limit) for flag, limit in given.items()}
        if "--max-accuracy-drop" in given:
            enough["max_accuracy_drop"] /= 100
        report = plan_of(edges, worker, link, ladders=ladders, **enough)
        assert remedy.startswith(name_of(report.chosen.boundary, report.chosen.codec))
        limits.setdefault("max_accuracy_drop", None)  # the default is a limit like the others
        named = [name for flag, name in FLAGS.items() if flag in words]
        assert named
        assert set(named) <= limits.keys()
        if "together" in words:
            continue
        for name, value in limits.items():
            others = {key: v for key, v in limits.items() if key != name}
            if name == "max_accuracy_drop":  # left out it would be the default
                others[name] = 1.0
            try:
                found = bool(plan_of(edges, worker, link, ladders=ladders, **others))
            except PlanError:
                found = False
            assert found is (name in named), (seed, name, value, words)
            refused += found
    assert refused > 30


# What is refused


def test_profiles_that_do_not_fit() -> None:
    manifest = manifest_of(3)
    codecs = [codec_time(0, "raw", 10)]
    short, fitting = profile_of([1, 2], codecs), profile_of([1, 2, 3], codecs)
    times = CloudTimes.from_profile(fitting)
    with pytest.raises(PlanError, match="worker has times of 2 segments, the bundle 3"):
        cost_table(manifest, [fitting], CloudTimes.from_profile(short), radio=NO_RADIO)
    with pytest.raises(PlanError, match="has 2 segments, the bundle 3"):
        cost_table(manifest, [fitting, short], times, radio=NO_RADIO)
    with pytest.raises(PlanError, match="has no codecs"):
        cost_table(manifest, [profile_of([1, 2, 3])], times, radio=NO_RADIO)
    with pytest.raises(PlanError, match="worker"):
        cost_table(
            manifest,
            [fitting],
            CloudTimes(segment_ms=(1, 2, 3), segment_p95_ms=(1, 2)),
            radio=NO_RADIO,
        )


def test_a_worker_without_percentiles_has_no_spread() -> None:
    edge = profile_of([10, 20], [codec_time(0, "raw", 1000)])
    table = cost_table(manifest_of(2), [edge], CloudTimes(segment_ms=(1, 2)), radio=NO_RADIO)
    assert table.spread_ms.tolist() == [0, 0]
