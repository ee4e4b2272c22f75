"""Small files that are kept between starts: where they lie, and how they are written."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/splitpoint`, or `~/.cache/splitpoint`; `/var/cache` for who has no home."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        root = Path(base) if base else Path.home() / ".cache"
    except RuntimeError:
        root = Path("/var/cache")
    return root / "splitpoint"


def write_whole(path: Path, text: str) -> None:
    """Writes the file whole or not at all; whoever reads it meanwhile sees the old one.

    After a power cut there is the old one or the new one, too. Raises `OSError` where that cannot
    be done, and leaves nothing behind.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with draft.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def keep_newest(folder: Path, pattern: str, most: int) -> None:
    """Removes all but the `most` files of that name that were written last. Raises `OSError`."""
    found = []
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # another process removed it just now
            found.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(found, reverse=True)[most:]:
        path.unlink(missing_ok=True)
