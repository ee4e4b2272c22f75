"""Files of the cache: fetched once, hashed once, and never on the event loop."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S, until
from splitpoint.edge.store import cache as cache_module
from splitpoint.edge.store import cache_size as cache_size_module
from splitpoint.edge.store.cache import BundleCache
from splitpoint.edge.store.cache_size import CacheUse, shrink
from splitpoint.edge.store.part_file import PartFile
from splitpoint.partition.bundle.bundle_file import File

DATA = bytes(range(256)) * 64
FILE = File(sha256=hashlib.sha256(DATA).hexdigest(), nbytes=len(DATA))
NAME, DIGEST = "segments/00.safetensors", "d" * 64


class Fetches:
    """Gives `DATA` in pieces, and knows how often it was asked and from where."""

    def __init__(self) -> None:
        self.offsets: list[int] = []

    async def __call__(self, digest: str, sha256: str, offset: int) -> AsyncIterator[bytes]:
        self.offsets.append(offset)
        for at in range(offset, len(DATA), 4096):
            await asyncio.sleep(0)
            yield DATA[at : at + 4096]


@pytest.fixture
def fetches() -> Fetches:
    return Fetches()


@pytest.fixture
def cache(tmp_path: Path, fetches: Fetches) -> BundleCache:
    return BundleCache(tmp_path, DIGEST, fetches)


class Blocks:
    """A slow disk: a call goes on when it is let, for which the event loop must be there."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work, self._let = work, threading.Event()
        self.calls, self.reached = 0, threading.Event()

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        self.reached.set()
        assert self._let.wait(5), "the event loop stands still"
        return self._work(*args)

    async def while_it_blocks(self, getting: Awaitable[Any]) -> Any:
        running = asyncio.ensure_future(getting)
        while not self.reached.is_set():
            await asyncio.sleep(0)
            if running.done():
                break
        for _ in range(100):  # the loop goes round while the disk is at it
            await asyncio.sleep(0)
        assert not running.done()
        self._let.set()
        return await running


async def test_the_loop_goes_on_while_a_file_is_synced(
    cache: BundleCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Blocks(os.fsync)
    monkeypatch.setattr(os, "fsync", slow)
    path = await slow.while_it_blocks(cache.get(NAME, FILE))
    assert path.read_bytes() == DATA


async def test_the_loop_goes_on_while_a_file_is_hashed(
    cache: BundleCache, fetches: Fetches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cache.get(NAME, FILE)
    slow = Blocks(cache_module.file_sha256)
    monkeypatch.setattr(cache_module, "file_sha256", slow)
    await slow.while_it_blocks(BundleCache(tmp_path, DIGEST, fetches).get(NAME, FILE))


async def test_the_loop_goes_on_while_a_file_is_written(
    cache: BundleCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Blocks(PartFile.write)
    monkeypatch.setattr(PartFile, "write", lambda self, data: slow(self, data))
    path = await slow.while_it_blocks(cache.get(NAME, FILE))
    assert path.read_bytes() == DATA


async def test_a_file_is_hashed_once_and_again_when_it_has_changed(
    cache: BundleCache, fetches: Fetches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    real = cache_module.file_sha256

    def counted(stream: Any) -> str:
        hashed.append(stream.name)
        return real(stream)

    monkeypatch.setattr(cache_module, "file_sha256", counted)
    path = await cache.get(NAME, FILE)
    for _ in range(3):
        await cache.get(NAME, FILE)
    assert hashed == []  # while it came
    again = BundleCache(tmp_path, DIGEST, fetches)  # as the agent's next start
    for _ in range(3):
        await again.get(NAME, FILE)
    assert len(hashed) == 1
    assert fetches.offsets == [0]
    before = path.stat()
    path.write_bytes(bytes(len(DATA)))  # of the same size, and with the old time
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (await again.get(NAME, FILE)).read_bytes() == DATA
    assert fetches.offsets == [0, 0]
    path.unlink()
    assert (await again.get(NAME, FILE)).read_bytes() == DATA


async def test_what_two_ask_for_at_once_is_fetched_once(
    cache: BundleCache, fetches: Fetches
) -> None:
    await asyncio.gather(*(cache.get(NAME, FILE) for _ in range(3)))
    assert fetches.offsets == [0]


async def test_a_download_that_is_cancelled_is_resumed(
    cache: BundleCache, fetches: Fetches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the disk was just written to: the file is closed after that, and not in it."""
    writes = 0
    real = PartFile.write

    def write(self: PartFile, data: bytes) -> None:
        nonlocal writes
        writes += 1
        real(self, data)

    monkeypatch.setattr(PartFile, "write", write)
    getting = asyncio.create_task(cache.get(NAME, FILE))
    for _ in range(10_000):
        if writes:
            break
        await asyncio.sleep(0.001)
    getting.cancel()
    await asyncio.gather(getting, return_exceptions=True)
    assert getting.cancelled()
    before = writes
    assert (await cache.get(NAME, FILE)).read_bytes() == DATA
    assert fetches.offsets in ([0], [0, 4096 * before])
    assert [path.name for path in (cache.folder / "segments").iterdir()] == ["00.safetensors"]


async def test_a_download_that_is_cancelled_twice(
    cache: BundleCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file stays open for as long as it is written to."""
    real, writing, go_on, closed = PartFile.write, threading.Event(), threading.Event(), list[int]()

    def write(self: PartFile, data: bytes) -> None:
        writing.set()
        go_on.wait(PATIENCE_S)
        real(self, data)

    close = PartFile.close
    monkeypatch.setattr(PartFile, "write", write)
    monkeypatch.setattr(PartFile, "close", lambda self: closed.append(1) or close(self))
    getting = asyncio.create_task(cache.get(NAME, FILE))
    await until(writing.is_set)
    for _ in range(2):
        getting.cancel()
        await asyncio.sleep(0.05)
    assert not closed
    go_on.set()
    await asyncio.gather(getting, return_exceptions=True)
    assert getting.cancelled()
    assert closed


def test_a_part_that_was_renamed_between_opening_and_locking_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer has finished: what is added now would spoil a whole file."""
    path = tmp_path / "00.onnx"
    left = tmp_path / "00.onnx.part-0"
    left.write_bytes(DATA)
    real = Path.open

    def opens(self: Path, *args: Any, **kwargs: Any) -> Any:
        stream = real(self, *args, **kwargs)
        if self == left and not path.exists():
            left.rename(path)
            left.touch()  # somebody else has opened it again
        return stream

    monkeypatch.setattr(Path, "open", opens)
    part = PartFile(path, FILE)
    part.open()
    assert part.nbytes == 0
    part.write(b"x")
    part.close()
    assert path.read_bytes() == DATA


def _bundle(cache: Path, digest: str) -> Path:
    folder = cache / digest
    (folder / "segments").mkdir(parents=True)
    (folder / "segments" / "00.onnx").write_bytes(bytes(1000))
    return folder


def test_a_mark_that_goes_between_opening_and_locking_is_not_the_one_that_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another agent removes the bundle just then: its lock would be on a file without a name."""
    folder = _bundle(tmp_path, DIGEST)
    real = Path.open
    removed: list[list[str]] = []

    def opens(self: Path, *args: Any, **kwargs: Any) -> Any:
        stream = real(self, *args, **kwargs)
        if self.suffix == ".used" and not removed:
            removed.append([])
            removed[0] = shrink(tmp_path, 0)
        return stream

    monkeypatch.setattr(Path, "open", opens)
    use = CacheUse(folder)
    assert removed == [[DIGEST]]
    _bundle(tmp_path, DIGEST)
    assert shrink(tmp_path, 0) == []  # it is in use
    use.close()
    assert shrink(tmp_path, 0) == [DIGEST]


@pytest.mark.parametrize("when", ["looking", "removing"])
def test_two_agents_shrink_one_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    """The other is quicker: at every file that this one looks at, and before it removes any."""
    for digest in ("a" * 64, "b" * 64):
        _bundle(tmp_path, digest)
        CacheUse(tmp_path / digest).close()
    other: list[str] = []
    begun = False
    seam, name = (Path, "stat") if when == "looking" else (cache_size_module, "remove")
    real = getattr(seam, name)

    def late(self: Path, *args: Any, **kwargs: Any) -> Any:
        nonlocal begun
        if not begun and (when == "removing" or self.suffix == ".onnx"):
            begun = True
            other.extend(shrink(tmp_path, 0))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(seam, name, late)
    mine = shrink(tmp_path, 0)
    assert begun
    assert {*mine, *other} == {"a" * 64, "b" * 64}
    assert [path.name for path in tmp_path.iterdir()] == []
    assert "cannot remove" not in caplog.text
