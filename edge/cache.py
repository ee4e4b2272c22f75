"""The artifact cache: files of bundles, fetched once, verified always.

A file is written beside its place, synced, and renamed, so a name in the cache is a whole file.
A download that broke off is resumed from the bytes that arrived.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

from splitpoint.partition.bundle import MANIFEST, MAX_MANIFEST_BYTES, File, Manifest

from .errors import CacheError

FetchFrom = Callable[[str, str, int], AsyncIterator[bytes]]
"""(bundle digest, file SHA-256, offset) -> the file's bytes from there on."""


class BundleCache:
    """The cached files of one bundle, under `folder/<digest>/` with the bundle's own layout."""

    def __init__(self, folder: Path, digest: str, fetch: FetchFrom) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise CacheError(f"the worker announces the impossible digest {digest[:70]!r}")
        self.folder = folder / digest
        self._digest, self._fetch = digest, fetch

    async def manifest(self, nbytes: int) -> Manifest:
        """The manifest of the bundle; its digest vouches for it."""
        if not 0 < nbytes <= MAX_MANIFEST_BYTES:
            raise CacheError(f"the worker announces a manifest of {nbytes} bytes")
        path = await self.get(MANIFEST, File(sha256=self._digest, nbytes=nbytes))
        return Manifest.from_bytes(path.read_bytes(), str(path))

    async def get(self, name: str, file: File) -> Path:
        """The path of a whole and verified file, fetched if need be.

        Raises `CacheError` when the disk is full or the worker sends other bytes than promised.
        """
        path = self.folder / name
        if await asyncio.to_thread(_is_whole, path, file):
            return path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part, stream = _open_part(path)
            with stream:
                await self._download(stream, part, file)
            found = _sha256(part)
            if found != file.sha256:
                part.unlink()
                raise CacheError(
                    f"the worker sent {name} with digest {found[:12]}, not {file.sha256[:12]}",
                    "its bundle changed or is damaged: compile it again and restart the worker",
                )
            part.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            raise CacheError(
                f"cannot write to the cache {self.folder} ({error.strerror or error})",
                "free some space, or choose another folder with --cache",
            ) from error
        return path

    async def _download(self, stream: BinaryIO, part: Path, file: File) -> None:
        if stream.tell() > file.nbytes:
            stream.truncate(0)
            stream.seek(0)
        if stream.tell() < file.nbytes:
            async for data in self._fetch(self._digest, file.sha256, stream.tell()):
                if stream.tell() + len(data) > file.nbytes:
                    raise CacheError(f"the worker sends more than {file.nbytes} bytes")
                stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
        size = stream.tell()
        if size != file.nbytes:
            raise CacheError(
                f"the download of {part.name} ended at {size} of {file.nbytes} bytes",
                "try again: it goes on from there",
            )


def _is_whole(path: Path, file: File) -> bool:
    return path.is_file() and _sha256(path) == file.sha256


def _open_part(path: Path) -> tuple[Path, BinaryIO]:
    """A partial file that nobody else writes, at its end: one that was left behind, or a new one.

    A lock says whether its writer lives; process numbers do not, across containers.
    """
    mine = path.with_name(f"{path.name}.part-{secrets.token_hex(4)}")
    for part in [*sorted(path.parent.glob(f"{path.name}.part-*")), mine]:
        stream = part.open("ab")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            continue
        if part.exists():  # its writer may have finished and renamed it just now
            return part, stream
        stream.close()
    raise CacheError(f"cannot find a free place beside {path}")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        sha256 = hashlib.sha256()
        while chunk := stream.read(1 << 20):
            sha256.update(chunk)
    return sha256.hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
