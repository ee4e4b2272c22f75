"""Videos, cameras and streams: damage is an outcome, a loss is mended, nothing ends by accident."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from patience import PATIENCE_S, until
from rtsp_camera import rtsp_camera
from splitpoint.codec import Array
from splitpoint.edge import EdgeAgent, Given
from splitpoint.edge.errors import SourceError
from splitpoint.edge.sources import find
from splitpoint.edge.sources.files import FilesSource, video_frames
from splitpoint.edge.sources.find import find_source
from splitpoint.edge.sources.live import LiveSource
from splitpoint.edge.sources.opencv import open_stream
from splitpoint.edge.sources.own_thread import OwnThread
from splitpoint.edge.sources.source import InputFeed
from splitpoint.edge.sources.video_file import VideoFile
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.picture import PictureInput
from videos import damage, grey_frames, jpeg, mjpeg_server, write_video

INPUT = PictureInput(resize_px=26, height_px=24, width_px=24)
FEED = InputFeed(model="small", specs=(INPUT.spec,), picture=INPUT)
Script = list[Array | threading.Event | None]


def frames_of(path: Path) -> list[Array | None]:
    video = VideoFile(path)
    try:
        return list(video)
    finally:
        video.close()


@pytest.mark.parametrize(
    ("name", "fourcc"),
    [("v.avi", "MJPG"), ("v.mkv", "MJPG"), ("v.mp4", "mp4v"), ("v.webm", "VP80")],
)
def test_every_frame_of_a_video(tmp_path: Path, name: str, fourcc: str) -> None:
    found = frames_of(write_video(tmp_path / name, 12, fourcc))
    assert len(found) == 12
    for frame, expected in zip(found, grey_frames(12), strict=True):
        assert frame is not None
        assert frame.shape == expected.shape
        assert abs(float(frame.mean()) - float(expected.mean())) < 6


@pytest.mark.parametrize("broken", [[0], [5], [11], [3, 4, 5, 9], [8, 9, 10, 11], list(range(12))])
def test_broken_frames_keep_their_place(tmp_path: Path, broken: list[int]) -> None:
    video = damage(write_video(tmp_path / "v.avi", 12), broken)
    found = frames_of(video)
    assert [place for place, frame in enumerate(found) if frame is None] == broken
    assert len(found) == 12


def test_a_video_that_was_cut_off_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    video = write_video(tmp_path / "v.mkv", 30)
    data = video.read_bytes()
    video.write_bytes(data[: len(data) // 2])
    found = frames_of(video)
    assert 10 < len(found) < 20
    assert "of about 30 frames" in caplog.text


async def test_a_broken_frame_is_a_failed_one_and_the_video_goes_on(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    video = damage(write_video(tmp_path / "v.avi", 12), [2, 7])
    feed = InputFeed.of(small_bundle.manifest)
    async with EdgeAgent(None, bundle=small_bundle.folder, split="local") as agent:
        source = FilesSource([video])
        await source.open()
        results = [result async for result in agent.stream(source.frames(feed))]
    assert [r.outcome.value for r in results] == [
        "failed" if i in (2, 7) else "local" for i in range(12)
    ]
    assert [str(r.metadata) for r in results] == [f"{video}#{i}" for i in range(12)]
    assert "v.avi#7 cannot be decoded" in str(results[7].error)
    assert sum(agent.outcomes.values()) == 12


async def test_a_video_that_is_left_is_closed(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.avi", 12)
    async with aclosing(video_frames(video, FEED)) as frames:
        assert str((await anext(frames)).metadata) == f"{video}#0"
    for thread in threading.enumerate():
        if thread.name == "splitpoint-video":
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


class FakeCapture:
    """Plays a list: an array, None, or an event, until which it hangs before the next."""

    def __init__(self, script: Script) -> None:
        self._script = iter(script)
        self.closed = False

    def read(self) -> Array | None:
        assert not self.closed
        for item in self._script:
            if not isinstance(item, threading.Event):
                return item
            assert item.wait(PATIENCE_S)
        return None

    def close(self) -> None:
        self.closed = True


def fake(
    *scripts: Script, refusals: int = 0
) -> tuple[Callable[[], FakeCapture], list[FakeCapture]]:
    """Opens one script after the other; after the first, so many attempts fail."""
    captures: list[FakeCapture] = []
    left = [refusals]

    def opener() -> FakeCapture:
        if captures and left[0]:
            left[0] -= 1
            raise SourceError("not now")
        captures.append(FakeCapture(scripts[min(len(captures), len(scripts) - 1)]))
        return captures[-1]

    return opener, captures


async def some(source: LiveSource, count: int) -> list[Given]:
    await source.open()
    try:
        async with aclosing(source.frames(FEED)) as frames:
            return [await asyncio.wait_for(anext(frames), PATIENCE_S) for _ in range(count)]
    finally:
        await source.close()


PICTURE, WIDE = np.zeros((30, 40, 3), np.uint8), np.zeros((90, 160, 3), np.uint8)


async def test_sizes_may_change_and_frames_may_break() -> None:
    opener, captures = fake([PICTURE, None, None, WIDE, PICTURE])
    found = await some(LiveSource("camera 0", opener), 5)
    assert [given.error is None for given in found] == [True, False, False, True, True]
    assert [str(given.metadata) for given in found] == [f"camera 0#{i}" for i in range(5)]
    assert all(given.inputs["pixels"].shape == (1, 24, 24, 3) for given in found if not given.error)
    assert captures[0].closed


async def test_frames_that_gathered_while_nobody_read_are_left_behind() -> None:
    """As while a device measures itself: the camera begins anew when its frames are wanted."""
    times_s = iter([0.0, 12.0])
    opener, captures = fake([WIDE] * 9, [PICTURE] * 9)
    found = await some(LiveSource("camera 0", opener, clock=lambda: next(times_s)), 2)
    assert len(captures) == 2
    assert captures[0].closed
    assert [str(given.metadata) for given in found] == ["camera 0#0", "camera 0#1"]


async def test_a_lost_camera_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    opener, captures = fake([PICTURE, PICTURE], [PICTURE] * 9, refusals=3)
    found = await some(LiveSource("camera 0", opener, first_pause_s=0.01), 4)
    assert [str(given.metadata) for given in found] == [f"camera 0#{i}" for i in range(4)]
    assert [capture.closed for capture in captures] == [True, True]
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "camera 0 is lost; opening it again"
    assert said[1].startswith("camera 0 is back after")
    assert len(said) == 2


async def test_a_stall_is_told_once_and_waited_for(caplog: pytest.LogCaptureFixture) -> None:

    async def stalled(last: Array | None, then: Script) -> list[FakeCapture]:
        """Hangs until that is told, and then gives `last`."""
        over = threading.Event()
        opener, captures = fake([PICTURE, over, last], then)
        coming = asyncio.create_task(some(LiveSource("camera 0", opener, stall_s=1.0), 2))
        await until(lambda: "camera 0: no frame for 1 s" in caplog.messages)
        over.set()
        assert len(await coming) == 2
        return captures

    assert len(await stalled(PICTURE, [])) == 1
    assert caplog.messages == ["camera 0: no frame for 1 s"]
    # A stall that ends in a failure is a loss, and the camera is opened again.
    caplog.clear()
    assert len(await stalled(None, [PICTURE])) == 2


async def test_a_camera_that_hangs_does_not_hold_up_the_end() -> None:
    hanging, over = threading.Event(), threading.Event()

    class Hanging(FakeCapture):
        def read(self) -> Array | None:
            hanging.set()
            over.wait(2 * PATIENCE_S)
            return None

    source = LiveSource("camera 0", lambda: Hanging([]), stall_s=2 * PATIENCE_S)
    await source.open()
    async with aclosing(source.frames(FEED)) as frames:
        coming = asyncio.ensure_future(anext(frames))
        await until(hanging.is_set)
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
    await asyncio.wait_for(source.close(), PATIENCE_S)
    over.set()  # it hung until here


async def test_nothing_is_read_that_nobody_asked_for() -> None:
    reads: list[int] = []

    class Counting(FakeCapture):
        def read(self) -> Array | None:
            reads.append(1)
            return PICTURE

    assert len(await some(LiveSource("camera 0", lambda: Counting([])), 3)) == 3
    assert len(reads) == 3


async def test_mjpeg_over_http_breaks_off_and_comes_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def parts(visit: int) -> Iterator[bytes]:
        first = visit < 2  # it is asked for once to see what it is
        for _ in range(10 if first else 1000):
            # The second visit shows another size; nobody may notice that but the picture.
            yield jpeg(0 if first else 100, *((48, 64) if first else (60, 60)))
            time.sleep(0.01)

    with mjpeg_server(parts) as url:
        source = find_source(url)
        assert isinstance(source, LiveSource)
        found = await some(source, 15)
    assert all(given.error is None for given in found)
    assert found[0].inputs["pixels"].mean() < 10
    assert found[-1].inputs["pixels"].mean() > 90
    assert "secret" not in caplog.text + "".join(str(given.metadata) for given in found)
    assert "is back after" in caplog.text


async def test_a_stream_that_stalls_is_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    over = threading.Event()

    def parts(visit: int) -> Iterator[bytes]:
        for _ in range(5 if visit == 0 else 1000):
            yield jpeg(100)
            time.sleep(0.01)
        over.wait(2 * PATIENCE_S)  # and says nothing more

    with mjpeg_server(parts) as url:
        source = LiveSource("camera", partial(open_stream, url, 1.0), stall_s=0.8)
        found = await some(source, 10)
        over.set()
    assert all(given.error is None for given in found)
    said = [record.getMessage() for record in caplog.records]
    assert said[:2] == ["camera: no frame for 0.8 s", "camera is lost; opening it again"]
    assert said[2].startswith("camera is back after")


async def test_rtsp_breaks_off_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    with rtsp_camera([jpeg(8 * i) for i in range(30)], 64, 48) as url:
        source = find_source(url)
        assert source.live
        assert isinstance(source, LiveSource)
        found = await some(source, 40)
    assert all(given.error is None for given in found)
    greys = [float(given.inputs["pixels"].mean()) for given in found]
    assert greys == pytest.approx([8 * (i % 30) for i in range(40)], abs=2)
    assert "is back after" in caplog.text
    assert "secret" not in caplog.text + "".join(str(given.metadata) for given in found)


def test_a_stream_that_does_not_answer() -> None:
    with pytest.raises(SourceError, match=r"127\.0\.0\.1:9/x cannot") as caught:
        open_stream("rtsp://user:secret@127.0.0.1:9/x", timeout_s=2)
    assert "secret" not in str(caught.value)


async def test_frames_and_warnings_of_a_camera_tell_no_password(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener, _ = fake([PICTURE, None, PICTURE])
    monkeypatch.setattr(find, "open_stream", lambda url: opener())
    source = find_source("rtsp://admin:p/secret@cam/s")
    assert isinstance(source, LiveSource)
    found = await some(source, 3)
    assert [str(given.metadata) for given in found] == [f"rtsp://cam/s#{i}" for i in range(3)]
    assert "secret" not in caplog.text + "".join(str(given.error) for given in found)


async def test_a_thread_tells_what_its_calls_raise() -> None:
    thread = OwnThread("test")
    with pytest.raises(ZeroDivisionError):
        await thread.call(lambda: 1 / 0)
    assert await thread.call(lambda: 1) == 1
    closed: list[int] = []
    await thread.end(lambda: closed.append(1))
    assert closed == [1]
