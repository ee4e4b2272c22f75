"""`splitpoint plan`: its table, its JSON, and what its options change."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from command import Command
from plan_command import Plan, choice, cloud_profile, edge_profile, error
from processes import splitpoint
from split_tables import profile_of
from splitpoint.partition.bundle.bundle import Bundle


def strict(text: str) -> object:
    """JSON as the standard has it, which knows neither NaN nor Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def test_json(plan: Plan) -> None:
    code, out, err = plan("--json")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 1
    document = strict(out)
    assert document.keys() >= {"chosen", "candidates", "breakeven", "notes"}
    assert document["notes"] == []
    for candidate in document["candidates"]:
        assert candidate.keys() >= {
            "boundary", "codec", "runtime", "latency_ms", "p95_ms", "energy_mj", "energy_kind",
            "bytes_up", "server_ms", "accuracy_drop", "drop_bound", "fps", "feasible", "why",
        }  # fmt: skip
    found = {(c["boundary"], c["codec"]): c for c in document["candidates"]}
    assert found.keys() == {(4, "none"), (0, "raw"), (0, "jpeg"), (2, "q8"), (3, "q8")}
    jpeg = document["candidates"][0]
    assert (jpeg["boundary"], jpeg["codec"]) == (0, "jpeg")
    assert jpeg["latency_ms"] == 2 + 10 + 20.5 + 4
    assert jpeg["bytes_up"] == 10_000
    assert jpeg["server_ms"] == 4
    assert (jpeg["energy_mj"], jpeg["energy_kind"]) == (None, "none")
    assert jpeg["fps"] == 100
    assert jpeg["feasible"] is True
    assert found[4, "none"]["latency_ms"] == 40
    assert {key: (c["accuracy_drop"], c["drop_bound"]) for key, c in found.items()} == {
        (4, "none"): (0, 0), (0, "raw"): (0, 0), (0, "jpeg"): (0.01, 0.025),
        (2, "q8"): (None, None), (3, "q8"): (0, 0.01),
    }  # fmt: skip
    answers = {key: (a["boundary"], a["codec"]) for key, a in document["answers"].items()}
    by_rate = max(document["candidates"], key=lambda c: c["fps"])
    by_bytes = min(
        (c for c in document["candidates"] if c["bytes_up"]), key=lambda c: c["bytes_up"]
    )
    assert answers == {
        "soonest": (0, "jpeg"),
        "most_frames": (by_rate["boundary"], by_rate["codec"]),
        "fewest_bytes": (by_bytes["boundary"], by_bytes["codec"]),
    }  # no energy is known
    chosen = document["chosen"]
    assert (chosen["boundary"], chosen["codec"], chosen["runtime"]) == (0, "jpeg", "onnxruntime")
    assert chosen["why"] == jpeg["why"]
    for name in ("uplink_mbps", "server_queue_ms"):
        intervals = document["breakeven"][name]
        assert intervals[0]["from"] == 0
        assert intervals[-1]["to"] is None
        assert [i["to"] for i in intervals[:-1]] == [i["from"] for i in intervals[1:]]
    # All on the device below: 40 = 26.5 + 80 / Mbit/s.
    assert document["breakeven"]["uplink_mbps"][0]["to"] == pytest.approx(80 / 13.5, rel=2e-3)


def test_table(plan: Plan) -> None:
    code, out, _ = plan()
    assert code == 0
    assert "8 Mbit/s up, 20 ms round trip" in out
    for words in ("all on the device", "the input as jpeg", "boundary 2 as q8", "36.5", "40.0"):
        assert words in out
    assert "chosen: the input as jpeg, predicted 36.5 ms: 1.10x as fast as all on the device" in out
    assert "all on the device wins below 5.9" in out
    assert "energy of the device: none" in out
    soonest = "a frame is there soonest: the input as jpeg, 36.5 ms (all on the device 40.0 ms)"
    assert soonest in out
    assert "most frames a second: " in out
    for words in ("1 % <3", "0 % <1", "?"):  # jpeg, and q8 with and without a calibration
        assert words in out
    rows = out.partition("chosen:")[0]
    assert "the input as raw" not in rows  # only the best codec of each boundary
    assert "the input as raw" in plan("--all")[1].partition("chosen:")[0]


def test_as_a_process(files: dict[str, Path]) -> None:
    done = splitpoint(
        "plan", str(files["bundle"]), "--edge", str(files["edge"]), "--cloud",
        str(files["cloud"]), "--link", "wifi", "--json",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["chosen"]["boundary"] == 0


def test_a_plan_of_nothing_is_wrong_usage(command: Command, files: dict[str, Path]) -> None:
    assert command("plan", files["bundle"]).returncode == 2


def test_conditions_change_the_choice(plan: Plan) -> None:
    assert choice(plan) == (0, "jpeg")
    assert choice(plan, link="1mbps,20ms") == (4, "none")
    assert choice(plan, link="1000mbps,1ms") == (0, "raw")
    assert choice(plan, "--queue-ms", "5") == (4, "none")
    assert choice(plan, "--server-slowdown", "3") == (4, "none")


def test_limits_change_the_choice(plan: Plan) -> None:
    assert choice(plan, "--must-not-upload-input") == (4, "none")
    fast = "1000mbps,1ms"
    assert choice(plan, "--must-not-upload-input", link=fast) == (2, "q8")
    assert choice(plan, "--max-accuracy-drop", "0", "--codec", "jpeg", link=fast) == (4, "none")
    assert choice(plan, "--max-accuracy-drop", "2.5", "--codec", "jpeg", link=fast) == (4, "none")
    assert choice(plan, "--max-accuracy-drop", "2.6", "--codec", "jpeg", link=fast) == (0, "jpeg")
    assert choice(plan, "--max-accuracy-drop", "0") == (4, "none")
    assert choice(plan, "--max-kb-per-frame", "5", link=fast) == (3, "q8")
    assert choice(plan, "--max-edge-mb", "85", link="1mbps,20ms") == (3, "q8")
    assert choice(plan, "--min-fps", "90") == (0, "jpeg")
    assert choice(plan, "--codec", "raw", link="8mbps,20ms") == (4, "none")


def test_a_calibration_that_was_too_small_is_noted(plan: Plan) -> None:
    """400 inputs without a changed answer leave 0.95 %."""
    code, out, err = plan("--json", "--max-accuracy-drop", "0.5")
    assert code == 0
    (note,) = json.loads(out)["notes"]
    assert err == f"note: {note}\n"
    assert "400 inputs" in note
    assert "765 inputs can show 0.5 %" in note
    code, out, err = plan("--json", "--max-accuracy-drop", "1")
    assert (code, err, json.loads(out)["notes"]) == (0, "", [])
    _, out, err = plan("--max-accuracy-drop", "0.5")
    assert err.startswith("note: calibration had 400 inputs")
    assert "chosen: all on the device" in out


def test_no_calibration_is_noted(plan: Plan, small_bundle: Bundle, files: dict[str, Path]) -> None:
    files["bundle"] = small_bundle.folder
    edge_profile(small_bundle).save(files["edge"])
    cloud_profile(small_bundle).save(files["cloud"])
    code, out, err = plan("--json", "--max-accuracy-drop", "1")
    assert code == 0
    document = json.loads(out)
    assert document["chosen"]["codec"] == "none"
    (note,) = document["notes"]
    assert "--calibrate" in note
    assert err == f"note: {note}\n"
    assert plan("--json")[2] == ""  # nobody asked for a limit


def test_codecs_that_were_not_calibrated_are_noted(plan: Plan) -> None:
    for codec in ("q4", "fkt", "fkt@2"):
        code, _, err = plan("--json", "--codec", codec)
        assert code == 0
        assert err.startswith(f"note: no candidate uses {codec}: ")
        assert "splitpoint compile --calibrate" in err
    assert plan("--json", "--codec", "jpeg", "--codec", "q8")[2] == ""


def test_layers_that_must_stay(plan: Plan, laddered: Bundle) -> None:
    for layer in laddered.manifest.layers:
        boundary, _ = choice(plan, "--must-run-on-edge", layer.name, link="1000mbps,1ms")
        usable = [b for b in (2, 3, 4) if b > layer.segment]
        assert boundary == usable[0]


def test_two_runtimes(plan: Plan, laddered: Bundle, files: dict[str, Path]) -> None:
    other = files["edge"].with_name("other.json")
    dataclasses.replace(
        edge_profile(laddered, runtime="torch"),
        segments=profile_of([4] * 4).segments,
    ).save(other)
    code, out, _ = plan("--json", edges=[files["edge"], other], link="1mbps,20ms")
    assert code == 0
    document = json.loads(out)
    assert {c["runtime"] for c in document["candidates"]} == {"onnxruntime", "torch"}
    assert document["chosen"]["runtime"] == "torch"
    assert document["candidates"][0]["latency_ms"] == 16


def test_two_runtimes_can_be_told_apart_in_the_table(
    plan: Plan, laddered: Bundle, files: dict[str, Path]
) -> None:
    other = files["edge"].with_name("other.json")
    edge_profile(laddered, runtime="torch").save(other)
    _, out, _ = plan(edges=[files["edge"], other])
    assert "torch" in out
    assert "onnxruntime" in out


def test_scaled_devices_are_marked(plan: Plan) -> None:
    code, out, err = plan("--json", "--edge-device", "pi4", "--cloud-device", "t4")
    assert code == 0
    document = strict(out)
    assert {c["energy_kind"] for c in document["candidates"]} == {"modelled"}
    assert all(c["energy_mj"] > 0 for c in document["candidates"])
    notes = [line for line in err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2
    assert all("modelled" in note for note in notes)
    assert "Raspberry Pi 4" in notes[0]
    assert "T4" in notes[1]
    local = {c["boundary"]: c["latency_ms"] for c in document["candidates"]}[4]
    assert local > 40  # a Pi is slower than the server that was measured
    _, out, _ = plan("--edge-device", "pi4")
    assert "energy of the device: modelled" in out


def test_an_emulated_profile_is_marked(
    plan: Plan, laddered: Bundle, files: dict[str, Path]
) -> None:
    edge_profile(laddered, emulated="slowed down 3 times").save(files["edge"])
    assert "note: a (AMD EPYC 7763 64-Core Processor): slowed down 3 times" in plan()[2]
    assert "slowed down 3 times" in error(plan, "--edge-device", "pi4")


def test_energy(plan: Plan, laddered: Bundle, files: dict[str, Path]) -> None:
    words = error(plan, "--objective", "energy")
    assert "energy of the device is not known" in words
    assert "--power-model" in words
    assert choice(plan, "--objective", "energy", "--power-model", "pi5")
    edge_profile(laddered, mj=[50] * 4, energy_kind="measured", busy_w=5.0, idle_w=1.0).save(
        files["edge"]
    )
    _, out, _ = plan("--json", "--objective", "energy", "--radio", "none")
    document = json.loads(out)
    found = {(c["boundary"], c["codec"]): c for c in document["candidates"]}
    assert found[4, "none"]["energy_mj"] == 200
    assert found[4, "none"]["energy_kind"] == "measured"
    assert found[0, "jpeg"]["energy_mj"] == 5 * 2 + 1 * 34.5
    assert found[0, "jpeg"]["energy_kind"] == "modelled"
    _, out, _ = plan("--json", "--radio", "wifi")
    wifi = {(c["boundary"], c["codec"]): c for c in json.loads(out)["candidates"]}
    assert wifi[0, "jpeg"]["energy_mj"] == pytest.approx(
        44.5 + (283.17 * 8 + 132.86) * 10 / 1e3, abs=1e-3
    )
    assert wifi[4, "none"]["energy_mj"] == 200


def test_a_trace(plan: Plan, tmp_path: Path) -> None:
    """Half of the time nothing is carried: a deadline then leaves only the device."""
    path = tmp_path / "trace.csv"
    path.write_text("seconds,uplink_mbps\n0,1000\n1,0\n2,1000\n3,0\n")
    assert choice(plan, "--deadline-ms", "60", link=str(path)) == (4, "none")


def test_html(plan: Plan, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    code, out, err = plan("--json", "--html", str(page))
    assert code == 0
    assert json.loads(out)["chosen"]["codec"] == "jpeg"
    assert str(page) in err
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert "cannot write" in error(plan, "--html", str(tmp_path / "nowhere" / "r.html"))


# What is wrong with the files


def test_profiles_of_another_bundle(plan: Plan, laddered: Bundle, files: dict[str, Path]) -> None:
    cloud_profile(laddered, digest="f" * 64).save(files["cloud"])
    assert "is of the bundle ffffffffffff" in error(plan)
    cloud_profile(laddered).save(files["cloud"])
    edge_profile(laddered, digest="e" * 64).save(files["edge"])
    assert "is of the bundle eeeeeeeeeeee" in error(plan)


def test_a_worker_may_run_what_serve_picks(
    plan: Plan, laddered: Bundle, files: dict[str, Path]
) -> None:
    """On a CPU that may be onnxruntime; INT8 is the device's alone."""
    in_torch = plan("--json")
    cloud_profile(laddered, runtime="onnxruntime").save(files["cloud"])
    assert plan("--json") == in_torch
    cloud_profile(laddered, runtime="onnxruntime-int8").save(files["cloud"])
    assert "was measured in onnxruntime-int8, which no worker runs" in error(plan)


def test_profiles_without_what_a_plan_needs(
    plan: Plan, laddered: Bundle, files: dict[str, Path]
) -> None:
    edge_profile(laddered).save(files["edge"])
    record = json.loads(files["edge"].read_text())
    for damage, words in (
        ({"codecs": []}, "has no codecs"),
        ({"segments": record["segments"][:2], "codecs": record["codecs"][:2]}, "has 2 segments"),
        ({"schema": 99}, "has profile schema 99"),
        ({"segments": []}, "make no sense"),
        ({"busy_w": "many"}, "splitpoint profile"),
        ({"segments": [{**s, "ms": math.nan} for s in record["segments"]]}, "make no sense"),
    ):
        files["edge"].write_text(json.dumps({**record, **damage}))
        assert words in error(plan)
    for text in ("", "{", "[]", "\0", "[" * 100_000):
        files["edge"].write_text(text)
        assert "is no profile" in error(plan)
    assert "cannot read" in error(plan, edges=[files["edge"].with_name("none.json")])
