"""Which model a worker served last: what a device needs to know to start while nobody answers.

One small file in the cache for each server and name that was asked for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from splitpoint.partition.kept_files import keep_newest, write_whole

log = logging.getLogger("splitpoint.edge")

_MOST_BYTES = 4096
MOST_KNOWN = 64  # servers and names: a worker may call its models anything


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """A bundle by its digest, and how long its manifest is."""

    digest: str
    manifest_bytes: int


def remember(cache: Path, servers: Iterable[str], names: Iterable[str], model: KnownModel) -> None:
    """Each of `servers` serves `model` to who asks for one of `names`; "" asks for the only one.

    A file is replaced as a whole, and not written when it says so already: cards wear out. Where it
    cannot be written, the log says so.
    """
    for server in servers:
        for name in names:
            path = _path(cache, server, name)
            record = {"server": server, "model": name, "digest": model.digest,
                      "manifest_bytes": model.manifest_bytes}  # fmt: skip
            text = json.dumps(record) + "\n"
            try:
                if not (path.is_file() and path.read_bytes() == text.encode()):
                    write_whole(path, text)
                    keep_newest(cache, "model-*.json", MOST_KNOWN)
            except OSError as error:
                log.warning(
                    "cannot keep in the cache what %s serves (%s): the device will not start "
                    "without it", server, error.strerror or error,
                )  # fmt: skip
                return


def recall(cache: Path, servers: Iterable[str], name: str) -> KnownModel | None:
    """What one of `servers` was said to serve under `name`; None where that is not known."""
    for server in servers:
        path = _path(cache, server, name)
        try:
            with path.open("rb") as stream:
                record = json.loads(stream.read(_MOST_BYTES))
            known = KnownModel(
                digest=record["digest"], manifest_bytes=int(record["manifest_bytes"])
            )
            if not re.fullmatch(r"[0-9a-f]{64}", known.digest):
                raise ValueError("no digest")
        except FileNotFoundError:
            continue
        except (
            OSError, ValueError, OverflowError, LookupError, TypeError, RecursionError
        ) as error:  # fmt: skip
            log.warning("%s cannot be used (%s)", path, type(error).__name__)
            continue
        return known
    return None


def servers_of(cache: Path, digest: str) -> tuple[str, ...]:
    """The servers that were last said to serve a bundle."""
    found = set()
    for path in cache.glob("model-*.json"):
        try:
            with path.open("rb") as stream:
                record = json.loads(stream.read(_MOST_BYTES))
            if record["digest"] == digest:
                found.add(str(record["server"]))
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue  # `recall` says so where it matters
    return tuple(sorted(found))


def _path(cache: Path, server: str, name: str) -> Path:
    key = hashlib.sha256(f"{server}\n{name}".encode()).hexdigest()[:16]
    return cache / f"model-{key}.json"
