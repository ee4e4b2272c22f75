"""A worker tells the local network that it is there: mDNS, by the extra `mdns`.

What is told follows the models that it serves and the addresses of the machine, until the worker
drains: then it is withdrawn.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from splitpoint.proto.address import is_loopback, split_address
from splitpoint.proto.announcement import SERVICE_TYPE, Announcement
from splitpoint.proto.own_addresses import Address, may_be_called, own_addresses, sorted_addresses
from splitpoint.proto.tasks import cancel_and_wait, within

from .compute.served_model import ServedModel
from .errors import ServeError
from .options import AUTO, WorkerOptions

if TYPE_CHECKING:
    from zeroconf import ServiceInfo

log = logging.getLogger("splitpoint.cloud")

EVERY_S = 1.0  # that models and addresses are looked at
AGAIN_S = 30.0  # after which it is tried again where the network does not let it
WITHDRAW_S = 2.0  # at most: a worker that stops has frames to answer
MOST_NAME_BYTES = 59  # of a label's 63; the rest is for a number behind it, where two are alike
_EVERYWHERE = ("", "0.0.0.0", "::")


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcer:
    """Announces a worker as `name` ("auto": the machine's and the port) at its own address.

    `models` gives the names of what is served by digest, `said` is told the name that it got.
    `interfaces` are the IPv4 addresses of those to announce on, all but loopback if there are none.
    See `check_announced` for what it raises.
    """

    name: str
    listen: str
    tls: bool
    models: Callable[[], Mapping[str, str]]
    said: Callable[[str], None]
    interfaces: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_announced(self.name, self.listen)

    @asynccontextmanager
    async def announced(self) -> AsyncIterator[None]:
        """While it is entered. Leaving it withdraws what was announced."""
        task = asyncio.create_task(self._run(), name="announce")
        try:
            yield
        finally:
            await cancel_and_wait(task)

    async def _run(self) -> None:
        host, _ = split_address(self.listen)
        fixed = None if host in _EVERYWHERE else await asyncio.to_thread(addresses_of, host)
        addresses = own_addresses if fixed is None else lambda: fixed
        reason = ""
        while True:
            try:
                await self._until_moved(addresses)
            except Exception as error:  # noqa: BLE001 - a network's whims must not end the worker
                if reason != (reason := f"{type(error).__name__}: {error}"):
                    log.warning("the worker cannot announce itself: %s", reason)
                await asyncio.sleep(AGAIN_S)
            else:
                reason = ""
                await asyncio.sleep(EVERY_S)

    async def _until_moved(self, now: Callable[[], Sequence[Address]]) -> None:
        """Announces until the addresses are others; as long as there are none not at all."""
        from zeroconf import IPVersion
        from zeroconf.asyncio import AsyncZeroconf

        addresses = now()
        interfaces = list(self.interfaces) or _v4(addresses) or _v4(own_addresses())
        if not (addresses and interfaces):
            return
        zeroconf = AsyncZeroconf(interfaces=interfaces, ip_version=IPVersion.V4Only)
        try:
            told = self._announcement()
            info = self._info(self._label(), told, addresses)
            await (await zeroconf.async_register_service(info, allow_name_change=True))
            label = info.name.removesuffix(f".{SERVICE_TYPE}")
            self.said(f"announced as {label} at {', '.join(map(str, addresses))}")
            while now() == addresses:
                await asyncio.sleep(EVERY_S)
                if told != (told := self._announcement()):
                    info = self._info(label, told, addresses, host=info.server or "")
                    await (await zeroconf.async_update_service(info))
        finally:
            try:  # withdraws it, too
                await within(WITHDRAW_S, zeroconf.async_close())
            except asyncio.TimeoutError:
                log.warning("the announcement was not withdrawn within %g s", WITHDRAW_S)

    def _announcement(self) -> Announcement:
        return Announcement.of_models(self.models(), tls=self.tls)

    def _label(self) -> str:
        """Two workers of one machine cannot always see that they have the same name."""
        if self.name != AUTO:
            return self.name
        own = socket.gethostname().partition(".")[0]
        port = f"-{split_address(self.listen)[1]}"
        shown = "".join(c for c in own if c.isprintable()).encode()
        cut = shown[: MOST_NAME_BYTES - len(port)].decode("utf-8", "ignore")
        return f"{cut or 'worker'}{port}"

    def _info(
        self, label: str, told: Announcement, addresses: Sequence[Address], host: str = ""
    ) -> ServiceInfo:
        from zeroconf import ServiceInfo

        return ServiceInfo(
            SERVICE_TYPE,
            f"{label}.{SERVICE_TYPE}",
            port=split_address(self.listen)[1],
            addresses=[address.packed for address in addresses],
            # What is told once more within seconds passes for old: so it never is quite the same.
            properties={**told.entries(), "n": secrets.token_hex(4).encode()},
            # Not the machine's own name, whose records are somebody else's to answer for.
            server=host or f"splitpoint-{secrets.token_hex(4)}.local.",
        )


def announcer_of(
    options: WorkerOptions,
    address: str,
    models: Mapping[str, ServedModel],
    said: Callable[[str], None],
) -> Announcer:
    """That of a worker which listens at `address` and serves `models`, by digest."""
    return Announcer(
        name=options.announce,
        listen=address,
        tls=options.security is not None and options.security.tls,
        models=lambda: {digest: model.bundle.manifest.name for digest, model in models.items()},
        said=said,
    )


def check_announced(name: str, listen: str) -> None:
    """Raises `ServeError` for a name that cannot be announced, or an address nobody can reach.

    Raises `ModuleNotFoundError` without the extra.
    """
    import zeroconf  # noqa: F401 - only the extra mdns brings it

    if not name.isprintable() or "." in name or not 0 < len(name.encode()) <= MOST_NAME_BYTES:
        raise ServeError(
            f"a worker cannot be announced as {name[:80]!r}",
            f"give up to {MOST_NAME_BYTES} bytes without dots and control characters, or {AUTO}",
        )
    host, _ = split_address(listen)
    if is_loopback(listen) or (host not in _EVERYWHERE and not addresses_of(host)):
        raise ServeError(
            f"a worker that listens on {listen} cannot be announced: only this machine reaches it",
            "give --listen 0.0.0.0:PORT, or leave out --announce",
        )


def addresses_of(host: str) -> list[Address]:
    """Those of a host's name, or the one that it is; without those that nobody else can call."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    parsed = (ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found)
    return sorted_addresses(address for address in parsed if may_be_called(address))


def _v4(addresses: Sequence[Address]) -> list[str]:
    return [str(address) for address in addresses if address.version == 4]
