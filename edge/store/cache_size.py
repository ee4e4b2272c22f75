"""Keeps the artifact cache within its size: bundles that were not used for longest go first."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import CacheError
from .part_file import is_at

log = logging.getLogger("splitpoint.edge")

FOLDER_NAME = re.compile(r"[0-9a-f]{64}")


class CacheUse:
    """Says that a bundle's folder in the cache is in use, until it is closed.

    Its last use is the time of the mark `<digest>.used` beside the folder; a lock on the mark keeps
    other agents of this device from removing it. Waits while one of them does: call it in a thread.
    What lies on a read-only file system cannot be removed, and needs no mark.
    """

    def __init__(self, folder: Path) -> None:
        self._mark: BinaryIO | None = None
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            path = mark_of(folder)
            self._mark = _locked(path, fcntl.LOCK_SH)
            os.utime(path)
        except OSError as error:
            if error.errno != errno.EROFS or not folder.is_dir():
                raise cannot_write(folder.parent, error) from error

    def close(self) -> None:
        """Others may remove it now."""
        if self._mark is not None:
            self._mark.close()


def cannot_write(folder: Path, error: OSError) -> CacheError:
    """That, and what to do."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return CacheError(
        f"cannot write to the cache {folder} ({error.strerror or error})",
        f"{'free some space' if full else 'make it writable'}, "
        "or choose another folder with --cache",
    )


def shrink(cache: Path, max_bytes: float) -> list[str]:
    """Removes bundles that nobody uses, the oldest first, until the rest has `max_bytes` at most.

    Returns the digests of those that went. What cannot be removed is left, and said. Other agents
    may shrink the same cache meanwhile.
    """
    bundles = []
    total = 0
    for folder in cache.iterdir() if cache.is_dir() else ():
        if not (folder.is_dir() and FOLDER_NAME.fullmatch(folder.name)):
            continue
        nbytes = nbytes_in(folder)
        mark = mark_of(folder)
        bundles.append((used_s(mark), folder, mark, nbytes))
        total += nbytes
    removed = []
    for _, folder, mark, nbytes in sorted(bundles, key=lambda entry: entry[0]):
        if total <= max_bytes:
            break
        if folder.exists():  # or another agent has removed it
            if not remove(folder, mark):
                continue
            removed.append(folder.name)
            log.info(
                "removed the bundle %s from the cache: %d MB", folder.name[:12], nbytes // 10**6
            )
        total -= nbytes
    if total > max_bytes:
        log.warning(
            "the cache %s has %d MB, more than the %d allowed: all of it is in use",
            cache, total // 10**6, max_bytes // 10**6,
        )  # fmt: skip
    return removed


def mark_of(folder: Path) -> Path:
    """What says when the bundle in `folder` was used last, and whether it is now."""
    return folder.with_name(f"{folder.name}.used")


def nbytes_in(folder: Path) -> int:
    """Of all files in a folder, those left out that go while they are counted."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(place, name).stat().st_size
    return total


def used_s(mark: Path) -> float:
    """When it was used last, in seconds since 1970; 0 where nothing says so."""
    try:
        return mark.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def remove(folder: Path, mark: Path) -> bool:
    """Whether the folder is gone; one that is in use stays."""
    try:
        with _locked(mark, fcntl.LOCK_EX | fcntl.LOCK_NB):
            with suppress(FileNotFoundError):  # another agent was quicker
                shutil.rmtree(folder)
            mark.unlink()
    except BlockingIOError:
        return False
    except OSError as error:
        log.warning("cannot remove %s from the cache (%s)", folder, error.strerror or error)
        return False
    return True


def _locked(mark: Path, how: int) -> BinaryIO:
    """The mark, which is made where it is missing, with a lock on it.

    Who removes a bundle removes its mark while holding the lock. Who was waiting for that has a
    lock on a file that nobody finds any more, and takes the new one.
    """
    while True:
        stream = mark.open("ab")
        try:
            fcntl.flock(stream, how)
            if is_at(stream, mark):
                return stream
        except BaseException:
            stream.close()
            raise
        stream.close()
