"""What lies in the artifact cache: its bundles, and how one of them is removed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from splitpoint.partition.bundle.bundle import MANIFEST, MAX_MANIFEST_BYTES, Manifest
from splitpoint.partition.bundle.bundle_file import file_sha256
from splitpoint.partition.errors import BundleError

from ..errors import CacheError
from .cache_size import FOLDER_NAME, mark_of, nbytes_in, remove, used_s
from .known_models import servers_of


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedBundle:
    """One bundle in the cache, as far as it was fetched.

    `name` is its model's, "" where the manifest is missing or damaged, and `manifest_bytes` is 0
    then. `nbytes` is what its files take here, `of_bytes` what all of them would. `used_s` is its
    last use in seconds since 1970, and `servers` are the workers that served it last.
    """

    digest: str
    name: str
    manifest_bytes: int
    nbytes: int
    of_bytes: int
    used_s: float
    servers: tuple[str, ...]


def bundles_in(cache: Path) -> list[CachedBundle]:
    """Those in the cache, the one that was used last first. Raises `CacheError`."""
    try:
        folders = [folder for folder in cache.iterdir() if FOLDER_NAME.fullmatch(folder.name)]
        found = [_described(folder) for folder in folders if folder.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CacheError(f"cannot read the cache {cache} ({error.strerror or error})") from error
    return sorted(found, key=lambda bundle: -bundle.used_s)


def remove_bundle(cache: Path, digest: str) -> None:
    """Takes a bundle out of the cache. Raises `CacheError` where an agent uses it, or it stays."""
    folder = cache / digest
    if not remove(folder, mark_of(folder)):
        raise CacheError(
            f"the bundle {digest[:12]} is in use, or cannot be removed", "stop the agent first"
        )


def only_digest(digests: set[str], first: str) -> str:
    """The one of `digests`; `CacheError` where `first`, their first digits, fits several."""
    if len(digests) > 1:
        raise CacheError(
            f"{len(digests)} bundles have digests that begin with {first}", "give more digits"
        )
    return next(iter(digests))


def first_digits(text: str) -> str:
    """The first digits of a digest, as the user gives them; `CacheError` for what is none."""
    if not re.fullmatch(r"[0-9a-f]{8,64}", text):
        raise CacheError(
            f"{text[:70]!r} is no digest", "give 8 to 64 of its digits, as `splitpoint cache` does"
        )
    return text


def _described(folder: Path) -> CachedBundle:
    manifest, length = _manifest(folder)
    files = {} if manifest is None else manifest.files
    return CachedBundle(
        digest=folder.name,
        name="" if manifest is None else manifest.name,
        manifest_bytes=length,
        nbytes=nbytes_in(folder),
        of_bytes=length + sum(file.nbytes for file in files.values()),
        used_s=used_s(mark_of(folder)),
        servers=servers_of(folder.parent, folder.name),
    )


def _manifest(folder: Path) -> tuple[Manifest | None, int]:
    """With its length; None where it is not here whole: its digest is the folder's name."""
    path = folder / MANIFEST
    try:
        with path.open("rb") as stream:
            length = os.fstat(stream.fileno()).st_size
            if length > MAX_MANIFEST_BYTES or file_sha256(stream) != folder.name:
                return None, 0
            stream.seek(0)
            return Manifest.from_bytes(stream.read(), str(path)), length
    except (FileNotFoundError, IsADirectoryError):
        return None, 0
    except BundleError:  # of another version of splitpoint
        return None, 0
