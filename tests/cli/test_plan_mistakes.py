"""`splitpoint plan`: mistakes, each told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from plan_command import Plan, error


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("5g", "unknown link '5g'"),
        ("0mbps", "carries nothing"),
        ("0mbps,20ms", "carries nothing"),
        ("-3mbps", "unknown link"),
        ("none.csv", "cannot read the trace"),
        ("", "unknown link"),
    ],
)
def test_links(plan: Plan, link: str, words: str) -> None:
    assert words in error(plan, link=link)


@pytest.mark.parametrize("rows", ["0,1\n1,-2\n", "0,0\n1,0\n", "0,1\n", "x,y\n1,2\n", ""])
def test_traces(plan: Plan, tmp_path: Path, rows: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("seconds,uplink_mbps\n" + rows)
    assert "trace" in error(plan, link=str(path))


@pytest.mark.parametrize("option", ["--edge-device", "--cloud-device", "--power-model"])
def test_unknown_devices_list_the_known_ones(plan: Plan, option: str) -> None:
    words = error(plan, option, "abacus")
    assert "abacus" in words
    for known in ("pi4", "pi5", "jetson-nano", "t4"):
        assert known in words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--objective", "beauty"], "unknown objective 'beauty'"),
        (["--objective", "latency=0"], "unknown objective"),
        (["--must-run-on-edge", "fc9"], "has no layer 'fc9'"),
        (["--must-run-on-edge", "CONV"], "did you mean conv1, conv2, conv3"),
        (["--deadline-ms", "0"], "--deadline-ms 0 is no limit"),
        (["--deadline-ms", "nan"], "--deadline-ms nan: give a finite number"),
        (["--max-accuracy-drop", "200"], "--max-accuracy-drop 200 is none: give 0 to 100 (%)"),
        (["--max-accuracy-drop", "-1"], "--max-accuracy-drop -1 is none: give 0 to 100 (%)"),
        (["--min-fps", "-1"], "--min-fps -1 is no limit"),
        (["--deadline-ms", "1"], "no plan keeps to --deadline-ms"),
        (["--max-edge-mb", "80", "--max-kb-per-frame", "0.1"], "--max-edge-mb or to --max-kb"),
        (["--codec", "jepg"], "jepg"),
        (["--codec", "fkt-video@2"], "a plan is made for frames by themselves: plan with fkt"),
        (["--codec", "learned-video"], "plan with learned, or name a boundary: `run --split N"),
        (["--radio", "wfi"], "wfi"),
    ],
)
def test_options(plan: Plan, options: list[str], words: str) -> None:
    assert words in error(plan, *options)


def test_a_limit_that_would_do_is_named(plan: Plan) -> None:
    words = error(plan, "--deadline-ms", "20")
    assert words == (
        "error: no plan keeps to --deadline-ms: the input as jpeg would do with --deadline-ms 36.5"
    )
    assert plan("--deadline-ms", "36.5")[0] == 0
    assert plan("--deadline-ms", "36.4")[0] == 1


def test_what_must_not_be_is_not_proposed(plan: Plan) -> None:
    """The input as JPEG comes nearest to the deadline, but it must not be sent."""
    words = error(plan, "--deadline-ms", "20", "--must-not-upload-input")
    assert "input as" not in words
    limit = words.rpartition(" ")[2]
    assert plan("--deadline-ms", limit, "--must-not-upload-input")[0] == 0


@pytest.mark.parametrize(
    "options",
    [
        ["--queue-ms", "-1"],
        ["--queue-ms", "nan"],
        ["--queue-ms", "inf"],
        ["--server-slowdown", "0"],
        ["--server-slowdown", "nan"],
        ["--server-slowdown", "inf"],
    ],
)
def test_conditions_that_do_not_exist(plan: Plan, options: list[str]) -> None:
    """Wrong usage or an error; in no case a table of what is not a number."""
    code, out, err = plan("--json", *options)
    assert code in (1, 2)
    assert out == ""
    assert err
