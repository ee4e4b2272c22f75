"""Nothing that lets others in is left of an address."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from splitpoint.proto.redact import redacted

SECRET = "5ecr3t"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("rtsp://cam/s", "rtsp://cam/s"),
        ("rtsp://cam:554/a/b", "rtsp://cam:554/a/b"),
        ("rtsp://[fe80::1%25eth0]:554/a", "rtsp://[fe80::1%25eth0]:554/a"),
        ("photos/a@b.jpg", "photos/a@b.jpg"),
        (f"rtsp://admin:{SECRET}@cam/s", "rtsp://cam/s"),
        (f"rtsp://admin:p/{SECRET}@cam/s", "rtsp://cam/s"),
        (f"rtsp://admin:p@/{SECRET}@cam/s", "rtsp://cam/s"),
        (f"rtsp://admin:p w{SECRET}@cam:1/s", "rtsp://cam:1/s"),
        (f"rtsp://{SECRET}@cam", "rtsp://cam"),
        (f"http://cam/flv?user=admin&password={SECRET}", "http://cam/flv"),
        (f"http://cam/flv;token={SECRET}", "http://cam/flv"),
        (f"http://cam/flv#{SECRET}", "http://cam/flv"),
        (f"rtsp://cam/user=admin_password={SECRET}_channel=1.sdp", "rtsp://cam"),
        (f"rtsp://cam/live/key={SECRET}/x", "rtsp://cam/live"),
        # Whether these are passwords or queries with an @, nobody can tell.
        (f"rtsp://admin:p?{SECRET}@cam/s", "rtsp://…"),
        (f"http://cam/flv?mail=a@b&password={SECRET}", "http://…"),
        (f"http://cam/flv?password=x@{SECRET}", "http://…"),
        (f"rtsp://admin:a/b=@{SECRET}@cam", "rtsp://…"),
        (f"rtsp://admin:{SECRET}/s", "rtsp://…"),
    ],
)
def test_addresses(address: str, expected: str) -> None:
    assert redacted(address) == expected


_PASSWORD = st.text(st.sampled_from(string.punctuation + string.ascii_letters + " é"), max_size=12)
_HOST = st.sampled_from(["cam", "192.0.2.1:554", "[2001:db8::1]:554", "cam.example"])
_PATH = st.sampled_from(["", "/", "/s", "/h264/ch1", "/a@b"])


@given(before=_PASSWORD, after=_PASSWORD, user=_PASSWORD, host=_HOST, path=_PATH)
def test_no_part_of_a_password_is_left(
    before: str, after: str, user: str, host: str, path: str
) -> None:
    password = f"{before}{SECRET}{after}"
    for address in (
        f"rtsp://{user}:{password}@{host}{path}",
        f"rtsp://{password}@{host}{path}",
        f"http://{host}{path}?{user}={password}",
        f"http://{host}{path}?a=b&{user}={password}&c=d",
    ):
        assert SECRET not in redacted(address), address
