"""The HTTP proxy through which gRPC connects, where the environment names one."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass

from .address import host_of, is_loopback
from .redact import redacted

# In gRPC's order; it reads them in small letters only.
VARIABLES, EXCEPTIONS = ("grpc_proxy", "https_proxy", "http_proxy"), ("no_grpc_proxy", "no_proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """Where it is, as it may be shown, and the variable that says so."""

    address: str
    variable: str

    def __str__(self) -> str:
        """`the proxy http://10.0.0.1:3128 (http_proxy)`."""
        return f"the proxy {self.address} ({self.variable})"


def proxy_of(server: str, environ: Mapping[str, str] = os.environ) -> Proxy | None:
    """The proxy on the way to `server` (HOST:PORT); None where there is none.

    None leads to this machine itself, or to what `no_proxy` names: ends of names, addresses and
    networks, with commas, or `*` for everything.
    """
    variable = next((name for name in VARIABLES if environ.get(name)), None)
    if variable is None or is_loopback(server):
        return None
    exceptions = next((environ[name] for name in EXCEPTIONS if environ.get(name)), "")
    host = host_of(server).lower()
    if any(_holds(entry.strip().lower(), host) for entry in exceptions.split(",")):
        return None
    return Proxy(address=redacted(environ[variable]), variable=variable)


def _holds(entry: str, host: str) -> bool:
    if not entry:
        return False
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return entry == "*" or host.endswith(entry.removeprefix("*"))
