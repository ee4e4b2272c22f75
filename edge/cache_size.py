"""Keeps the artifact cache within its size: bundles that were not used for longest go first."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
from pathlib import Path
from typing import BinaryIO

from .errors import CacheError

log = logging.getLogger("splitpoint.edge")

_DIGEST = re.compile(r"[0-9a-f]{64}")


class CacheUse:
    """Says that a bundle's folder in the cache is in use, until it is closed.

    Its last use is the time of the mark `<digest>.used` beside the folder; a lock on the mark keeps
    other agents of this device from removing it.
    """

    def __init__(self, folder: Path) -> None:
        self._mark: BinaryIO | None = None
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            path = folder.with_name(f"{folder.name}.used")
            self._mark = path.open("ab")
            fcntl.flock(self._mark, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.utime(path)
        except BlockingIOError:
            pass  # somebody is removing it just now; what is missing is fetched again
        except OSError as error:
            raise CacheError(
                f"cannot write to the cache {folder.parent} ({error.strerror or error})",
                "free some space, or choose another folder with --cache",
            ) from error

    def close(self) -> None:
        """Others may remove it now."""
        if self._mark is not None:
            self._mark.close()


def shrink(cache: Path, max_bytes: float) -> list[str]:
    """Removes bundles that nobody uses, the oldest first, until the rest has `max_bytes` at most.

    Returns the digests of those that went. What cannot be removed is left, and said.
    """
    bundles = []
    total = 0
    for folder in cache.iterdir() if cache.is_dir() else ():
        if not (folder.is_dir() and _DIGEST.fullmatch(folder.name)):
            continue
        nbytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        mark = folder.with_name(f"{folder.name}.used")
        bundles.append((mark.stat().st_mtime if mark.exists() else 0.0, folder, mark, nbytes))
        total += nbytes
    removed = []
    for _, folder, mark, nbytes in sorted(bundles, key=lambda entry: entry[0]):
        if total <= max_bytes:
            break
        if not _remove(folder, mark):
            continue
        total -= nbytes
        removed.append(folder.name)
        log.info("removed the bundle %s from the cache: %d MB", folder.name[:12], nbytes // 10**6)
    if total > max_bytes:
        log.warning(
            "the cache %s has %d MB, more than the %d allowed: all of it is in use",
            cache, total // 10**6, max_bytes // 10**6,
        )  # fmt: skip
    return removed


def _remove(folder: Path, mark: Path) -> bool:
    """Whether the folder is gone; one that is in use stays."""
    with mark.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
            mark.unlink()
        except BlockingIOError:
            return False
        except OSError as error:
            log.warning("cannot remove %s from the cache (%s)", folder, error.strerror or error)
            return False
    return True
