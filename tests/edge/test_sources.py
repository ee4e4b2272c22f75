"""Files, watched folders and stdin as sources: every frame once, in order, none lost."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from splitpoint.codec import TensorSpec
from splitpoint.edge import Given
from splitpoint.edge.errors import SourceError
from splitpoint.edge.sources.files import FilesSource
from splitpoint.edge.sources.find import find_source
from splitpoint.edge.sources.live import LiveSource
from splitpoint.edge.sources.source import InputFeed, Source
from splitpoint.edge.sources.stdin import PathLines, StdinSource
from splitpoint.edge.sources.watch import OLD_S, SETTLE_S, NewFiles, WatchSource
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.bundle.samples import PICTURE_SUFFIXES
from splitpoint.partition.errors import InputError, PictureError
from splitpoint.partition.picture import PictureInput
from videos import write_video

PICTURE = PictureInput(resize_px=26, height_px=24, width_px=24)
FEED = InputFeed(model="small", specs=(PICTURE.spec,), picture=PICTURE)
IDS = TensorSpec(name="ids", dtype="int64", shape=(1, 4), batch_dim=0)
MASK = TensorSpec(name="mask", dtype="bool", shape=(1, 4), batch_dim=0)
TEXT = InputFeed(model="text", specs=(IDS, MASK), picture=None)


def save(path: Path, grey: int = 0) -> Path:
    Image.new("RGB", (40, 30), (grey,) * 3).save(path)
    return path


async def all_of(source: Source, feed: InputFeed = FEED) -> list[Given]:
    await source.open()
    try:
        return [given async for given in source.frames(feed)]
    finally:
        await source.close()


async def take(frames: AsyncGenerator[Given, None], count: int) -> list[str]:
    return [str((await asyncio.wait_for(anext(frames), 10)).metadata) for _ in range(count)]


def test_arrays_are_treated_as_files_are(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "x.png")
    assert np.array_equal(
        FEED.of_array(rgb, "x").inputs["pixels"],
        FEED.of_file(tmp_path / "x.png").inputs["pixels"],
    )
    for bad in (rgb[..., 0], rgb.astype(np.float32), rgb[:0], None):
        given = FEED.of_array(bad, "camera#7")
        assert isinstance(given.error, PictureError)
        assert str(given.metadata) == "camera#7"


def test_files_are_upright_and_grey_of_16_bits_is_grey(tmp_path: Path) -> None:
    upright = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    )
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(
        FEED.of_file(tmp_path / "turned.png").inputs["pixels"],
        FEED.of_file(tmp_path / "upright.png").inputs["pixels"],
    )
    Image.fromarray(np.full((30, 40), 0x4040, np.uint16)).save(tmp_path / "grey.png")
    assert (FEED.of_file(tmp_path / "grey.png").inputs["pixels"] == 0x40).all()


def ids(value: int) -> np.ndarray:
    return np.full(4, value, np.int64)


def save_ids(path: Path, value: int) -> Path:
    np.savez(path, ids=ids(value), mask=np.ones((1, 4), bool))
    return path


async def test_arrays_as_sources(tmp_path: Path) -> None:
    """A folder, a glob, a file, a path on stdin and a watched folder: the same frames."""
    folder = tmp_path / "in"
    folder.mkdir()
    for value in range(3):
        save_ids(folder / f"{value}.npz", value)
    save(folder / "a.png")  # of a folder, what the model takes
    np.save(folder / "3.npy", ids(3))  # a model of two inputs cannot live on one
    (folder / "4.npz").write_bytes(b"no archive")
    names = [str(folder / name) for name in ("0.npz", "1.npz", "2.npz", "3.npy", "4.npz")]

    def check(found: list[Given], names: list[str]) -> None:
        assert [str(given.metadata) for given in found] == names
        for value, given in enumerate(found[:3]):
            assert given.error is None
            assert given.inputs.keys() == {"ids", "mask"}
            assert np.array_equal(given.inputs["ids"], ids(value)[np.newaxis])
            assert given.inputs["mask"].shape == (1, 4)
        for given, words in zip(found[3:], ("lacks the input 'mask'", "no array"), strict=True):
            assert isinstance(given.error, InputError)
            assert words in str(given.error)

    check(await all_of(find_source(str(folder)), TEXT), names)
    check(await all_of(find_source(str(folder / "*.np*")), TEXT), names)
    assert len(await all_of(find_source(str(folder), repeat=3), TEXT)) == 3 * len(names)
    (one,) = await all_of(find_source(names[1]), TEXT)
    assert np.array_equal(one.inputs["ids"], ids(1)[np.newaxis])
    reader, writer = os.pipe()
    os.write(writer, "\n".join(names).encode())
    os.close(writer)
    check(await all_of(StdinSource(reader), TEXT), names)
    os.close(reader)
    for number, name in enumerate(names):
        os.utime(name, (1000 + number,) * 2)  # moved in whole, long ago
    async with aclosing(find_source(f"watch:{folder}").frames(TEXT)) as frames:
        check([await asyncio.wait_for(anext(frames), 60) for _ in names], names)


async def test_a_folder_gives_what_the_model_takes(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    np.save(tmp_path / "0-logits.npy", np.ones(3))  # such as --save-outputs writes
    source = find_source(str(tmp_path))
    assert [path.name for path in source.examples] == ["a.png"]
    assert [str(given.metadata) for given in await all_of(source)] == [str(tmp_path / "a.png")]
    (tmp_path / "0-logits.npy").unlink()
    with pytest.raises(SourceError, match=r"holds nothing that text takes: .* \.npy \.npz"):
        await all_of(find_source(str(tmp_path)), TEXT)
    (tmp_path / "a.png").unlink()
    with pytest.raises(SourceError, match=r"holds no pictures, \.npy or \.npz"):
        find_source(str(tmp_path))


async def test_pixels_as_an_array(tmp_path: Path) -> None:
    """A picture that is already what the model sees is left as it is."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    np.save(tmp_path / "b.npy", pixels[:20])
    source = find_source(str(tmp_path / "*"))
    assert source.examples == ()
    good, bad = await all_of(source)
    assert np.array_equal(good.inputs["pixels"][0], pixels)
    assert "b.npy: tensor 'pixels' has shape [20, 24, 3]" in str(bad.error)


async def test_pictures_for_a_model_of_arrays(small_bundle: Bundle, tmp_path: Path) -> None:
    assert InputFeed.of(small_bundle.manifest).need_pictures() == small_bundle.manifest.picture
    (failed,) = await all_of(find_source(str(save(tmp_path / "a.png"))), TEXT)
    assert isinstance(failed.error, InputError)
    found = await all_of(find_source(str(write_video(tmp_path / "v.avi", 2))), TEXT)
    assert len(found) == 2
    assert all("text does not take pictures" in str(given.error) for given in found)
    camera = find_source("0")
    with pytest.raises(PictureError, match=r"give it \.npy or \.npz"):
        await anext(camera.frames(TEXT))  # which would fail for ever


async def test_files_in_order_and_again(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg"):
        save(tmp_path / name)
    (tmp_path / "c.jpg").write_bytes(b"no picture")
    write_video(tmp_path / "d.avi", 3)
    source = find_source(str(tmp_path / "*"), repeat=2)
    assert not source.live
    assert [path.name for path in source.examples] == ["a.jpg", "b.png", "c.jpg"]
    found = await all_of(source)
    names = [Path(str(given.metadata)).name for given in found]
    assert names == 2 * ["a.jpg", "b.png", "c.jpg", "d.avi#0", "d.avi#1", "d.avi#2"]
    assert [given.error is None for given in found[:6]] == [True, True, False, True, True, True]


async def test_what_a_source_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = save(tmp_path / "a.png").rename(tmp_path / "photo")
    assert isinstance(find_source(str(picture)), FilesSource)
    video = write_video(tmp_path / "v.avi", 2).rename(tmp_path / "video")
    assert len(await all_of(find_source(str(video)))) == 2
    assert isinstance(find_source("-"), StdinSource)
    assert isinstance(find_source("0"), LiveSource)
    assert find_source("rtsp://somewhere/1").live
    save(tmp_path / "x.png").rename(tmp_path / "2026")
    monkeypatch.chdir(tmp_path)
    assert isinstance(find_source("2026"), FilesSource)
    assert isinstance(find_source(f"watch:{tmp_path}"), WatchSource)
    assert isinstance(find_source(str(tmp_path), watch=True), WatchSource)

    text = tmp_path / "notes"
    text.write_text("no picture")
    with pytest.raises(SourceError, match="neither a picture nor a video"):
        find_source(str(text))
    with pytest.raises(SourceError, match="cannot watch"):
        find_source("watch:nowhere")
    with pytest.raises(SourceError, match="--repeat"):
        find_source("0", repeat=2)
    with pytest.raises(SourceError, match="camera 77 cannot be opened"):
        await all_of(find_source("77"))
    with pytest.raises(PictureError, match="matches no file"):
        find_source("nothing*")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(SourceError, match="no video"):
        await all_of(find_source(str(broken)))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match=r"splitpoint\[video\]"):
        find_source(str(text))


def test_a_file_is_told_when_it_is_complete(tmp_path: Path) -> None:
    now = [os.stat(tmp_path).st_mtime]
    files = NewFiles(tmp_path, PICTURE_SUFFIXES, lambda: now[0])

    def scan(later_s: float) -> list[str]:
        now[0] += later_s
        return [path.name for path in files.scan()]

    growing = tmp_path / "growing.jpg"
    growing.write_bytes(b"1")
    save(tmp_path / ".hidden.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "notes.txt").write_text("no picture")
    assert scan(0) == []
    growing.write_bytes(b"12")
    assert scan(SETTLE_S) == []  # it has changed
    assert scan(SETTLE_S / 2) == []
    assert scan(SETTLE_S) == ["growing.jpg"]
    assert scan(SETTLE_S) == []  # it was told
    # Written elsewhere and moved in: complete at once.
    old = save(tmp_path.parent / "old.png")
    os.utime(old, (now[0] - 2 * OLD_S,) * 2)
    shutil.move(old, tmp_path / "old.png")
    assert scan(0.1) == ["old.png"]
    # Written anew under the same name: a new one.
    growing.write_bytes(b"123")
    assert scan(0) == []
    assert scan(SETTLE_S) == ["growing.jpg"]
    # Away and back: a new one, and nothing is remembered of what is gone.
    growing.unlink()
    assert scan(0) == []
    growing.write_bytes(b"123")
    scan(0)
    assert scan(SETTLE_S) == ["growing.jpg"]


def test_complete_files_come_in_the_order_of_their_last_change(tmp_path: Path) -> None:
    now = os.stat(tmp_path).st_mtime
    for place, name in enumerate(("z", "b", "a", "y")):
        save(tmp_path / f"{name}.png")
        os.utime(tmp_path / f"{name}.png", (now - 100 + place,) * 2)
    assert [path.stem for path in NewFiles(tmp_path, PICTURE_SUFFIXES).scan()] == [
        "z",
        "b",
        "a",
        "y",
    ]


async def test_a_watched_folder_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    save(folder / "first.png")
    source = WatchSource(folder)
    assert [path.name for path in source.examples] == ["first.png"]
    async with aclosing(source.frames(FEED)) as frames:
        assert await take(frames, 1) == [str(folder / "first.png")]
        for i in range(20):
            save(tmp_path / f"{i:02}.png").rename(folder / f"{i:02}.png")
        assert await take(frames, 20) == [str(folder / f"{i:02}.png") for i in range(20)]
        # The folder goes away for a while: one warning, and then on.
        shutil.rmtree(folder)
        coming = asyncio.ensure_future(anext(frames))
        await asyncio.sleep(0.5)
        folder.mkdir()
        save(folder / "again.png")
        assert str((await asyncio.wait_for(coming, 10)).metadata) == str(folder / "again.png")
    assert len(caplog.records) == 1
    assert "cannot look into" in caplog.text


def test_lines_of_a_pipe() -> None:
    reader, writer = os.pipe()
    lines = PathLines(reader)
    os.write(writer, b"a b.png\n\n  \nc.p")
    assert lines.following() == Path("a b.png")
    os.write(writer, "ng\r\nü.png".encode())
    os.close(writer)
    assert [lines.following(), lines.following()] == [Path("c.png"), Path("ü.png")]
    assert lines.following() is None
    os.close(reader)


async def test_stdin_gives_a_frame_a_line(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, f"{save(tmp_path / 'a.png')}\nnowhere.png\n".encode())
    async with aclosing(StdinSource(reader).frames(FEED)) as frames:
        first, second = await anext(frames), await anext(frames)
        assert first.error is None
        assert isinstance(second.error, PictureError)
        # Nobody waits for the line that does not come.
        coming = asyncio.ensure_future(anext(frames))
        await asyncio.sleep(0.05)
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
    os.close(writer)
    os.close(reader)
