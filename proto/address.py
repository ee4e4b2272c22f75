"""Which machine an address names: this one, or another."""

from __future__ import annotations

import ipaddress
from urllib.parse import unquote

_SCHEMES = ("ipv4", "ipv6", "dns")
_SOCKET_FILES = ("unix:", "unix-abstract:")


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


def is_loopback(address: str) -> bool:
    """Whether nobody but this machine is at `address`. What is not understood is not loopback.

    Names are not looked up, but for `localhost`: what they stand for can change.
    """
    if address.startswith(_SOCKET_FILES):
        return True
    host = host_of(address)
    if host == "localhost":
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)
