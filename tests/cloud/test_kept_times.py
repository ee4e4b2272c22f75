"""What was measured of a model is kept, and the next start begins from it."""

from __future__ import annotations

import importlib.metadata
import json
import logging
from collections.abc import Callable
from dataclasses import fields, replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch
from splitpoint.cloud.compute import kept_times
from splitpoint.cloud.compute import load as load_model
from splitpoint.cloud.compute.interruptible_chain import InterruptibleChain
from splitpoint.cloud.compute.kept_times import KeptTimes, TimingConditions, conditions_here
from splitpoint.cloud.compute.measure_batches import Measured, expected_s
from splitpoint.cloud.compute.runner import Runner
from splitpoint.cloud.compute.served_model import ServedModel
from splitpoint.cloud.compute.timing import Timing
from splitpoint.cloud.errors import Interrupted
from splitpoint.cloud.options import WorkerOptions
from splitpoint.codec import Codec
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.profile.cloud_times import CloudTimes
from splitpoint.partition.profile.measure import measure_server, versions
from splitpoint.partition.run.codecs import codecs_of
from splitpoint.partition.run.torch_chain import TorchChain

Start = Callable[..., ServedModel]


class Counts:
    """A machine whose measurements take no time; how many there were, and what was said."""

    def __init__(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, kept: KeptTimes) -> None:
        self.bundle, self.kept, self.batches, self.servers = bundle, kept, 0, 0
        self.said: list[str] = []
        self.segments = len(bundle.manifest.segments)
        self.steady = True
        monkeypatch.setattr(load_model, "measure_server", self._server)
        monkeypatch.setattr(load_model, "measure_batches", self._batches)

    def _server(self, *_: object, **__: object) -> CloudTimes:
        self.servers += 1
        times = tuple(float(self.servers + number) for number in range(self.segments))
        return CloudTimes(
            segment_ms=times, segment_p95_ms=times, decode_ms={(0, "jpeg"): 0.5, (1, "raw"): 0.25}
        )

    def _batches(self, *_: object) -> Measured:
        self.batches += 1
        rows = [{1: 1.0, 2: 1.5, 4: 2.0 + self.batches}] * self.segments
        return Measured(
            rows=rows, limit=4, padded=False, round_s={1: 0.1, 2: 0.15}, steady=self.steady
        )

    def start(self, **options: Any) -> ServedModel:
        given = {"max_batch": 8, "runtime": "torch", "times": self.kept.folder}
        return load_model.load_served_model(
            self.bundle.folder,
            torch.device("cpu"),
            WorkerOptions(**given | options),
            profiles={},
            progress=self.said.append,
        )


@pytest.fixture
def machine(small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Counts:
    return Counts(small_bundle, monkeypatch, KeptTimes(folder=tmp_path / "worker"))


def test_a_second_start_measures_nothing(machine: Counts) -> None:
    first, second = machine.start(), machine.start()
    assert (machine.batches, machine.servers) == (1, 1)
    assert second.times == first.times
    assert second.batch_times.seconds == first.batch_times.seconds
    assert second.batch_times.max_batch == first.batch_times.max_batch == 4
    assert second.runner.chain.runtime == "torch"
    assert second.measure_again is None


def test_the_runtime_that_was_chosen_is_not_tried_again(
    machine: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = machine.start(runtime="auto")
    monkeypatch.setattr("splitpoint.cloud.compute.choose_form.TRIAL_ROUNDS", None)
    assert machine.start(runtime="auto").runner.chain.runtime == first.runner.chain.runtime


def test_a_first_start_says_what_it_waits_for_and_how_long(machine: Counts) -> None:
    machine.start()
    assert any("measuring" in line and "about" in line and " s" in line for line in machine.said)
    machine.said.clear()
    machine.start()
    assert not any("measuring" in line for line in machine.said)


def test_how_long_is_the_sum_of_the_rounds() -> None:
    assert expected_s(0.01, 4) == pytest.approx(5 * 0.01 * (1 + 2 + 4))
    assert expected_s(0.2, 128) == pytest.approx(5 * 0.2 * (1 + 2))  # one of 0.4 s is the last


def test_what_was_asked_for_is_part_of_what_was_measured(machine: Counts) -> None:
    machine.start()
    machine.start(max_batch=4)
    machine.start(runtime="onnxruntime")
    assert machine.batches == 3
    machine.start(max_batch=4)
    assert machine.batches == 3


def test_every_condition_is_part_of_the_key(small_bundle: Bundle) -> None:
    own = conditions_here(
        small_bundle, torch.device("cpu"), runtime="auto", precision="auto", max_batch=8,
        compilers=(), tune_minutes=0.0, profile=False,
    )  # fmt: skip
    others: dict[str, Any] = {
        "digest": "0" * 64, "runtime": "torch", "precision": "fp32", "max_batch": 9,
        "profile": True, "device": "another", "threads": 77, "cores": 77, "format": 0,
        "compilers": ("inductor",), "tune_minutes": 1.0,
        "versions": {**own.versions, "onnxruntime": "1.0.0"},
    }  # fmt: skip
    assert others.keys() == {field.name for field in fields(TimingConditions)}
    assert {"splitpoint", "torch", "onnxruntime"} <= own.versions.keys()
    keys = {replace(own, **{name: value}).key for name, value in others.items()}
    assert len(keys | {own.key}) == len(others) + 1


def test_measure_measures_and_keeps(machine: Counts) -> None:
    machine.start()
    machine.start(measure=True)
    assert machine.batches == 2
    assert machine.start().batch_times.seconds[0][4] == pytest.approx(4e-3)


def _damage(text: str) -> dict[str, str]:
    """Files that are not what was written."""

    def with_timing(**changed: object) -> str:
        record = json.loads(text)
        record["timing"] |= changed
        return json.dumps(record)

    rows = json.loads(text)["timing"]["rows"]
    foreign = json.loads(text)
    foreign["conditions"]["device"] = "another"
    return {
        "cut": text[: len(text) // 2],
        "empty": "",
        "list": "[]",
        "deep": "[" * 100_000,
        "foreign": json.dumps(foreign),
        "nan": text.replace("0.25", "NaN"),
        "negative": with_timing(round_s=[[1, -0.1]]),
        "infinite": with_timing(round_s=[[1, 1e999]]).replace("Infinity", "1e999"),
        "text": with_timing(limit="4"),
        "flag": with_timing(limit=True),
        "limit": with_timing(limit=9),
        "size": with_timing(rows=[[[1, 1.0], [900, 2.0]]] * len(rows)),
        "no single": with_timing(rows=[[[2, 1.0]]] * len(rows)),
        "segments": with_timing(rows=rows[1:]),
        "announced": with_timing(segment_ms=[1.0]),
        "boundary": with_timing(decode_ms=[[-1, "raw", 1.0]]),
        "runtime": with_timing(runtime="java"),
        "precision": with_timing(precision="fp8"),
        "layout": with_timing(channels_last=1),
        "compiler": with_timing(compiler="make"),
        "pairs": with_timing(decode_ms=7),
        "huge": with_timing(at_s=10**400),
    }


async def test_a_damaged_or_foreign_file_is_measured_anew(
    machine: Counts, caplog: pytest.LogCaptureFixture
) -> None:
    machine.start()
    (path,) = machine.kept.folder.iterdir()
    text = path.read_text()
    for number, (name, damaged) in enumerate(_damage(text).items(), 2):
        caplog.clear()
        path.write_text(damaged)
        machine.start()
        assert machine.batches == number, name
        assert len(caplog.messages) == 1, name
        assert "measuring anew" in caplog.messages[0]
        assert "\n" not in caplog.messages[0]
        assert len(caplog.messages[0]) < 400
        Timing.from_record(json.loads(path.read_text())["timing"], machine.segments, 8)


def test_where_memory_is_scarcer_than_it_was_batches_are_measured_anew(
    machine: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have taken some of a GPU's: that is no reason not to start."""
    machine.start()
    run_once, sizes = load_model.run_once, []

    def scarce(bundle: Bundle, runner: Runner, limit: int) -> None:
        sizes.append(limit)
        if limit > 1:
            raise RuntimeError("CUDA error: out of memory")
        run_once(bundle, runner, limit)

    monkeypatch.setattr(load_model, "run_once", scarce)
    assert machine.start().batch_times.seconds[0][4] == pytest.approx(4e-3)
    assert sizes == [4, 1]
    assert machine.batches == 2
    assert not any("as measured before" in line for line in machine.said)


def test_only_so_many_files_are_kept(machine: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_times, "MOST_FILES", 3)
    for max_batch in range(4, 10):
        machine.start(max_batch=max_batch)
    assert len(list(machine.kept.folder.iterdir())) == 3
    machine.start(max_batch=9)
    assert machine.batches == 6


def test_a_folder_that_cannot_be_written_costs_a_line(
    machine: Counts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    kept = KeptTimes(folder=tmp_path / "file" / "worker")
    with caplog.at_level(logging.WARNING, "splitpoint"):
        machine.start(times=kept.folder)
    assert any("cannot be kept" in line for line in caplog.messages)


def test_what_was_disturbed_or_is_old_is_measured_again(
    machine: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.steady = False
    assert machine.start().measure_again is not None
    served = machine.start()  # from the file
    assert machine.batches == 1
    again = served.measure_again
    assert again is not None
    assert again(lambda: None) is None  # disturbed once more: all stays as it is
    assert machine.start().batch_times.seconds[0][4] == pytest.approx(3e-3)
    machine.steady = True
    timing = again(lambda: None)
    assert timing is not None
    assert timing.batches.times.seconds[0][4] == pytest.approx(5e-3)
    assert machine.start().measure_again is None
    monkeypatch.setattr(load_model, "AGAIN_S", 0.0)
    assert machine.start().measure_again is not None


def test_a_measurement_is_broken_off_between_two_codecs_too(small_bundle: Bundle) -> None:
    """At the input no segment runs between them, and a frame that waits is not to wait for all."""
    codecs = codecs_of(small_bundle.manifest, small_bundle.folder)
    asked: list[str] = []
    ended = False

    class Noting:
        @staticmethod
        def named(name: str, boundary: int) -> Codec:
            nonlocal ended
            ended = True  # from the first codec on somebody waits
            asked.append(name)
            return codecs.named(name, boundary)

    def check() -> None:
        if ended:
            raise Interrupted("a frame waits")

    chain = InterruptibleChain(TorchChain(small_bundle, torch.device("cpu")), check)
    with pytest.raises(Interrupted):
        measure_server(small_bundle, chain, Noting(), max_seconds=0.0)
    assert len(asked) == 1


def test_versions_are_those_of_a_gpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """There onnxruntime has another name, and compilers come in packages of their own."""
    installed = {"onnxruntime-gpu": "1.22", "triton": "3.7", "tensorrt": "10.9", "torch": "2.13"}

    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert versions() == installed
