"""What codecs do to the answers, and what a plan allows of that."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from plans import EDGE, MBPS, WORKER, link_of, plan_of, upper_end
from split_tables import (
    codec_time,
    level,
    profile_of,
)
from splitpoint.partition.bundle.ladder import (
    DEFAULT_ERROR,
    DEFAULT_LOSS,
    CodecLevel,
    inputs_needed,
)
from splitpoint.partition.plan.cost_rows import MESSAGE_BYTES

SIZES = {"raw": 1e6, "q8": 3e5, "q4": 1e5, "jpeg": 5e4, "fkt@1": 1e4}


def accuracy_plan(rungs: dict[str, CodecLevel | None], **limits: object) -> dict[str, bool]:
    """Which codecs at boundary 1 may be chosen; those that are no candidates at all are absent.

    A JPEG is sent at boundary 0. None stands for a codec that was not calibrated.
    """
    codecs = [codec_time(0 if name == "jpeg" else 1, name, SIZES[name]) for name in rungs]
    ladders = {
        0: [rung for name, rung in rungs.items() if rung is not None and name == "jpeg"],
        1: [rung for name, rung in rungs.items() if rung is not None and name != "jpeg"],
    }
    report = plan_of(
        [profile_of([10, 20], codecs)],
        profile_of([1, 2]),
        link_of(MBPS),
        ladders=ladders,
        **limits,
    )
    return {c.codec: c.feasible for c in report.candidates if c.codec != "none"}


def losing(**losses: float | None) -> dict[str, CodecLevel | None]:
    """Rungs by their loss."""
    return {
        name: None if loss is None else level(name, SIZES[name], loss=loss)
        for name, loss in losses.items()
    }


def changing(**counts: int | None) -> dict[str, CodecLevel | None]:
    """Rungs by how many of 400 answers they changed."""
    return {
        name: None if count is None else level(name, SIZES[name], agreed=400 - count)
        for name, count in counts.items()
    }


def test_unproven_codecs_are_no_candidates() -> None:
    assert accuracy_plan(losing(q8=None, q4=None)) == {"q8": True}
    assert accuracy_plan(losing(q8=None, q4=0.0)) == {"q8": True, "q4": True}
    assert accuracy_plan({"q8": None, "fkt@1": None}) == {"q8": True}
    assert accuracy_plan({"q8": None, "fkt@1": level("fkt@1")}) == {"q8": True, "fkt@1": True}


def test_a_rung_of_another_boundary_proves_nothing() -> None:
    """What was calibrated is a codec at a boundary."""
    codecs = [codec_time(boundary, "q4", 1000) for boundary in (1, 2)]
    report = plan_of(
        [profile_of([10, 20, 30], codecs)],
        profile_of([1, 2, 3]),
        link_of(MBPS),
        ladders={2: [level("q4", 1000)]},
    )
    assert {(c.boundary, c.codec) for c in report.candidates} == {(3, "none"), (2, "q4")}


def test_default_limit_on_the_loss() -> None:
    """Without a limit of the user's, a codec may lose what the calibrated JPEG loses."""
    assert DEFAULT_LOSS == 0.025
    assert accuracy_plan(losing(q8=0.025, q4=0.026)) == {"q8": True, "q4": False}
    # Who sends a JPEG has accepted what that loses.
    assert accuracy_plan(losing(jpeg=0.05, q8=0.05, q4=0.051)) == {
        "jpeg": True, "q8": True, "q4": False,
    }  # fmt: skip
    assert accuracy_plan(losing(jpeg=0.01, q8=0.01, q4=0.02)) == {
        "jpeg": True, "q8": True, "q4": False,
    }  # fmt: skip
    # Of a JPEG that was not calibrated nothing is known; it is trusted all the same.
    assert accuracy_plan(losing(jpeg=None, q4=0.026)) == {"jpeg": True, "q4": False}
    # How many answers changed is not what the default asks for.
    assert accuracy_plan({"q4": level("q4", agreed=0, loss=0.02)}) == {"q4": True}


def erring(**errors: float) -> dict[str, CodecLevel | None]:
    """Rungs of a model of anything by their worst errors; they lose little on average."""
    return {
        name: level(name, SIZES[name], agreed=None, loss=1e-4, worst_error=error)
        for name, error in errors.items()
    }


def test_default_limit_on_the_error_where_there_is_no_jpeg() -> None:
    """Half the squared error, which is what the loss is then, allows 12 % of the largest logit."""
    assert DEFAULT_ERROR == 0.01
    assert accuracy_plan(erring(q8=0.01, q4=0.0101)) == {"q8": True, "q4": False}
    assert accuracy_plan(erring(q8=0.01, q4=0.2), max_accuracy_drop=1.0) == {"q8": True, "q4": True}
    # What calibration says of a JPEG at the input is the limit, whichever codecs are planned with.
    rungs = erring(q8=0.5, q4=0.5)
    jpeg = level("jpeg", loss=1e-4)
    report = plan_of(
        [profile_of([10, 20], [codec_time(1, "q8", 1e4)])],
        profile_of([1, 2]),
        link_of(MBPS),
        ladders={0: [jpeg], 1: list(rungs.values())},
    )
    assert {c.codec for c in report.candidates if c.feasible} == {"none", "q8"}


def test_the_default_limit_is_said() -> None:
    def notes(rung: CodecLevel, **limits: float) -> tuple[str, ...]:
        codecs = [codec_time(1, "q8", 1e4)]
        report = plan_of(
            [profile_of([10, 20], codecs)],
            profile_of([1, 2]),
            link_of(MBPS),
            ladders={1: [rung]},
            **limits,
        )
        (sent,) = (c for c in report.candidates if c.codec == "q8")
        assert sent.worst_error == rung.worst_error
        assert sent.to_json()["worst_error"] == rung.worst_error
        assert sent.feasible == (bool(limits) or rung.worst_error <= 0.01)
        assert sent.feasible or "--max-accuracy-drop" in sent.why
        return report.notes

    (note,) = notes(level("q8", worst_error=0.125))
    assert "more than 1 % of the largest in calibration" in note
    assert notes(level("q8", worst_error=0.002)) == (note,)
    assert notes(level("q8", worst_error=0.125), max_accuracy_drop=1.0) == ()


def test_a_jpeg_that_loses_nothing_allows_only_what_loses_nothing() -> None:
    assert accuracy_plan(losing(jpeg=0.0, q8=0.0, q4=0.001)) == {
        "jpeg": True, "q8": True, "q4": False,
    }  # fmt: skip


def test_other_qualities_of_jpeg_do_not_set_the_default() -> None:
    codecs = [codec_time(0, "jpeg@75", 5e4), codec_time(1, "q4", 1e4)]
    report = plan_of(
        [profile_of([10, 20], codecs)],
        profile_of([1, 2]),
        link_of(MBPS),
        ladders={0: [level("jpeg@75", loss=0.5)], 1: [level("q4", loss=0.3)]},
    )
    assert {c.codec for c in report.candidates if c.feasible} == {"none"}


def test_given_limit_on_the_answers() -> None:
    """Then only what was measured is known to keep to it, and its bound has to."""
    rungs = {"raw": None} | changing(q8=None, q4=4, jpeg=20)
    assert upper_end(4, 400) == pytest.approx(0.0254, abs=1e-4)
    assert upper_end(20, 400) == pytest.approx(0.0760, abs=1e-4)
    for most, allowed in (
        (0.0, {"raw"}),
        (0.025, {"raw"}),
        (0.026, {"raw", "q4"}),
        (0.0755, {"raw", "q4"}),
        (0.077, {"raw", "q4", "jpeg"}),
        (1.0, {"raw", "q8", "q4", "jpeg"}),
    ):
        found = accuracy_plan(rungs, max_accuracy_drop=most)
        assert {name for name, feasible in found.items() if feasible} == allowed


def test_a_model_that_is_no_classifier_has_no_known_drop() -> None:
    rung = level("q4", agreed=None, loss=0.001)
    assert accuracy_plan({"q4": rung}) == {"q4": True}
    assert accuracy_plan({"raw": None, "q4": rung}, max_accuracy_drop=0.5) == {
        "raw": True, "q4": False,
    }  # fmt: skip


@pytest.mark.parametrize("most", [0.005, 0.01, 0.05, 0.2])
def test_the_cheapest_level_whose_bound_allows_it(most: float) -> None:
    """Brute force over ladders whose levels were judged on different numbers of inputs."""
    winners = set()
    for seed in range(60):
        rng = random.Random(f"levels {seed}")
        rungs, sizes = [], rng.sample(range(500, 20_000), 5)
        for number, nbytes in enumerate(sorted(sizes), start=1):
            judged = rng.choice([30, 150, 400, 1500, 5000])
            changed = min(judged, int(rng.expovariate(1 / (judged * 0.06 / number**2))))
            rungs.append(
                level(f"fkt@{number}", nbytes, judged=judged, agreed=judged - changed, loss=9.0)
            )
        edge = profile_of([10, 1000], [codec_time(1, rung.codec, rung.nbytes) for rung in rungs])
        report = plan_of(
            [edge],
            profile_of([1, 2]),
            link_of(MBPS),
            ladders={1: rungs},
            max_accuracy_drop=most,
        )
        allowed = [r for r in rungs if upper_end(r.judged - r.agreed, r.judged) <= most]
        best = min(allowed, key=lambda rung: rung.nbytes).codec if allowed else "none"
        assert report.chosen.codec == best, seed
        assert {c.codec for c in report.candidates if c.feasible} == {
            "none", *(rung.codec for rung in allowed),
        }  # fmt: skip
        winners.add(best)
    assert len(winners) >= 2


def test_bytes_of_calibration_stand_in_for_synthetic_pictures_only() -> None:
    codecs = [
        codec_time(1, "q8", 5000),
        codec_time(1, "q4", 3000),
        codec_time(2, "q8", 5000, pictures=7),
    ]
    rungs = [level("q8", 4000, p95_bytes=4400), level("q4", 2000)]
    report = plan_of(
        [profile_of([10, 20, 30], codecs)],
        profile_of([1, 2, 3]),
        link_of(MBPS),
        ladders={1: rungs[1:], 2: rungs},
    )
    assert {(c.boundary, c.codec): c.bytes_up - MESSAGE_BYTES for c in report.candidates} == {
        (3, "none"): -MESSAGE_BYTES, (1, "q8"): 5000, (1, "q4"): 2000, (2, "q8"): 5000,
    }  # fmt: skip


def notes_of(rungs: Sequence[CodecLevel], most: float | None) -> tuple[str, ...]:
    edge = profile_of([10, 20], [codec_time(1, "q8", 900), codec_time(1, "q4", 400)])
    report = plan_of(
        [edge],
        profile_of([1, 2]),
        link_of(MBPS),
        ladders={1: rungs},
        max_accuracy_drop=most,
    )
    assert report.to_json()["notes"] == list(report.notes)
    return report.notes


def test_a_calibration_that_was_too_small_is_noted() -> None:
    """381 inputs without a changed answer are what it takes to show 1 %."""
    assert inputs_needed(0.01) == 381
    (note,) = notes_of([level("q4", judged=100, agreed=100)], 0.01)
    assert "100 inputs" in note
    assert "3.7 %" in note
    assert "381 inputs can show 1 %" in note
    (note,) = notes_of([level("q4", judged=380, agreed=380)], 0.01)
    assert "381" in note
    assert notes_of([level("q4", judged=381, agreed=0)], 0.01) == ()
    # The codec with the most inputs counts.
    rungs = [level("q4", judged=100, agreed=100), level("q8", judged=400, agreed=0)]
    assert notes_of(rungs, 0.01) == ()


def test_no_calibration_is_noted() -> None:
    (note,) = notes_of([], 0.01)
    assert "--calibrate" in note
    assert "--max-accuracy-drop" in note


def test_nothing_is_noted_of_a_limit_that_was_not_given() -> None:
    for rungs in ([], [level("q4", judged=10, agreed=10)]):
        assert notes_of(rungs, None) == ()
        assert notes_of(rungs, 0.0) == ()  # which only what is exact can keep to


def test_named_codecs_only() -> None:
    report = plan_of([EDGE], WORKER, link_of(MBPS), codecs=frozenset(("raw",)))
    assert {c.codec for c in report.candidates} == {"none", "raw"}
