"""The addresses under which other machines may reach this one."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

import psutil

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def own_addresses() -> list[Address]:
    """Of all interfaces, IPv4 first; without loopback and IPv6's addresses of one link only."""
    found = {
        ipaddress.ip_address(each.address.partition("%")[0])
        for interface in psutil.net_if_addrs().values()
        for each in interface
        if each.family in (socket.AF_INET, socket.AF_INET6)
    }
    return sorted_addresses(address for address in found if may_be_called(address))


def may_be_called(address: Address) -> bool:
    """Whether another machine can be at `address`: not this machine itself, nobody, or many.

    IPv6's addresses of one link are left out: they mean nothing without the name of an interface.
    """
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        if mapped is not None:
            return may_be_called(mapped)
        if address.is_link_local:
            return False
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)


def sorted_addresses(addresses: Iterable[Address]) -> list[Address]:
    """Each once: IPv4 before IPv6, and then by number."""
    return sorted(set(addresses), key=lambda address: (address.version, int(address)))
