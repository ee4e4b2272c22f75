"""A file of a bundle, held against the digest that the manifest has of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BundleError

COMPILE_AGAIN = "compile it again with `splitpoint compile`"


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """What a file of the bundle must be."""

    sha256: str
    nbytes: int


def verify_file(path: Path, file: File) -> None:
    """Raises `BundleError` unless `path` holds exactly that file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            sha256 = file_sha256(stream) if size == file.nbytes else ""
    except OSError as error:
        raise BundleError(
            f"the bundle's file {path} cannot be read ({error.strerror})", COMPILE_AGAIN
        ) from error
    if sha256 != file.sha256:
        why = f"{size} bytes, not {file.nbytes}" if size != file.nbytes else "another digest"
        raise BundleError(f"the bundle's file {path} is damaged ({why})", COMPILE_AGAIN)


def file_sha256(stream: Any) -> str:
    """SHA-256 of a binary stream from its present position on."""
    sha256 = hashlib.sha256()
    while chunk := stream.read(1 << 20):
        sha256.update(chunk)
    return sha256.hexdigest()


def describe_file(path: Path) -> File:
    """The record of a file that was just written."""
    with path.open("rb") as stream:
        return File(sha256=file_sha256(stream), nbytes=path.stat().st_size)
