"""Functions of a user's as heads: the same on both sides, and on none where nobody allowed them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from local_worker import local_worker
from splitpoint.cloud.worker import Worker
from splitpoint.edge import EdgeAgent, Given, Outcome
from splitpoint.partition.bundle.bundle import open_bundle
from splitpoint.partition.errors import TaskError
from splitpoint.partition.tasks.task import Task
from splitpoint.partition.tasks.user_head import allow_head
from user_heads import compiled, heads_in, net, nobody_allows


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module of heads beside the command, of which none is allowed."""
    with heads_in(tmp_path, monkeypatch):
        yield


ANSWERS = {"boxes": "detect", "regions": "segment", "figures": "raw"}


def expected(name: str, given: torch.Tensor) -> list[dict[str, np.ndarray]]:
    import my_heads  # type: ignore[import-not-found]

    with torch.inference_mode():
        outputs = net()(given).numpy()
    outputs.flags.writeable = False
    return [getattr(my_heads, name)({"output": row}) for row in outputs]


@pytest.mark.parametrize("name", ANSWERS)
async def test_every_split_answers_as_the_function_does(name: str, tmp_path: Path) -> None:
    bundle = compiled(name, ANSWERS[name], tmp_path)
    given = torch.randn(3, 8)
    truth = expected(name, given)
    last = len(bundle.manifest.segments)
    async with local_worker(bundle) as worker:
        for split in range(last + 1):
            async with EdgeAgent(
                worker.address, split=str(split), codec="raw", cache=tmp_path / "cache"
            ) as agent:
                frame = {bundle.manifest.boundaries[0].tensors[0].name: given.numpy()}
                result = await agent.infer(frame)
            assert result.outcome is (Outcome.LOCAL if split == last else Outcome.ANSWERED)
            found = result.outputs
            if name == "boxes":
                assert found["detections"].shape == (3, 100, 6)
                for rows, row in zip(found["detections"], truth, strict=True):
                    wanted = sorted((r for r in row[:2] if r[4] >= 0.05), key=lambda r: -r[4])
                    np.testing.assert_allclose(rows[: len(wanted)], wanted, rtol=1e-4)
                    assert not rows[len(wanted) :].any()
            elif name == "regions":
                np.testing.assert_array_equal(found["classes"], np.stack(truth))
            else:
                assert list(found) == ["best", "spread"]
                assert found["best"].dtype == np.int64
                assert found["best"].tolist() == [one["best"] for one in truth]
                np.testing.assert_allclose(
                    found["spread"], np.stack([one["spread"] for one in truth]), rtol=1e-4
                )


async def test_a_worker_does_not_run_what_was_not_allowed_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = compiled("figures", "raw", tmp_path)
    nobody_allows(monkeypatch)
    opened = open_bundle(bundle.folder)  # the name alone does no harm
    assert opened.manifest.task.head == "my_heads:figures"
    with pytest.raises(
        TaskError, match=r"my_heads:figures, which is not allowed.*--allow-head my_"
    ):
        async with Worker([bundle.folder], listen="127.0.0.1:0", device="cpu"):
            pass
    assert "my_heads" not in sys.modules


async def test_a_device_does_not_run_what_was_not_allowed_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = compiled("figures", "raw", tmp_path)
    async with local_worker(bundle) as worker:
        nobody_allows(monkeypatch)
        with pytest.raises(TaskError, match=r"not allowed here.*--allow-head my_heads:figures"):
            async with EdgeAgent(worker.address, split="1", cache=tmp_path / "cache"):
                pass
    assert "my_heads" not in sys.modules


@pytest.mark.parametrize(("head", "why"), [
    ("picky", "ValueError: too large for me"),
    ("leaves", "SystemExit: 3"),
    ("grows", "returned dict of 'first' float32 [2], and 'first' float32 [1] when it was compiled"),
])  # fmt: skip
async def test_a_frame_at_which_the_function_fails_fails_alone(
    head: str, why: str, tmp_path: Path
) -> None:
    bundle = compiled(head, "raw", tmp_path)
    name = bundle.manifest.boundaries[0].tensors[0].name
    large = 1e9 * torch.randn(50, 8)
    with torch.inference_mode():
        bad = large[net()(large)[:, 0] > 1e6][:1].numpy()
    good = np.zeros((1, 8), np.float32)
    assert len(bad) == 1
    for split in ("0", "local"):
        async with (
            local_worker(bundle) as worker,
            EdgeAgent(
                worker.address,
                split=split,
                codec="raw",
                cache=tmp_path / "cache",
                finish_locally=False,
            ) as agent,
        ):
            frames = [Given(inputs={name: array}) for array in (good, bad, good, bad, good)]
            results = [result async for result in agent.stream(frames)]
        assert [bool(result.outputs) for result in results] == [True, False, True, False, True]
        assert all(result.outcome is Outcome.FAILED for result in results[1::2])
        # What an exception says of the worker's files is for its log.
        said = "the head failed (TaskError)" if split == "0" else why
        assert all(said in str(result.error) for result in results[1::2])


@pytest.mark.parametrize(("name", "kind", "words"), [
    ("bad_boxes", "detect", r"returned float32 \[1, 3\].*return an array \[n, 6\]"),
    ("bad_regions", "segment", r"returned int64 \[2, 2\].*uint8 \[height, width\]"),
    ("bad_figures", "raw", "returned int.*a dict of 1 to 64 arrays"),
    ("fails", "raw", r"fails \(RuntimeError: not today\)"),
])  # fmt: skip
def test_a_function_that_does_not_do_is_said_when_compiling(
    name: str, kind: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(TaskError, match=words):
        compiled(name, kind, tmp_path)
    assert not list(tmp_path.glob("*.split"))


def test_a_module_that_leaves_when_it_is_imported_is_named(tmp_path: Path) -> None:
    (tmp_path / "leaving.py").write_text("import sys; sys.exit(0)")
    with pytest.raises(TaskError, match=r"leaving:head cannot be imported \(SystemExit"):
        allow_head("leaving:head")


HOSTILE = [
    {"answer": [{"name": "a", "dtype": "uint8", "shape": [1, 1 << 20, 1 << 20], "batch_dim": 0}]},
    {"answer": [{"name": "a", "dtype": "float32", "shape": [2, 3], "batch_dim": 0}]},
    {"answer": [{"name": "a", "dtype": "float32", "shape": [1, 3], "batch_dim": 0}] * 2},
    {"answer": [{"name": "a", "dtype": "O", "shape": [1, 3], "batch_dim": 0}]},
    {"answer": "a"},
    {"answer": [5]},
    {"answer": None},
    {"answer": []},
    {"head": "os:system" + "x" * 1000},
    {"head": "os:sys tem"},
    {"head": "os.path"},
    {"head": "..:a"},
    {"head": "my_heads:fails\n"},
    {"head": "my_heads:fails:fails"},
    {"head": "my_heads:__import__('os')"},
    {"head": "my_heads.:fails"},
    {"head": "m\u0443_heads:fails"},  # another alphabet's letter
    {"head": ["my_heads:fails"]},
    {"kind": "classify"},
]


@pytest.mark.parametrize("said", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_manifests_are_refused_and_import_nothing(said: dict[str, object]) -> None:
    answer = [{"name": "a", "dtype": "float32", "shape": [1, 3], "batch_dim": 0}]
    good = Task.of_head("my_heads:fails").to_json() | {"answer": answer}
    assert Task.from_json(good).to_json() == good
    assert Task.from_json(good).open({}, None) is not None
    before = set(sys.modules)
    with pytest.raises(TaskError):
        Task.from_json(good | said).open({}, None)
    assert set(sys.modules) == before


def test_what_is_no_function_is_not_allowed() -> None:
    for name, words in {
        "my_heads": "names no function",
        "my_heads:np": r"is no function \(module\)",
        "my_heads:nothing": "has no function 'nothing'",
        "no_such_module:f": "cannot be imported",
        "my_heads:": "names no function",
        "my_heads:figures\n": "names no function",
    }.items():
        with pytest.raises(TaskError, match=words):
            allow_head(name)
