"""The file of clients: who may come, what each may use, and how much of it."""

from __future__ import annotations

import difflib
import hashlib
import hmac
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ServeError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_SHA256 = re.compile(r"[0-9a-f]{64}")
MOST_NAME = 80  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Somebody who uses the worker, and the limits that hold for all of its streams together.

    `models` are names or digests of bundles, None for all that are served. `max_bytes_in_flight`
    counts the tensors of unanswered frames as they are in memory, decoded. `max_streams` None
    leaves it to the worker. A client without a name of its own is called by its address.
    """

    name: str
    models: frozenset[str] | None = None
    max_requests_per_s: float = math.inf
    max_bytes_in_flight: float = math.inf
    max_streams: int | None = None
    is_address: bool = False

    def may_use(self, model: str, digest: str) -> bool:
        """Whether the bundle of that name and digest is one of its models."""
        return self.models is None or model in self.models or digest in self.models


class Tokens:
    """The clients of a file, found by their token, or by name where a certificate proves that."""

    def __init__(self, by_digest: Mapping[str, Client], by_certificate: Mapping[str, Client]):
        self._by_digest, self._by_certificate = dict(by_digest), dict(by_certificate)

    @classmethod
    def parse(cls, text: str, path: Path) -> Tokens:
        """Reads TOML with a table for each client; `path` is where it stands.

            [gate-3]
            token_sha256 = "…64 digits…"        # without: known by its certificate's name
            models = ["lite0"]                  # without: all
            max_requests_per_s = 50
            max_bytes_in_flight = 20_000_000
            max_streams = 2

        Raises `ServeError`, in one line, for anything else.
        """
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ServeError(f"{path} is no TOML: {error}") from error
        if not tables:
            raise ServeError(f"{path} names no client", "add a table for each: [NAME]")
        by_digest: dict[str, Client] = {}
        by_certificate: dict[str, Client] = {}
        for name, table in tables.items():
            if not isinstance(table, dict):
                raise ServeError(
                    f"{path}: {name} stands in no client's table",
                    "write a [NAME] before the keys of each client",
                )
            client, digest = _client(path, name, table)
            if digest is None:
                by_certificate[name] = client
            elif digest in by_digest:
                raise ServeError(
                    f"{path}: {by_digest[digest].name} and {name} have the same token",
                    "give each its own",
                )
            else:
                by_digest[digest] = client
        return cls(by_digest, by_certificate)

    @property
    def knows_certificates(self) -> bool:
        """Whether some client is known by its certificate's name alone."""
        return bool(self._by_certificate)

    def by_token(self, token: bytes) -> Client | None:
        """Whose token it is.

        Every client's digest is compared whole: how long it takes says nothing of how near a guess
        came.
        """
        digest = hashlib.sha256(token).hexdigest()
        found = None
        for expected, client in self._by_digest.items():
            if hmac.compare_digest(expected, digest):
                found = client
        return found

    def by_certificate(self, name: str) -> Client | None:
        """The client of that name, if it needs no token."""
        return self._by_certificate.get(name)


def read_tokens(path: Path) -> str:
    """The file's text. Raises `ServeError` where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ServeError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ServeError(f"{path} is no TOML: {error}") from error


def _client(path: Path, name: str, table: Mapping[str, Any]) -> tuple[Client, str | None]:
    if not name or len(name) > MOST_NAME or not name.isprintable():
        raise ServeError(
            f"{path}: {name[:MOST_NAME]!r} is no name",
            f"take 1 to {MOST_NAME} printable characters",
        )
    for key in table:
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.5)
            known = ", ".join(_KEYS)
            raise ServeError(
                f"{path}: [{name}] has the unknown key {key!r}",
                f"did you mean {near[0]}?" if near else f"known are {known}",
            )
    for key, value in table.items():
        fits, words = _KEYS[key]
        if not fits(value):
            # A token that was written here by mistake is not to end up in a log.
            shown = "" if key == "token_sha256" else f" = {value!r}"[:60]
            raise ServeError(f"{path}: [{name}] {key}{shown}", f"give {words}")
    fields = {key: table[key] for key in table.keys() - {"token_sha256", "models"}}
    models = frozenset(table["models"]) if "models" in table else None
    return Client(name=name, models=models, **fields), table.get("token_sha256")


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and one for one in value)


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


_KEYS = {
    "token_sha256": (_is_sha256, "the token's SHA-256 as 64 digits of 0-9a-f, never the token"),
    "models": (_is_names, "a list of names of models"),
    "max_requests_per_s": (_is_positive, "a number above 0"),
    "max_bytes_in_flight": (_is_positive, "a number of bytes above 0"),
    "max_streams": (_is_count, "a whole number above 0"),
}
