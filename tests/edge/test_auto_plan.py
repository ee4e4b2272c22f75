"""The split `auto`: what is measured once, what every time, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from splitpoint.cli.emulate.relay import Relay
from splitpoint.cloud.worker import Worker
from splitpoint.codec import CodecError
from splitpoint.edge import AutoPlan, EdgeAgent, FakeWorker, Outcome
from splitpoint.edge.dispatch import auto_plan
from splitpoint.edge.dispatch.auto_plan import cloud_times, device_profiles
from splitpoint.edge.link.probe import probe_link
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.errors import PlanError
from splitpoint.partition.plan.link import parse_link
from splitpoint.partition.plan.objective import Constraints, Objective
from splitpoint.partition.plan.plan import Plan
from splitpoint.partition.profile.profile import Profile, ProfileError, SegmentTime, load_profile
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.proto import splitpoint_pb2 as pb


class Steps(list[str]):
    def __call__(self, what: str, done: int, total: int) -> None:
        self.append(what)


def kept_profile(folder: Path) -> Path:
    (kept,) = folder.glob("profile-*.json")
    return kept


async def test_device_is_measured_once(
    worker: FakeWorker, small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    first, second = Steps(), Steps()
    async with EdgeAgent(
        worker.address, connect=worker.connect, auto=AutoPlan(progress=first), cache=tmp_path
    ) as agent:
        result = await agent.infer({"pixels": pixels})
        report, link = agent.report, agent.link
    assert first
    assert result.outcome in (Outcome.LOCAL, Outcome.ANSWERED)
    assert report is not None
    assert link is not None
    assert link.round_trip_ms > 0
    assert (result.boundary, result.codec) == (report.chosen.boundary, report.chosen.codec)
    assert len(report.candidates) == 1 + 4 + 3 * 3  # local; four image codecs; q4 is not known
    kept = kept_profile(tmp_path)
    assert load_profile(kept, small_bundle.digest).runtime == "onnxruntime"
    async with EdgeAgent(
        worker.address, connect=worker.connect, auto=AutoPlan(progress=second), cache=tmp_path
    ):
        assert not second
    kept.write_text("{")
    async with EdgeAgent(
        worker.address, connect=worker.connect, auto=AutoPlan(progress=second), cache=tmp_path
    ):
        assert second  # a damaged profile is measured again


@pytest.mark.parametrize("package", ["splitpoint", "onnxruntime", "numpy"])
def test_an_upgrade_is_measured_again(
    package: str, small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times of another version of what computes are not planned with."""
    measured = []

    def fake(bundle: Bundle, chain: OnnxChain, *_: object, **__: object) -> Profile:
        measured.append(chain.runtime)
        segments = range(len(bundle.manifest.segments))
        return Profile(
            device="here", runtime=chain.runtime, threads=1, date="", digest=bundle.digest,
            versions={}, layers=(),
            segments=tuple(SegmentTime(id=s, ms=1.0, p95_ms=1.0, samples=1) for s in segments),
        )  # fmt: skip

    monkeypatch.setattr(auto_plan, "measure", fake)
    installed = {"splitpoint": "1", "onnxruntime": "1", "numpy": "1", "torch": "1"}
    monkeypatch.setattr(auto_plan, "versions", lambda: installed)

    def start() -> int:
        device_profiles(small_bundle, AutoPlan(), folder=tmp_path, threads=1, slowdown=1.0)
        return len(measured)

    assert (start(), start()) == (1, 1)
    installed["torch"] = "2"  # which runs nothing here
    assert start() == 1
    installed[package] = "2"
    assert (start(), start()) == (2, 2)


async def test_choice_follows_link_and_constraints(small_bundle: Bundle, tmp_path: Path) -> None:
    """A worker that computes at once wins over a fast link, and never over a hopeless one."""
    last = len(small_bundle.manifest.segments)
    worker = FakeWorker(small_bundle, segment_ms=(0.0,) * last)
    chosen = {}
    for text in ("100000mbps,0.001ms", "0.01mbps,1000ms"):
        auto = AutoPlan(link=parse_link(text), objective=Objective.parse("server-cost"))
        async with EdgeAgent(
            worker.address, connect=worker.connect, auto=auto, cache=tmp_path
        ) as agent:
            assert agent.plan.boundary == last  # no server costs the least
        auto = AutoPlan(link=parse_link(text))
        async with EdgeAgent(
            worker.address, connect=worker.connect, auto=auto, cache=tmp_path, slowdown=50
        ) as agent:
            chosen[text] = agent.plan.boundary
        auto = AutoPlan(link=parse_link(text), constraints=Constraints(must_not_upload_input=True))
        async with EdgeAgent(
            worker.address, connect=worker.connect, auto=auto, cache=tmp_path, slowdown=50
        ) as agent:
            assert agent.plan.boundary > 0
        async with EdgeAgent(
            worker.address, connect=worker.connect, auto=auto, codec="raw", cache=tmp_path
        ) as agent:
            assert agent.report is not None
            assert {c.codec for c in agent.report.candidates} == {"none", "raw"}
    assert chosen["0.01mbps,1000ms"] == last
    assert chosen["100000mbps,0.001ms"] < last


async def test_what_must_stay_on_the_device_does(
    worker: FakeWorker, small_bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    """With a link and a worker that cost nothing, sending the picture would be best."""
    layer = next(x.name for x in small_bundle.manifest.layers if x.segment == 1)
    for limits, first in (
        (Constraints(must_not_upload_input=True), 1),
        (Constraints(must_run_on_edge=(layer,)), 2),
    ):
        auto = AutoPlan(constraints=limits, link=parse_link("100000mbps,0.001ms"))
        async with EdgeAgent(
            worker.address, connect=worker.connect, auto=auto, cache=tmp_path
        ) as agent:
            assert (await agent.infer({"pixels": pixels})).boundary >= first
        with pytest.raises(PlanError, match="breaks --must"):
            async with EdgeAgent(
                worker.address, connect=worker.connect, auto=auto, split="input", cache=tmp_path
            ):
                pass


async def test_switching_loads_what_is_needed(
    worker: FakeWorker, pixels: np.ndarray, tmp_path: Path
) -> None:
    answers = []
    async with EdgeAgent(
        worker.address, connect=worker.connect, split="input", codec="raw", cache=tmp_path
    ) as agent:
        for boundary in (0, 2, 4, 1):
            codec = "none" if boundary == 4 else "raw"
            await agent.switch(Plan(boundary=boundary, codec=codec))
            result = await agent.infer({"pixels": pixels})
            assert result.boundary == boundary
            answers.append(result.outputs["output"])
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], rtol=1e-4, atol=1e-5)


async def test_without_a_worker_all_runs_here(small_bundle: Bundle, tmp_path: Path) -> None:
    async with EdgeAgent(None, bundle=small_bundle.folder, cache=tmp_path) as agent:
        assert agent.is_local


async def test_profile_of_another_runtime(worker: FakeWorker, tmp_path: Path) -> None:
    async with EdgeAgent(worker.address, connect=worker.connect, cache=tmp_path):
        pass
    kept = kept_profile(tmp_path)
    path = tmp_path / "torch.json"
    path.write_text(json.dumps(json.loads(kept.read_text()) | {"runtime": "torch"}))
    with pytest.raises(ProfileError, match="this agent runs onnxruntime"):
        async with EdgeAgent(
            worker.address, connect=worker.connect, auto=AutoPlan(profile=path), cache=tmp_path
        ):
            pass
    path.write_text(json.dumps(json.loads(kept.read_text()) | {"digest": "0" * 64}))
    with pytest.raises(ProfileError, match="is of the bundle"):
        async with EdgeAgent(
            worker.address, connect=worker.connect, auto=AutoPlan(profile=path), cache=tmp_path
        ):
            pass


async def test_probe_finds_the_emulated_link(small_bundle: Bundle, tmp_path: Path) -> None:
    async with (
        Worker([small_bundle.folder], listen="127.0.0.1:0", device="cpu") as worker,
        Relay(worker.address, parse_link("8mbps,30ms")) as relay,
        EdgeAgent(relay.address, split="input", cache=tmp_path) as agent,
    ):
        stream = await agent.session.workers.current.connection.live()
        link = await probe_link(stream, relay.address)
    # A busy machine makes a link slower, never faster.
    assert 4 < link.uplink_mbps < 8.5
    assert 29 < link.round_trip_ms < 60


@pytest.mark.parametrize("ms", [float("nan"), -1.0, float("inf")])
def test_a_worker_whose_times_make_no_sense(ms: float) -> None:
    for info in (
        pb.ModelInfo(segment_ms=[1, ms]),
        pb.ModelInfo(segment_ms=[1, 2], segment_p95_ms=[ms, 1]),
        pb.ModelInfo(segment_ms=[1], decode=[pb.DecodeTime(boundary=0, codec="raw", ms=ms)]),
    ):
        with pytest.raises(PlanError, match="make no sense"):
            cloud_times(info)


@pytest.mark.parametrize(
    ("codec", "words"),
    [
        ("fkt-video@2", "a plan is made for frames by themselves: plan with fkt"),
        ("learned-video", "plan with learned, or name a boundary"),
        ("jepg", "unknown codec 'jepg': choose one of raw"),
        ("learned@1", "learned@1 carries no boundary of .*: see `splitpoint inspect`"),
        ("q4", "or what it loses there is not known"),
    ],
)
async def test_a_codec_in_which_nothing_can_be_sent_is_refused(
    worker: FakeWorker, tmp_path: Path, codec: str, words: str
) -> None:
    """Everything would run on the device, without a word."""
    auto = AutoPlan(link=parse_link("lte"))
    with pytest.raises((PlanError, CodecError), match=words):
        async with EdgeAgent(
            worker.address, connect=worker.connect, auto=auto, codec=codec, cache=tmp_path
        ):
            pass
