"""A worker announces itself: what it serves, as that changes, until it drains. On loopback."""

from __future__ import annotations

import ipaddress
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import zeroconf.asyncio
from command import Command
from local_worker import local_worker
from patience import until
from splitpoint.cloud import announcing
from splitpoint.cloud.access.security import Security
from splitpoint.cloud.announcing import MOST_NAME_BYTES, Announcer, check_announced
from splitpoint.cloud.errors import ServeError
from splitpoint.cloud.options import StreamLimits
from splitpoint.edge.discovery.network import Record
from splitpoint.edge.discovery.over_zeroconf import ZeroconfNetwork
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.proto.announcement import SERVICE_TYPE, Announcement

LOOPBACK = ["127.0.0.1"]
A, B = "a" * 64, "b" * 64


class Ears:
    """What was heard last of each name, by its label."""

    def __init__(self) -> None:
        self.now: dict[str, Record | None] = {}

    def __call__(self, name: str, record: Record | None) -> None:
        self.now[name.removesuffix(f".{SERVICE_TYPE}")] = record

    def models(self, label: str) -> dict[str, str]:
        record = self.now.get(label)
        return {} if record is None else dict(Announcement.read(record.entries).models)


def announcer(name: str, models: dict[str, str], said: list[str], **more: Any) -> Announcer:
    given = {"listen": "192.0.2.10:7070", "tls": True, "interfaces": LOOPBACK} | more
    return Announcer(name=name, models=lambda: models, said=said.append, **given)


async def test_it_says_what_it_serves_until_it_is_left() -> None:
    ears, models, said = Ears(), {A: "lite0"}, list[str]()
    async with ZeroconfNetwork(LOOPBACK).listening(ears):
        async with announcer("gate", models, said).announced():
            await until(lambda: ears.models("gate") == {A: "lite0"})
            record = ears.now["gate"]
            assert record is not None
            assert record.port == 7070
            assert [str(ipaddress.ip_address(each)) for each in record.addresses] == ["192.0.2.10"]
            assert Announcement.read(record.entries).tls
            await until(lambda: said == ["announced as gate at 192.0.2.10"])
            models[B] = "resnet50"
            await until(lambda: ears.models("gate") == models)
            del models[A]
            await until(lambda: ears.models("gate") == {B: "resnet50"})
        await until(lambda: ears.now["gate"] is None)


async def test_two_workers_of_one_machine_have_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "hall" * 40 + ".example")
    ears, said = Ears(), list[str]()
    one = announcer("auto", {A: "lite0"}, said, listen="192.0.2.10:7070")
    two = announcer("auto", {B: "lite0"}, said, listen="192.0.2.10:17070")
    async with (
        ZeroconfNetwork(LOOPBACK).listening(ears),
        one.announced(),
        two.announced(),
    ):
        await until(lambda: len(said) == 2)
        await until(lambda: len(ears.now) == 2)
    assert {label.rpartition("-")[2] for label in ears.now} == {"7070", "17070"}
    assert all(label.startswith("hallhall") for label in ears.now)


async def test_other_addresses_are_announced_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [ipaddress.ip_address("192.0.2.10")]
    monkeypatch.setattr(announcing, "own_addresses", lambda: list(own))
    monkeypatch.setattr(announcing, "EVERY_S", 0.05)
    ears, said = Ears(), list[str]()
    everywhere = announcer("yard", {A: "lite0"}, said, listen="0.0.0.0:7070")
    async with ZeroconfNetwork(LOOPBACK).listening(ears), everywhere.announced():
        await until(lambda: len(said) == 1)
        own[:] = [ipaddress.ip_address("192.0.2.77")]
        await until(lambda: len(said) == 2)
        await until(lambda: ears.now["yard"] and ears.now["yard"].addresses == (own[0].packed,))


async def test_a_network_without_multicast_does_not_end_the_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(**options: object) -> object:
        raise OSError("multicast is not allowed here")

    monkeypatch.setattr(zeroconf.asyncio, "AsyncZeroconf", refused)
    monkeypatch.setattr(announcing, "AGAIN_S", 0.01)
    async with announcer("gate", {A: "lite0"}, []).announced():
        await until(lambda: "multicast is not allowed" in caplog.text)
        before = len(caplog.records)
        await until(lambda: True)
    assert before == len(caplog.records) == 1


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:7070", "localhost:7070", "[::1]:7070", "nowhere.invalid:7070"]
)
def test_only_this_machine_reaches_it(listen: str) -> None:
    with pytest.raises(ServeError, match="cannot be announced") as caught:
        check_announced("gate", listen)
    assert "--listen 0.0.0.0:PORT" in caught.value.remedy


@pytest.mark.parametrize("name", ["", "a.b", "x\x1b[2J", "a\nb", "ä" * 30])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ServeError, match="cannot be announced as") as caught:
        check_announced(name, "192.0.2.10:7070")
    assert str(caught.value).isprintable()
    check_announced("ä" * (MOST_NAME_BYTES // 2), "192.0.2.10:7070")


def test_the_command_says_it_before_it_loads_anything(
    small_bundle: Bundle, command: Command
) -> None:
    done = command("serve", small_bundle.folder, "--announce", "auto")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: a worker that listens on 127.0.0.1:7070 cannot be announced")


async def test_a_worker_follows_its_folder_and_withdraws_first(
    small_bundle: Bundle,
    int8_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real = zeroconf.asyncio.AsyncZeroconf
    monkeypatch.setattr(
        zeroconf.asyncio, "AsyncZeroconf", lambda **how: real(**how | {"interfaces": LOOPBACK})
    )
    monkeypatch.setattr(announcing, "own_addresses", lambda: [ipaddress.ip_address("192.0.2.10")])
    ears = Ears()
    caplog.set_level(logging.INFO, "splitpoint")
    listening = ZeroconfNetwork(LOOPBACK).listening(ears)
    serving = local_worker(
        small_bundle, listen="0.0.0.0:0", watch=tmp_path, announce="shed",
        security=Security(insecure=True), limits=StreamLimits(),
    )  # fmt: skip
    async with listening:
        async with serving as worker:
            names = {digest: model.bundle.manifest.name for digest, model in worker.models.items()}
            await until(lambda: ears.models("shed") == names)
            record = ears.now["shed"]
            assert record is not None
            assert record.port == int(worker.address.rpartition(":")[2])
            assert not Announcement.read(record.entries).tls
            shutil.copytree(int8_bundle.folder, tmp_path / "more.split")
            await until(lambda: int8_bundle.digest in ears.models("shed"))
            shutil.rmtree(tmp_path / "more.split")
            await until(lambda: int8_bundle.digest not in ears.models("shed"))
        await until(lambda: ears.now["shed"] is None)
