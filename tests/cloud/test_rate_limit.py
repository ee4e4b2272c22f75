"""How often strangers may ask: each for himself, and nobody is remembered for ever."""

from __future__ import annotations

from types import SimpleNamespace

from splitpoint.cloud.access.rate_limit import MOST_KNOWN, RateLimit
from splitpoint.cloud.wire.unary import asker


def test_each_has_his_own_rate() -> None:
    now_s = 0.0
    limit = RateLimit(2.0, lambda: now_s)
    assert [limit.take("a") for _ in range(3)] == [True, True, False]
    assert limit.take("b")
    now_s = 0.5
    assert [limit.take("a") for _ in range(2)] == [True, False]


def test_who_asked_longest_ago_is_forgotten() -> None:
    limit = RateLimit(1.0, lambda: 0.0)
    assert limit.take("first")
    for number in range(MOST_KNOWN - 1):
        assert limit.take(str(number))
        assert not limit.take("first")
    assert len(limit) == MOST_KNOWN
    assert limit.take("one more")
    assert len(limit) == MOST_KNOWN
    assert not limit.take("first"), "it asked a moment ago"
    assert limit.take("0"), "it did not"


def test_who_has_a_network_of_addresses_asks_as_one() -> None:
    """Whoever has one address of IPv6 mostly has 2^64 of them."""
    limit = RateLimit(1.0, lambda: 0.0)
    peers = (
        "ipv6:%5B2001:db8::1%5D:1", "ipv6:%5B2001:db8::2%5D:1", "ipv6:%5B2001:db8:0:1::1%5D:1",
        "ipv6:%5B::ffff:192.0.2.1%5D:1", "ipv4:192.0.2.1:2", "ipv4:192.0.2.2:1",
    )  # fmt: skip
    taken = [limit.take(asker(SimpleNamespace(peer=lambda at=peer: at))) for peer in peers]
    assert taken == [True, False, True, True, False, True]
