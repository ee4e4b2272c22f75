"""What workers announce: bounded where it is written, and checked where it is read."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from splitpoint.proto.announcement import (
    ENTRY_BYTES,
    MOST_MODELS,
    Announcement,
    AnnouncementError,
)
from splitpoint.proto.own_addresses import may_be_called, own_addresses, sorted_addresses

A, B = "a" * 64, "b" * 64


def read_back(announcement: Announcement) -> Announcement:
    return Announcement.read({k.encode(): v for k, v in announcement.entries().items()})


def test_what_is_written_is_read() -> None:
    told = Announcement.of_models({B: "lite0", A: "Straße 7"}, tls=True)
    assert read_back(told) == told
    assert list(told.models.values()) == ["Straße 7", "lite0"]
    nothing = Announcement.of_models({}, tls=False)
    assert read_back(nothing) == nothing


@given(st.dictionaries(st.from_regex(r"[0-9a-f]{64}", fullmatch=True), st.text(), max_size=20))
def test_no_entry_is_too_long(models: dict[str, str]) -> None:
    told = Announcement.of_models(models, tls=False)
    entries = told.entries()
    assert all(len(key) + 1 + len(value) <= ENTRY_BYTES for key, value in entries.items())
    assert sum(len(key) + 2 + len(value) for key, value in entries.items()) < 8000
    heard = read_back(told)
    assert heard.models.keys() == told.models.keys()
    for digest, name in heard.models.items():
        assert name in ("", models[digest])
        assert name.isprintable()


def test_more_models_than_there_is_room_for_are_counted() -> None:
    models = {f"{number:064x}": f"m{number:03}" for number in range(40)}
    heard = read_back(Announcement.of_models(models, tls=False))
    assert len(heard.models) == MOST_MODELS
    assert heard.unnamed == 40 - MOST_MODELS


def test_a_name_that_does_not_fit_leaves_its_digest() -> None:
    heard = read_back(Announcement.of_models({A: "x" * 300, B: "ok"}, tls=False))
    assert heard.models == {A: "", B: "ok"}


GOOD = {b"v": b"1", b"tls": b"0", b"protocol": b"1", b"m0": A.encode() + b" lite0"}


@pytest.mark.parametrize(
    "harm",
    [
        {b"v": b"2"},
        {b"v": None},
        {b"tls": b"yes"},
        {b"tls": None},
        {b"protocol": None},
        {b"protocol": b"-1"},
        {b"protocol": "²".encode()},
        {b"protocol": b"9" * 5000},
        {b"more": b"1e9"},
        {b"more": b""},
        {b"m0": b"lite0"},
        {b"m0": A.upper().encode()},
        {b"m15": b"../../etc/passwd x"},
    ],
)
def test_what_no_worker_announces(harm: dict[bytes, bytes | None]) -> None:
    assert Announcement.read(GOOD).models == {A: "lite0"}
    with pytest.raises(AnnouncementError):
        Announcement.read(GOOD | harm)


@pytest.mark.parametrize(
    "name", [b"\x1b[2Jlite0", b"lite0\nerror: pay", b"\xff\xfe", "\u202elite0".encode()]
)
def test_a_name_that_could_not_be_shown_is_left_out(name: bytes) -> None:
    heard = Announcement.read(GOOD | {b"m1": B.encode() + b" " + name})
    assert heard.models == {A: "lite0", B: ""}


@given(st.dictionaries(st.sampled_from([*GOOD, b"more", b"m1", b"x"]), st.none() | st.binary()))
def test_whatever_is_announced_is_an_announcement_or_a_typed_error(
    entries: dict[bytes, bytes | None],
) -> None:
    try:
        heard = Announcement.read(GOOD | entries)
    except AnnouncementError:
        return
    assert len(heard.models) <= MOST_MODELS
    assert all(name.isprintable() and len(name) < ENTRY_BYTES for name in heard.models.values())


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("192.0.2.10", True),
        ("169.254.1.2", True),
        ("fd00::2", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.251", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("ff02::fb", False),
        ("::ffff:127.0.0.1", False),
    ],
)
def test_who_can_be_called(address: str, may: bool) -> None:
    assert may_be_called(ipaddress.ip_address(address)) is may


def test_own_addresses_can_be_called() -> None:
    own = own_addresses()
    assert own == sorted_addresses(own)
    assert all(map(may_be_called, own))
