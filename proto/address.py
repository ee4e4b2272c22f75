"""Addresses of machines: their parts, and whether they name this machine or another."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote

from splitpoint.codec import SplitpointError

_SCHEMES = ("ipv4", "ipv6", "dns")
_SOCKET_FILES = ("unix:", "unix-abstract:")
_MOST_PORT = 65535
_HOST_HEADER = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-z.-]+)(?::[0-9]{1,5})?")


class AddressError(SplitpointError):
    """What is no `HOST:PORT`."""


def split_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, of IPv6 `[ADDRESS]:PORT`, whose brackets are left out.

    The host may be empty. Raises `AddressError` for anything else.
    """
    host, _, digits = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if _is_ipv6(text) or (bare == host and _is_ipv6(host)):
        raise AddressError(f"{text[:100]} is no HOST:PORT", "put brackets around IPv6: [::1]:7070")
    if not (digits.isascii() and digits.isdecimal()) or ":" not in text:
        raise AddressError(f"{text[:100]!r} has no port", "give HOST:PORT, as in 192.0.2.10:7070")
    if len(digits.lstrip("0")) > 5 or int(digits) > _MOST_PORT:
        raise AddressError(
            f"{text[:100]!r} has no valid port", f"give HOST:PORT, up to {_MOST_PORT}"
        )
    if bare != host and not _is_ipv6(bare):
        raise AddressError(f"{text[:100]} has no IPv6 address in its brackets")
    return bare, int(digits)


def join_address(host: str, port: int) -> str:
    """`HOST:PORT`, with brackets where the host is an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def host_of(address: str) -> str:
    """The host of `HOST:PORT`, or of a peer as gRPC names it (`ipv6:%5B::1%5D:4242`).

    A socket file has none: "".
    """
    if address.startswith(_SOCKET_FILES):
        return ""
    text = unquote(address)
    scheme, _, rest = text.partition(":")
    if scheme in _SCHEMES and ":" in rest:
        text = rest.lstrip("/")
    return text.rpartition(":")[0].strip("[]")


def household_of(host: str) -> str:
    """Whom the address `host` belongs to, as far as it shows: names and IPv4 are their own.

    IPv6 is handed out by networks of 64 bits: who has one of their addresses has them all.
    """
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(found, ipaddress.IPv4Address):
        return host
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))


def is_loopback(address: str) -> bool:
    """Whether nobody but this machine is at `address`. What is not understood is not loopback.

    Names are not looked up, but for `localhost`: what they stand for can change.
    """
    if address.startswith(_SOCKET_FILES):
        return True
    return _leads_here(host_of(address))


def is_own_host(host: str) -> bool:
    """Whether a Host header names this machine, whatever its port.

    Another name may have been made to lead here (DNS rebinding), and gRPC's forms are no hosts.
    """
    found = _HOST_HEADER.fullmatch(host.lower())
    return found is not None and _leads_here(found[1].strip("[]"))


def _leads_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)
