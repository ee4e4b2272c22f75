"""The cache stays within its size, and nothing that is in use goes."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from splitpoint.edge import EdgeAgent, FakeWorker, Outcome
from splitpoint.edge.errors import CacheError
from splitpoint.edge.store.cache_size import CacheUse, shrink
from splitpoint.partition.bundle.bundle import Bundle

OLD, MIDDLE, NEW = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Three bundles of 1,000 bytes, and files that are nobody's business."""
    for age, digest in enumerate((NEW, MIDDLE, OLD)):
        (tmp_path / digest / "segments").mkdir(parents=True)
        (tmp_path / digest / "segments" / "00.onnx").write_bytes(bytes(1000))
        mark = tmp_path / f"{digest}.used"
        mark.touch()
        os.utime(mark, (1e9 - 1000 * age, 1e9 - 1000 * age))
    (tmp_path / "profile-1.json").write_bytes(bytes(5000))
    (tmp_path / "mine").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("most", "gone"), [(3000, []), (2999, [OLD]), (1500, [OLD, MIDDLE]), (0, [OLD, MIDDLE, NEW])]
)
def test_the_oldest_go_first(cache: Path, most: int, gone: list[str]) -> None:
    assert shrink(cache, most) == gone
    for digest in (OLD, MIDDLE, NEW):
        assert (cache / digest).exists() == (digest not in gone)
    assert (cache / "profile-1.json").exists()
    assert (cache / "mine").exists()


def test_a_bundle_on_a_read_only_disk_is_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_to_open_marks(errno.EROFS, monkeypatch)
    CacheUse(cache / MIDDLE).close()
    with pytest.raises(CacheError, match="make it writable, or choose another"):
        CacheUse(cache / ("d" * 64))


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(errno.ENOSPC, "free some space"), (errno.EACCES, "make it writable")],
)
def test_a_disk_that_cannot_be_written(
    code: int, remedy: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_open_marks(code, monkeypatch)
    with pytest.raises(CacheError, match=remedy):
        CacheUse(cache / MIDDLE)


def refuse_to_open_marks(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def refused(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.suffix == ".used":
            raise OSError(code, os.strerror(code))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refused)


def test_what_is_in_use_stays(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    use = CacheUse(cache / MIDDLE)  # which makes it the newest, too
    assert shrink(cache, 0) == [OLD, NEW]
    assert (cache / MIDDLE / "segments" / "00.onnx").exists()
    assert "all of it is in use" in caplog.text
    use.close()
    assert shrink(cache, 0) == [MIDDLE]


def test_no_cache_is_small_enough(tmp_path: Path) -> None:
    assert shrink(tmp_path / "none", 0) == []


def agent_of(worker: FakeWorker, cache: Path, *, max_cache_mb: float) -> EdgeAgent:
    return EdgeAgent(
        worker.address, connect=worker.connect, split="1", codec="raw", cache=cache,
        max_cache_mb=max_cache_mb,
    )  # fmt: skip


async def test_an_agent_makes_room_for_its_own(
    worker: FakeWorker, small_bundle: Bundle, pixels: np.ndarray, cache: Path
) -> None:
    async with agent_of(worker, cache, max_cache_mb=0.1) as agent:
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
        assert shrink(cache, 0) == [OLD, MIDDLE, NEW]  # its own is in use
    assert shrink(cache, 0) == [small_bundle.digest]


async def test_an_agent_removes_what_is_too_much(
    worker: FakeWorker, pixels: np.ndarray, cache: Path
) -> None:
    async with agent_of(worker, cache, max_cache_mb=0.001) as agent:
        assert not (cache / OLD).exists()
        assert not (cache / NEW).exists()
        assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
