"""The artifact cache: files of bundles, fetched once, verified always.

A file is written beside its place, synced, and renamed, so a name in the cache is a whole file.
A download that broke off is resumed from the bytes that arrived. The disk is touched in threads
only: a card may take seconds to sync, and frames go on meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from splitpoint.partition.bundle.bundle import MANIFEST, MAX_MANIFEST_BYTES, Manifest
from splitpoint.partition.bundle.bundle_file import File, file_sha256
from splitpoint.proto.tasks import until_ended

from ..errors import CacheError
from .cache_size import cannot_write
from .part_file import PartFile

P = ParamSpec("P")
T = TypeVar("T")

FetchFrom = Callable[[str, str, int], AsyncIterator[bytes]]
"""(bundle digest, file SHA-256, offset) -> the file's bytes from there on."""


class BundleCache:
    """The cached files of one bundle, under `folder/<digest>/` with the bundle's own layout."""

    def __init__(self, folder: Path, digest: str, fetch: FetchFrom) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise CacheError(f"the worker announces the impossible digest {digest[:70]!r}")
        self.folder = folder / digest
        self._digest, self._fetch = digest, fetch
        self._verified: dict[Path, tuple[str, _Stamp]] = {}  # with the digest that was found
        self._getting: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def manifest(self, nbytes: int) -> Manifest:
        """The manifest of the bundle; its digest vouches for it."""
        if not 0 < nbytes <= MAX_MANIFEST_BYTES:
            raise CacheError(f"the worker announces a manifest of {nbytes} bytes")
        path = await self.get(MANIFEST, File(sha256=self._digest, nbytes=nbytes))
        return await asyncio.to_thread(lambda: Manifest.from_bytes(path.read_bytes(), str(path)))

    async def get(self, name: str, file: File) -> Path:
        """The path of a whole and verified file, fetched if need be.

        Raises `CacheError` when the disk is full or the worker sends other bytes than promised.
        """
        path = self.folder / name
        async with self._getting[name]:  # what two ask for at once is fetched once
            if await self.has(name, file):
                return path
            try:
                await self._download(path, file)
            except OSError as error:
                raise cannot_write(self.folder, error) from error
        return path

    async def has(self, name: str, file: File) -> bool:
        """Whether the whole file is here.

        Its digest is computed when it is first asked for, and again when the file has changed.
        """
        return await asyncio.to_thread(self._has, self.folder / name, file)

    def _has(self, path: Path, file: File) -> bool:
        try:
            with path.open("rb") as stream:
                # Before the digest: what changes while it is computed is looked at again next time.
                stamp = _stamp(os.fstat(stream.fileno()))
                if self._verified.get(path) != (file.sha256, stamp):
                    if os.fstat(stream.fileno()).st_size != file.nbytes:
                        return False
                    if file_sha256(stream) != file.sha256:
                        return False
                    self._verified[path] = (file.sha256, stamp)
        except OSError:
            return False  # fetching it says why it cannot be had
        return True

    async def _download(self, path: Path, file: File) -> None:
        part = PartFile(path, file)
        try:
            await _in_thread(part.open)
            if part.nbytes < file.nbytes:
                async for data in self._fetch(self._digest, file.sha256, part.nbytes):
                    await _in_thread(part.write, data)
            self._verified[path] = (file.sha256, _stamp(await _in_thread(part.finish)))
        finally:
            await _in_thread(part.close)


_Stamp = tuple[int, int, int, int, int]
"""What changes when somebody writes to a file, or puts another one in its place."""


def _stamp(found: os.stat_result) -> _Stamp:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


async def _in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same as `asyncio.to_thread`; who is cancelled waits until the thread is done.

    Else a file would be closed while it is written.
    """
    working = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    await until_ended(working)
    return working.result()
