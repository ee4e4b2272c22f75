"""Frames from files: image and array files one each, videos all of theirs."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

from splitpoint.codec import Array
from splitpoint.partition.bundle.input_files import ARRAY_SUFFIXES
from splitpoint.partition.bundle.samples import PICTURE_SUFFIXES
from splitpoint.partition.photo import is_picture

from ..errors import SourceError
from ..given import Given
from .opencv import quiet_opencv
from .own_thread import OwnThread
from .source import InputFeed
from .video_file import VideoFile

_VIDEOS = "3gp avi flv h264 h265 hevc m4v mjpeg mjpg mkv mov mp4 mpeg mpg ogv ts webm wmv"
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEOS.split())


class FilesSource:
    """Files in their order, `repeat` times. It waits for its reader and loses nothing."""

    live = False

    def __init__(self, paths: Sequence[Path], repeat: int = 1) -> None:
        self._videos = {path for path in paths if is_video(path)}
        self._paths, self._repeat = list(paths), repeat
        others = self._videos.union(p for p in paths if p.suffix.lower() in ARRAY_SUFFIXES)
        self.examples = tuple(path for path in paths if path not in others)

    async def open(self) -> None:
        """Opens every video for once; `SourceError` where one is none."""
        if self._videos:
            quiet_opencv()
        for path in sorted(self._videos):
            await asyncio.to_thread(check_video, path)

    async def close(self) -> None:
        """There is nothing left open."""

    async def frames(self, feed: InputFeed) -> AsyncGenerator[Given, None]:
        """A file, or a frame of a video, that cannot be decoded is a failed frame."""
        for _ in range(self._repeat):
            for path in self._paths:
                if path not in self._videos:
                    yield await asyncio.to_thread(feed.of_file, path)
                    continue
                async with aclosing(video_frames(path, feed)) as frames:
                    async for given in frames:
                        yield given


async def video_frames(path: Path, feed: InputFeed) -> AsyncGenerator[Given, None]:
    """All frames of a video, called `video.mp4#0` and so on."""
    thread = OwnThread("splitpoint-video")
    video = await thread.call(lambda: VideoFile(path))
    try:
        frames = enumerate(video)

        def following() -> Given | None:
            found: tuple[int, Array | None] | None = next(frames, None)
            return None if found is None else feed.of_array(found[1], f"{path}#{found[0]}")

        while (given := await thread.call(following)) is not None:
            yield given
    finally:
        await thread.end(video.close)


def is_video(path: Path) -> bool:
    """By its suffix, or, where that says nothing, by looking; `SourceError` if it is neither."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES | PICTURE_SUFFIXES | ARRAY_SUFFIXES:
        return suffix in VIDEO_SUFFIXES
    if is_picture(path):
        return False
    if importlib.util.find_spec("cv2") is None:
        raise SourceError(f"{path} is no picture", 'for videos: pip install "splitpoint[video]"')
    quiet_opencv()
    try:
        check_video(path)
    except SourceError:
        raise SourceError(f"{path} is neither a picture nor a video", "give another") from None
    return True


def check_video(path: Path) -> None:
    """Raises `SourceError` for a file that is no video."""
    VideoFile(path).close()
