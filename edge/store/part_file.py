"""A download on its way to its place in the cache. All of it blocks: call it from a thread."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from pathlib import Path
from typing import BinaryIO

from splitpoint.partition.bundle.bundle_file import File

from ..errors import CacheError


class PartFile:
    """Bytes that are written beside `path`, by nobody else, until they are whole.

    `close` it, whether or not it was opened. Raises `CacheError`, and `OSError` where the disk
    cannot be written.
    """

    def __init__(self, path: Path, file: File) -> None:
        self._path, self._file = path, file
        self._part: Path | None = None
        self._stream: BinaryIO | None = None
        self._sha256 = hashlib.sha256()
        self.nbytes = 0  # that are here

    def open(self) -> None:
        """Goes on from what an earlier download left behind, if there is any."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._part, self._stream = _open_part(self._path)
        if self._stream.seek(0, os.SEEK_END) > self._file.nbytes:
            self._stream.truncate(0)
        self._stream.seek(0)
        while chunk := self._stream.read(1 << 20):
            self._sha256.update(chunk)
            self.nbytes += len(chunk)

    def write(self, data: bytes) -> None:
        """Adds what came."""
        assert self._stream is not None, "open it first"
        self.nbytes += len(data)
        if self.nbytes > self._file.nbytes:
            raise CacheError(f"the worker sends more than {self._file.nbytes} bytes")
        self._stream.write(data)
        self._sha256.update(data)

    def finish(self) -> os.stat_result:
        """Puts the file into its place, once it is on the disk and has the right digest."""
        assert self._part is not None, "open it first"
        assert self._stream is not None
        self._stream.flush()
        os.fsync(self._stream.fileno())
        if self.nbytes != self._file.nbytes:
            raise CacheError(
                f"the download of {self._part.name} ended at {self.nbytes} of "
                f"{self._file.nbytes} bytes",
                "try again: it goes on from there",
            )
        found = self._sha256.hexdigest()
        if found != self._file.sha256:
            self._part.unlink()
            raise CacheError(
                f"the worker sent {self._path.name} with digest {found[:12]}, "
                f"not {self._file.sha256[:12]}",
                "its bundle changed or is damaged: compile it again and restart the worker",
            )
        self._part.replace(self._path)
        _sync_folder(self._path.parent)
        return os.fstat(self._stream.fileno())

    def close(self) -> None:
        """Others may go on with what is here."""
        if self._stream is not None:
            self._stream.close()


def is_at(stream: BinaryIO, path: Path) -> bool:
    """Whether an open file still is the one at `path`.

    Who locks a file cannot know without looking: it may have been renamed or removed, and another
    one put in its place, between opening and locking it.
    """
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _open_part(path: Path) -> tuple[Path, BinaryIO]:
    """A partial file that nobody else writes: one that was left behind, or a new one.

    A lock says whether its writer lives; process numbers do not, across containers.
    """
    while True:  # others may find a new one before it is locked, and take it
        mine = path.with_name(f"{path.name}.part-{secrets.token_hex(4)}")
        for part in [*sorted(path.parent.glob(f"{path.name}.part-*")), mine]:
            stream = part.open("a+b")
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if is_at(stream, part):  # its writer may have finished and renamed it just now
                    return part, stream
            except BlockingIOError:
                pass
            stream.close()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
