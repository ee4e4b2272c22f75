"""What a worker announces of itself in the local network, as the text of a DNS-SD service.

An announcement is only an address: whoever sends one may say what he likes in it. What is read here
is bounded and can be shown; whom it is of, only TLS can tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from splitpoint.codec import SplitpointError

from .limits import PROTOCOL

SERVICE_TYPE = "_splitpoint._tcp.local."
ENTRY_BYTES = 255  # of a key, = and its value (RFC 6763, section 6.1)
MOST_MODELS = 16  # that are named: all entries stay below what a packet can carry
_FORM = b"1"
_DIGEST = re.compile(rb"[0-9a-f]{64}")
_DIGITS = 4  # of a number


class AnnouncementError(SplitpointError):
    """What is announced as a worker is none, or of another kind than is known here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """The models by digest with their names, and what it takes to talk to the worker.

    A name is "" where it would not fit; `unnamed` is how many more models there are. `tls` says
    whether connections have to be encrypted.
    """

    models: Mapping[str, str]
    tls: bool
    protocol: int = PROTOCOL
    unnamed: int = 0

    @classmethod
    def of_models(cls, models: Mapping[str, str], *, tls: bool) -> Announcement:
        """Of a worker that serves `models`: as many of them as there is room for, by name."""
        ordered = sorted(models.items(), key=lambda item: (item[1], item[0]))
        named = dict(ordered[:MOST_MODELS])
        return cls(models=named, tls=tls, unnamed=len(models) - len(named))

    def entries(self) -> dict[str, bytes]:
        """What stands in the TXT record. No entry is longer than `ENTRY_BYTES`."""
        found = {
            "v": _FORM,
            "protocol": b"%d" % self.protocol,
            "tls": b"1" if self.tls else b"0",
            "more": b"%d" % min(self.unnamed, 10**_DIGITS - 1),
        }
        for number, (digest, name) in enumerate(self.models.items()):
            key, bare = f"m{number}", digest.encode()
            whole = b"%b %b" % (bare, name.encode("utf-8", "replace"))
            found[key] = whole if len(key) + 1 + len(whole) <= ENTRY_BYTES else bare
        return found

    @classmethod
    def read(cls, entries: Mapping[bytes, bytes | None]) -> Announcement:
        """What somebody announces. Raises `AnnouncementError` for what no worker would.

        Entries that are not known are left out, and so is a name that could not be shown.
        """
        if entries.get(b"v") != _FORM:
            raise AnnouncementError("the announcement is of another kind")
        tls = entries.get(b"tls")
        if tls not in (b"0", b"1"):
            raise AnnouncementError("the announcement does not say whether TLS is needed")
        models = {}
        for number in range(MOST_MODELS):
            entry = entries.get(b"m%d" % number)
            if entry is not None:
                digest, name = _model(entry)
                models[digest] = name
        return cls(
            models=models,
            tls=tls == b"1",
            protocol=_count(entries.get(b"protocol")),
            unnamed=_count(entries.get(b"more", b"0")),
        )


def _model(entry: bytes) -> tuple[str, str]:
    digest, _, name = entry[:ENTRY_BYTES].partition(b" ")
    if not _DIGEST.fullmatch(digest):
        raise AnnouncementError("the announcement names a model without its digest")
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    return digest.decode("ascii"), text if text.isprintable() else ""


def _count(value: bytes | None) -> int:
    if value is None or not value.isdigit() or len(value) > _DIGITS:
        raise AnnouncementError("the announcement has no number where one belongs")
    return int(value)
