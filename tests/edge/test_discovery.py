"""Which workers a device takes of those that are announced, whatever is announced."""

from __future__ import annotations

import logging

import pytest
from local_network import FakeNetwork, name_of, record
from splitpoint.edge.discovery import search as search_module
from splitpoint.edge.discovery.announced import MOST_ADDRESSES, AnnouncedWorker, Wanted, fitting
from splitpoint.edge.discovery.network import Record
from splitpoint.edge.discovery.search import MOST_HEARD, MOST_WORKERS, Search, searching
from splitpoint.edge.errors import AgentError
from splitpoint.proto.announcement import AnnouncementError
from splitpoint.proto.limits import PROTOCOL

A, B = "a" * 64, "b" * 64


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "LOOK_S", 0.01)
    monkeypatch.setattr(search_module, "PAUSE_S", 0.01)


def worker(label: str, what: Record) -> AnnouncedWorker:
    return AnnouncedWorker.of(name_of(label), what)


def labels(workers: list[AnnouncedWorker]) -> list[str]:
    return [one.label for one in workers]


def test_the_bundle_that_is_here_comes_before_the_model_of_that_name() -> None:
    workers = [
        worker("old", record({A: "lite0"})),
        worker("new", record({B: "lite0"})),
        worker("newer", record({B: "lite0"})),
    ]
    assert labels(fitting(workers, Wanted(digest=A, tls=False))) == ["old"]
    assert labels(fitting(workers, Wanted(model="lite0", digest=A, tls=False))) == ["old"]
    assert labels(fitting(workers, Wanted(model="lite0", tls=False))) == ["new", "newer"]
    assert labels(fitting(workers, Wanted(digest="c" * 64, tls=False))) == ["new", "newer"]
    assert fitting(workers, Wanted(model="other", tls=False)) == []
    assert fitting(workers, Wanted(digest="c" * 64, exact=True, tls=False)) == []


def test_a_model_that_there_was_no_room_for_may_be_there() -> None:
    many = {f"{number:064x}": f"m{number:02}" for number in range(20)}
    workers = [worker("many", record(many)), worker("one", record({A: "lite0"}))]
    assert labels(fitting(workers, Wanted(model="m19", tls=False))) == ["many"]


def test_several_models_want_a_name() -> None:
    workers = [worker("x", record({A: "lite0"})), worker("y", record({B: "resnet50"}))]
    with pytest.raises(AgentError, match="name one with --model: lite0, resnet50"):
        fitting(workers, Wanted(tls=False))
    assert labels(fitting(workers, Wanted(model="resnet50", tls=False))) == ["y"]
    has_another = Wanted(digest="c" * 64, tls=False)
    assert fitting(workers, has_another) == []  # it begins alone, with what it has


def test_tls_and_the_protocol_must_be_ours() -> None:
    other = b"%d" % (PROTOCOL + 1)
    workers = [
        worker("tls", record({A: "lite0"}, tls=True)),
        worker("plain", record({A: "lite0"})),
        worker("other", record({A: "lite0"}, protocol=other)),
    ]
    assert labels(fitting(workers, Wanted(tls=True))) == ["tls"]
    assert labels(fitting(workers, Wanted(tls=False))) == ["plain"]


@pytest.mark.parametrize("port", [0, -1, 65536, 1 << 40])
def test_wrong_ports(port: int) -> None:
    with pytest.raises(AnnouncementError, match="port"):
        worker("x", record({A: "lite0"}, port=port))


@pytest.mark.parametrize("host", ["", "127.0.0.1", "::1 0.0.0.0", "224.0.0.251", "fe80::1"])
def test_addresses_that_nobody_may_be_sent_to(host: str) -> None:
    """Also not those of this machine: an announcement must not make it call its own services."""
    with pytest.raises(AnnouncementError, match="address"):
        worker("x", record({A: "lite0"}, host=host))


def test_addresses_are_bounded_and_whole() -> None:
    what = record({A: "x"}, host=" ".join(f"192.0.2.{n}" for n in range(1, 200)))
    assert len(worker("x", what).servers) == MOST_ADDRESSES
    odd = Record(addresses=(b"", b"12345", bytes(4), b"\xc0\x00\x02\x01"), port=1,
                 entries=what.entries)  # fmt: skip
    assert worker("x", odd).servers == ("192.0.2.1:1",)


def test_what_is_shown_of_a_name_is_printable_and_short() -> None:
    label = worker("\x1b[2J" + "x" * 10_000, record({A: "lite0"})).label
    assert label.isprintable()
    assert len(label) < 80


async def test_a_thousand_announcements_cost_a_few_connections() -> None:
    network = FakeNetwork({
        name_of(f"w{number:04}"): record({A: "lite0"}, host=f"10.0.{number >> 8}.{number & 255}")
        for number in range(1, 1001)
    })  # fmt: skip
    async with searching(network, Wanted(tls=False)) as search:
        assert len(await search.look()) == MOST_WORKERS
        assert len(network.asked) == MOST_WORKERS
        for number in range(1, 1001 - MOST_HEARD):
            network.announce(f"w{number:04}", None)
        network.announce("late", record({A: "lite0"}, host="192.0.2.7"))
        assert len(await search.look()) <= MOST_WORKERS


async def test_one_address_of_each_is_called() -> None:
    network = FakeNetwork({name_of("x"): record({A: "m"}, host="172.17.0.1 192.0.2.3 fd00::3")})
    network.silent.add("172.17.0.1:7070")
    async with searching(network, Wanted(tls=False)) as search:
        assert await search.look() == {"192.0.2.3:7070": "x"}
    network.silent.add("192.0.2.3:7070")
    async with searching(network, Wanted(tls=False)) as search:
        assert await search.look() == {"[fd00::3]:7070": "x"}


async def test_who_was_withdrawn_is_not_found() -> None:
    network = FakeNetwork({name_of("x"): record({A: "m"})})
    async with searching(network, Wanted(tls=False)) as search:
        network.announce("x", None)
        assert await search.look() == {}
        assert "no worker announces itself" in str(search.nobody())


async def test_newcomers_serve_the_same_and_are_not_known() -> None:
    network = FakeNetwork({name_of("x"): record({A: "m"})})
    async with searching(network, Wanted(tls=False)) as search:
        network.announce("y", record({B: "m"}, host="192.0.2.11"))
        network.announce("z", record({A: "m"}, host="192.0.2.12"))
        coming = search.others(A, ["192.0.2.10:7070"])
        assert await anext(coming) == ("192.0.2.12:7070", "z")
        await coming.aclose()


@pytest.mark.parametrize(
    ("announced", "tls", "says", "remedy"),
    [
        (None, False, "no worker announces itself", "--announce auto"),
        (record({A: "m"}, tls=True), False, "no worker without TLS .* but 1 with it", "--tls-ca"),
        (record({A: "m"}), True, "no worker with TLS .* but 1 without", "--announce auto"),
        (record({A: "m"}, protocol=b"77"), False, "of this version", "same version"),
        (record({A: "m"}), False, "serves the model and can be reached", "--server HOST:PORT"),
        (record({A: "m"}, v=b"7"), False, "no worker announces itself", "--announce auto"),
    ],
)
async def test_why_there_is_none(
    announced: Record | None, tls: bool, says: str, remedy: str
) -> None:
    network = FakeNetwork({} if announced is None else {name_of("x"): announced})
    network.silent.add("192.0.2.10:7070")
    async with searching(network, Wanted(tls=tls)) as search:
        assert await search.look() == {}
        error = search.nobody()
    with pytest.raises(type(error), match=says):
        raise error
    assert remedy in error.remedy


def test_what_makes_no_sense_is_left_out_quietly(caplog: pytest.LogCaptureFixture) -> None:
    """Anybody could fill the log of every device otherwise."""
    search = Search(FakeNetwork(), Wanted(tls=False))
    with caplog.at_level(logging.INFO, "splitpoint"):
        search.heard(name_of("x"), record({A: "m"}, port=0))
    assert caplog.text == ""
