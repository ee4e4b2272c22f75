"""What was heard, as workers: checked, bounded, and fit to be shown."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from splitpoint.proto.address import join_address
from splitpoint.proto.announcement import SERVICE_TYPE, Announcement, AnnouncementError
from splitpoint.proto.limits import PROTOCOL
from splitpoint.proto.own_addresses import Address, may_be_called, sorted_addresses
from splitpoint.proto.printable import printable

from ..errors import AgentError
from .network import Record

MOST_ADDRESSES = 16  # of one worker: containers have bridges of their own
MOST_LABEL = 63  # characters, those of a DNS label


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnouncedWorker:
    """A worker as it says it is. `servers` are its addresses, each HOST:PORT."""

    label: str
    servers: tuple[str, ...]
    says: Announcement

    @classmethod
    def of(cls, name: str, record: Record) -> AnnouncedWorker:
        """Raises `AnnouncementError` for what no worker would announce."""
        if not 0 < record.port < 65536:
            raise AnnouncementError(f"the announcement names the port {record.port}")
        addresses = sorted_addresses(_called(record.addresses[:MOST_ADDRESSES]))
        if not addresses:
            raise AnnouncementError("the announcement has no address that can be called")
        return cls(
            label=printable(name.removesuffix(f".{SERVICE_TYPE}"), MOST_LABEL),
            servers=tuple(join_address(str(address), record.port) for address in addresses),
            says=Announcement.read(record.entries),
        )


def _called(addresses: Iterable[bytes]) -> Iterable[Address]:
    for packed in addresses:
        try:
            address = ipaddress.ip_address(packed)
        except ValueError:
            continue
        if may_be_called(address):
            yield address


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a device looks for: a model by its name, a bundle by its digest, "" for any.

    With `exact` no other bundle will do.
    """

    model: str = ""
    digest: str = ""
    exact: bool = False
    tls: bool


def usable(workers: Iterable[AnnouncedWorker], wanted: Wanted) -> list[AnnouncedWorker]:
    """Those that this device could talk to at all, by label."""
    able = [one for one in workers if one.says.protocol == PROTOCOL and one.says.tls == wanted.tls]
    return sorted(able, key=lambda one: (one.label, one.servers))


def fitting(workers: Iterable[AnnouncedWorker], wanted: Wanted) -> list[AnnouncedWorker]:
    """Of the usable ones those that serve the bundle, else those that serve the model.

    Where neither is wanted, those that serve the only one there is. They all serve the same bundle:
    of several under one name, the one that most of them serve. Of several names there is none for a
    device that has a bundle, and `AgentError` for one that has none.
    """
    able = usable(workers, wanted)
    same = _serving(able, wanted.digest)
    if same or wanted.exact:
        return same
    names = {name for one in able for name in one.says.models.values() if name}
    if not wanted.model and len(names) > 1:
        if wanted.digest:
            return []
        told = ", ".join(sorted(printable(name, 40) for name in names)[:8])
        raise AgentError(
            "several models are announced in the local network", f"name one with --model: {told}"
        )
    found = Counter(
        digest
        for one in able
        for digest, name in one.says.models.items()
        if wanted.model in ("", name)
    )
    if not found:  # there may be more models than an announcement has room for
        return [one for one in able if one.says.unnamed]
    return _serving(able, min(found, key=lambda digest: (-found[digest], digest)))


def _serving(workers: Iterable[AnnouncedWorker], digest: str) -> list[AnnouncedWorker]:
    return [one for one in workers if digest in one.says.models]
