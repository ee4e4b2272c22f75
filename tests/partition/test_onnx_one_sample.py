"""ONNX graphs that take one sample at a time: bundles say so, and nobody batches them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command import Command
from local_worker import local_worker
from onnx_graphs import WEIGHT, graph, ints, node, onnxruntime_answers
from splitpoint.codec import SpecError
from splitpoint.edge import EdgeAgent, Outcome
from splitpoint.partition.bundle.bundle import Bundle, open_bundle
from splitpoint.partition.capture.capture import capture
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.errors import PlanError
from splitpoint.partition.models.find import load_model

# A convolution, and sums over the batch: its sample must be alone.
MIXES = [
    node("Conv", "x", "w", to="a"),
    node("Relu", "a", to="b"),
    node("ReduceMean", "b", axes=[0], name="mean", to="c"),
    node("Add", "b", "c"),
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("alone")
    path = graph(MIXES, folder / "m.onnx", (1, 3, 6, 6), weights={"w": WEIGHT})
    return compile_model(load_model(path), folder / "m.split", boundaries=3)


@pytest.fixture
def sample() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((1, 3, 6, 6)).astype(np.float32)


def test_the_bundle_says_so(bundle: Bundle, command: Command) -> None:
    boundaries = open_bundle(bundle.folder).manifest.boundaries
    assert all(boundary.one_sample for boundary in boundaries)
    done = command("inspect", bundle.folder)
    assert "takes one sample at a time" in done.stdout
    assert done.returncode == 0
    assert '"one_sample": true' in command("inspect", bundle.folder, "--json").stdout


def test_compile_says_why_and_calibrates(tmp_path: Path, command: Command) -> None:
    path = graph(MIXES, tmp_path / "m.onnx", (1, 3, 6, 6), weights={"w": WEIGHT})
    (tmp_path / "typical").mkdir()
    for number in range(8):
        values = np.random.default_rng(number).standard_normal((3, 6, 6)).astype(np.float32)
        np.save(tmp_path / "typical" / f"{number:02}.npy", values)
    done = command(
        "compile", path, "--out", tmp_path / "m.split", "--calibrate", tmp_path / "typical",
        "--int8", "--boundaries", 3,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert open_bundle(tmp_path / "m.split").manifest.boundaries[1].ladder
    (line,) = [line for line in done.stderr.splitlines() if "one sample at a time" in line]
    assert "the output 'y' mixes the samples of a batch" in line
    assert "dynamic_axes" in line


async def test_frames_of_one_sample_are_answered_and_others_refused(
    bundle: Bundle, sample: np.ndarray, tmp_path: Path
) -> None:
    (expected,) = onnxruntime_answers(str(bundle.folder.parent / "m.onnx"), x=sample)
    async with local_worker(bundle) as worker:
        (model,) = worker.models.values()
        assert model.batch_times.max_batch == 1
        for split in range(len(bundle.manifest.boundaries)):
            async with EdgeAgent(
                worker.address, split=str(split), codec="raw", cache=tmp_path
            ) as agent:
                frames = [await agent.infer({"x": sample}) for _ in range(2)]
                with pytest.raises(SpecError, match=r"\[2, 3, 6, 6\].* one sample at a time"):
                    await agent.infer({"x": np.concatenate([sample, sample])})
            for frame in frames:
                assert frame.outcome in (Outcome.ANSWERED, Outcome.LOCAL)
                np.testing.assert_allclose(frame.outputs["y"], expected, rtol=1e-4, atol=1e-5)


def test_a_profile_has_no_batches(bundle: Bundle, command: Command) -> None:
    done = command("profile", bundle.folder, "--batch", "1,2")
    assert done.returncode == 1
    assert "takes one sample at a time" in done.stderr
    assert PlanError.__name__ not in done.stderr


def test_states_beside_the_samples(tmp_path: Path) -> None:
    """A step of a recurrent net: nothing is dimension 0 of all inputs."""
    draw = np.random.default_rng(0)
    weights = {
        "w": draw.standard_normal((1, 16, 3)).astype(np.float32),
        "r": draw.standard_normal((1, 16, 4)).astype(np.float32),
        "one": ints(1),
    }
    nodes = [
        node("LSTM", "x", "w", "r", "", "", "h", "c", hidden_size=4, to="steps - state"),
        node("Squeeze", "steps", "one"),
    ]
    path = graph(
        nodes, tmp_path / "m.onnx", (5, 1, 3), weights=weights,
        others={"h": (1, 1, 4), "c": (1, 1, 4)}, outputs=("y", "state"),
    )  # fmt: skip
    spec = load_model(path)
    assert spec.one_sample
    manifest = compile_model(spec, tmp_path / "m.split").manifest
    assert [s.shape for s in manifest.boundaries[0].tensors] == [(5, 1, 3), (1, 1, 4), (1, 1, 4)]
    assert manifest.max_relative_error < 1e-4


def test_a_graph_without_any_batch(tmp_path: Path) -> None:
    """Ten frames of sound, each compared with all."""
    nodes = [node("Transpose", "x", perm=[1, 0], to="t"), node("MatMul", "x", "t")]
    spec = load_model(graph(nodes, tmp_path / "m.onnx", (10, 4)))
    model = capture(spec.module, spec.args, spec.kwargs, one_sample=spec.one_sample)
    assert [s.shape for s in model.graph.cuts[-1].tensors] == [(10, 10)]
