"""A user's head that one side allows and the other does not, in processes of their own."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from local_worker import local_worker
from patience import until
from processes import background
from splitpoint.cloud import bundle_watch
from splitpoint.edge import EdgeAgent, FakeWorker, Outcome
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.errors import TaskError
from user_heads import HEADS, compiled, heads_in, net, nobody_allows
from workers_in_turn import WorkersInTurn

NOT_ALLOWED = r"my_heads:figures, which is not allowed here.*--allow-head my_heads:figures"


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module of heads beside the command, of which none is allowed."""
    with heads_in(tmp_path, monkeypatch):
        yield


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """It names a function that nobody here allows."""
    found = compiled("figures", "raw", tmp_path)
    nobody_allows(monkeypatch)
    return found


async def test_a_device_that_ends_no_frame_needs_no_function(
    bundle: Bundle, tmp_path: Path
) -> None:
    given = torch.randn(1, 8)
    frame = {bundle.manifest.boundaries[0].tensors[0].name: given.numpy()}
    functions: dict[str, object] = {}
    exec(HEADS, functions)
    with torch.inference_mode():
        row = net()(given).numpy()[0]
    truth = functions["figures"]({"output": row})  # type: ignore[operator]
    serve = ["serve", str(bundle.folder), "--listen", "127.0.0.1:0", "--device", "cpu"]
    with background([*serve, "--allow-head", "my_heads:figures"], cwd=tmp_path) as address:
        options = {"codec": "raw", "cache": tmp_path / "cache"}
        async with EdgeAgent(address, split="1", finish_locally=False, **options) as agent:  # type: ignore[arg-type]
            result = await agent.infer(frame)
        assert result.outcome is Outcome.ANSWERED
        assert result.outputs["best"].tolist() == [truth["best"]]
        np.testing.assert_allclose(result.outputs["spread"][0], truth["spread"], rtol=1e-5)
        for more in (
            {"split": "1"}, {"split": "auto", "finish_locally": False},
            {"split": "local", "finish_locally": False},
        ):  # fmt: skip
            with pytest.raises(TaskError, match=NOT_ALLOWED):
                async with EdgeAgent(address, **options, **more):  # type: ignore[arg-type]
                    pass
    assert "my_heads" not in sys.modules


async def test_of_a_folder_the_others_are_served(
    bundle: Bundle,
    small_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(bundle_watch, "EVERY_S", 0.02)
    (tmp_path / "models").mkdir()
    shutil.copytree(small_bundle.folder, tmp_path / "models" / "small.split")
    async with local_worker(watch=tmp_path / "models") as worker:
        shutil.copytree(bundle.folder, tmp_path / "models" / "figures.split")
        await until(lambda: "figures.split is not served" in caplog.text)
        assert worker.models.keys() == {small_bundle.digest}
    assert "--allow-head my_heads:figures" in caplog.text
    assert "my_heads" not in sys.modules


async def test_a_newer_model_with_such_a_head_is_not_fetched_and_frames_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    newer = compiled("figures", "raw", tmp_path)
    nobody_allows(monkeypatch)
    older = compiled("picky", "raw", tmp_path)
    frame = {older.manifest.boundaries[0].tensors[0].name: np.zeros((1, 8), np.float32)}
    turns = WorkersInTurn(FakeWorker(older))
    async with EdgeAgent(
        turns.worker.address, connect=turns.connect, split="1", codec="raw", cache=tmp_path / "c"
    ) as agent:
        await agent.settled()
        await agent.infer(frame)
        turns.replace(FakeWorker(newer))
        with caplog.at_level(logging.WARNING):
            for _ in range(1000):
                assert (await agent.infer(frame)).outputs
                if "not allowed here" in caplog.text:
                    break
                await asyncio.sleep(0.01)
        assert agent.digest == older.digest
        assert (await agent.infer(frame)).outcome is Outcome.LOCAL
    assert "the device goes on with" in caplog.text
    assert "which is fetched" not in caplog.text
