"""A folder whose bundles are served: those that appear, until they vanish.

A bundle is tried once its files have not changed from one look to the next, and again only when
they change: one that is being copied is not damaged, and one that is damaged is told of once.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from splitpoint.codec import SplitpointError
from splitpoint.partition.bundle.bundle import DIGEST

log = logging.getLogger("splitpoint.cloud")

EVERY_S = 1.0
SUFFIX = ".split"
Signature = tuple[tuple[str, int, int], ...]
"""Path, bytes and time of change of each file."""


@dataclass(slots=True)
class _Seen:
    """What is known of one folder; `digest` is of the bundle that is served from it."""

    signature: Signature
    tried: bool = False
    digest: str | None = None


class BundleWatch:
    """Calls `add` with folders that hold a bundle and `remove` with digests that no folder holds.

    `add` returns the digest of what it serves now; what it raises becomes a line in the log.
    """

    def __init__(
        self,
        folder: Path,
        add: Callable[[Path], Awaitable[str]],
        remove: Callable[[str], Awaitable[None]],
    ) -> None:
        self._folder, self._add, self._remove = folder, add, remove
        self._seen: dict[Path, _Seen] = {}
        self._readable = True

    async def run(self) -> None:
        """Looks again and again until it is cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.look()

    async def look(self, *, first: bool = False) -> None:
        """One look at the folder; the `first` one takes bundles as it finds them."""
        try:
            found = await asyncio.to_thread(signatures, self._folder)
        except OSError as error:
            if self._readable:  # what is served stays: a share that is away for a moment comes back
                log.warning("%s cannot be read: %s", self._folder, error.strerror or error)
            self._readable = False
            return
        self._readable = True
        before = self._served()
        for path in self._seen.keys() - found.keys():
            del self._seen[path]
        for path, signature in sorted(found.items()):
            seen = self._seen.get(path)
            if seen is None or seen.signature != signature:
                digest = seen.digest if seen else None
                seen = self._seen[path] = _Seen(signature, digest=digest)
                if not first:
                    continue
            if not seen.tried:
                seen.tried = True
                await self._try(path, seen)
        for digest in before - self._served():
            await self._remove(digest)

    async def _try(self, path: Path, seen: _Seen) -> None:
        try:
            seen.digest = await self._add(path)
        except Exception as error:  # noqa: BLE001 - runtimes raise what they like; the others go on
            known = isinstance(error, SplitpointError)
            why = str(error) if known else f"{type(error).__name__}: {error}"
            log.warning("%s is not served: %s", path, " ".join(why.split())[:300])

    def _served(self) -> set[str]:
        return {seen.digest for seen in self._seen.values() if seen.digest is not None}


def signatures(folder: Path) -> dict[Path, Signature]:
    """What the bundles in `folder` consist of: folders named `*.split` whose digest is written.

    Raises `OSError` when `folder` cannot be read.
    """
    found = {}
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if entry.name.endswith(SUFFIX) and (path / DIGEST).is_file():
            signature = _signature(path)
            if signature:
                found[path] = signature
    return found


def _signature(bundle: Path) -> Signature:
    """Empty for a bundle that is being removed."""
    files = []
    try:
        for path in sorted(bundle.rglob("*")):
            stat = path.stat()
            files.append((str(path.relative_to(bundle)), stat.st_size, stat.st_mtime_ns))
    except OSError:
        return ()
    return tuple(files)
