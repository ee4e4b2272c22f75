"""The local network by mDNS, with the package zeroconf (the extra `mdns`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from splitpoint.proto.address import split_address
from splitpoint.proto.announcement import SERVICE_TYPE
from splitpoint.proto.own_addresses import own_addresses
from splitpoint.proto.tasks import cancel_and_wait, within

from .network import Heard, Record

if TYPE_CHECKING:
    from zeroconf import ServiceStateChange, Zeroconf

log = logging.getLogger("splitpoint.edge")

REACH_S = 1.0  # for a connection, within one network
RESOLVE_MS = 1500.0  # for the records behind a name
MOST_NAMES = 64  # that are followed at a time; who shouts more names than that is not heard
EVERY_S = 2.0  # that this machine's own addresses are looked at


class ZeroconfNetwork:
    """See `LocalNetwork`. `interfaces` are the IPv4 addresses of those to listen on, all if none.

    A device may come up before its network does: with other addresses it begins to listen anew.
    """

    def __init__(self, interfaces: Sequence[str] = ()) -> None:
        self._interfaces = tuple(interfaces)

    @asynccontextmanager
    async def listening(self, heard: Heard) -> AsyncIterator[None]:
        """Raises `ModuleNotFoundError` without the extra."""
        import zeroconf  # noqa: F401

        task = asyncio.create_task(self._listen(heard), name="listen-for-workers")
        try:
            yield
        finally:
            await cancel_and_wait(task)

    async def reaches(self, server: str) -> bool:
        """Whether it takes a connection of TCP, which is closed at once."""
        host, port = split_address(server)
        try:
            _, writer = await within(REACH_S, asyncio.open_connection(host, port))
        except (OSError, asyncio.TimeoutError):
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True

    def _own(self) -> tuple[str, ...]:
        own = tuple(str(address) for address in own_addresses() if address.version == 4)
        return self._interfaces or own

    async def _listen(self, heard: Heard) -> None:
        reason = ""
        while True:
            try:
                await self._until_moved(self._own(), heard)
            except Exception as error:  # noqa: BLE001 - what a network does must not end the agent
                if reason != (reason := f"{type(error).__name__}: {error}"):
                    log.warning("cannot listen for workers: %s", reason)
            else:
                reason = ""
            await asyncio.sleep(EVERY_S)

    async def _until_moved(self, interfaces: tuple[str, ...], heard: Heard) -> None:
        from zeroconf import DNSQuestionType, IPVersion
        from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

        if not interfaces:
            return
        network = AsyncZeroconf(interfaces=list(interfaces), ip_version=IPVersion.V4Only)
        names = _Names(network.zeroconf, heard)
        try:
            # Where another program of this machine listens, too, it may get what is sent to one.
            browser = AsyncServiceBrowser(
                network.zeroconf,
                SERVICE_TYPE,
                handlers=[names.changed],
                question_type=DNSQuestionType.QM,
            )
            await self._moved(interfaces)
            await browser.async_cancel()
        finally:
            try:
                await names.close()
            finally:
                await network.async_close()

    async def _moved(self, interfaces: tuple[str, ...]) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            if self._own() != interfaces:
                return


class _Names:
    """Follows the names that are announced, each by one task at most."""

    def __init__(self, zeroconf: Zeroconf, heard: Heard) -> None:
        self._zeroconf, self._heard = zeroconf, heard
        self._following: dict[str, asyncio.Task[None]] = {}

    def changed(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        task = self._following.get(name)
        if state_change.name == "Removed":
            if task is not None:
                del self._following[name]
                task.cancel()
                self._heard(name, None)
        elif task is None and len(self._following) >= MOST_NAMES:
            log.debug("an announcement is not followed: there are too many")
        elif task is None or task.done():
            self._following[name] = asyncio.create_task(self._resolve(name), name="resolve-worker")

    async def close(self) -> None:
        await cancel_and_wait(*self._following.values())
        for name in self._following:  # whoever is still there is heard again
            self._heard(name, None)

    async def _resolve(self, name: str) -> None:
        from zeroconf import BadTypeInNameException, DNSQuestionType, IPVersion
        from zeroconf.asyncio import AsyncServiceInfo

        try:
            info = AsyncServiceInfo(SERVICE_TYPE, name)
            found = await info.async_request(self._zeroconf, RESOLVE_MS, DNSQuestionType.QM)
        except (BadTypeInNameException, ValueError) as error:
            log.debug("an announcement cannot be read: %s", error)
            return
        if found:
            addresses = tuple(each.packed for each in info.ip_addresses_by_version(IPVersion.All))
            record = Record(addresses=addresses, port=info.port or 0, entries=info.properties)
            self._heard(name, record)
