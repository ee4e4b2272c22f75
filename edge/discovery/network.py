"""The seam at the local network: what is heard of announcements, and who can be reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An announcement as somebody sent it: nothing in it is checked.

    `addresses` are packed, of 4 or 16 bytes; `entries` those of the TXT record.
    """

    addresses: tuple[bytes, ...]
    port: int
    entries: Mapping[bytes, bytes | None]


Heard = Callable[[str, Record | None], None]
"""Told of a name and what is announced under it now; None when that was withdrawn."""


class LocalNetwork(Protocol):
    """Where workers announce themselves."""

    def listening(self, heard: Heard) -> AbstractAsyncContextManager[None]:
        """While it is entered, `heard` is called on the event loop."""
        ...

    async def reaches(self, server: str) -> bool:
        """Whether somebody takes connections at HOST:PORT."""
        ...
