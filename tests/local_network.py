"""A local network in memory: what is announced there, and who can be reached."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from splitpoint.edge.discovery.network import Heard, Record
from splitpoint.proto.announcement import SERVICE_TYPE, Announcement


def name_of(label: str) -> str:
    return f"{label}.{SERVICE_TYPE}"


def record(
    models: Mapping[str, str], *, host: str = "192.0.2.10", port: int = 7070, tls: bool = False,
    **entries: bytes | None,
) -> Record:  # fmt: skip
    """What a worker announces, with some entries replaced."""
    told = Announcement.of_models(models, tls=tls).entries()
    return Record(
        addresses=tuple(ipaddress.ip_address(each).packed for each in host.split()),
        port=port,
        entries={key.encode(): value for key, value in {**told, **entries}.items()},
    )


class FakeNetwork:
    """`announced` are the records by name; who is in `silent` takes no connections."""

    def __init__(self, announced: Mapping[str, Record] | None = None) -> None:
        self.announced = dict(announced or {})
        self.silent: set[str] = set()
        self.asked: list[str] = []
        self._heard: list[Heard] = []

    def announce(self, label: str, what: Record | None) -> None:
        """Now; None withdraws it."""
        name = name_of(label)
        if what is None:
            del self.announced[name]
        else:
            self.announced[name] = what
        for heard in self._heard:
            heard(name, what)

    @asynccontextmanager
    async def listening(self, heard: Heard) -> AsyncIterator[None]:
        self._heard.append(heard)
        for name, what in self.announced.items():
            heard(name, what)
        try:
            yield
        finally:
            self._heard.remove(heard)

    async def reaches(self, server: str) -> bool:
        self.asked.append(server)
        return server not in self.silent
