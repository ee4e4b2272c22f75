"""The emulated link has the rate, delay and faults that it says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from patience import PATIENCE_S, Lateness, refusing, stalled, swallowing, until
from splitpoint.cli.emulate import delay_pipe
from splitpoint.cli.emulate.delay_pipe import DelayPipe
from splitpoint.cli.emulate.relay import EmulateError, Relay, parse_fault
from splitpoint.partition.plan.link import parse_link
from splitpoint.proto.address import split_address


@pytest.fixture
async def echo() -> AsyncIterator[str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # the relay resets connections on purpose
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def through(relay: Relay, data: bytes) -> tuple[bytes, float]:
    reader, writer = await asyncio.open_connection(*split_address(relay.address))
    start = time.perf_counter()
    writer.write(data)
    try:
        received = await asyncio.wait_for(reader.readexactly(len(data)), PATIENCE_S)
    finally:
        writer.close()
    return received, time.perf_counter() - start


async def test_rate_and_delay(echo: str) -> None:
    data = bytes(range(256)) * 400  # 0.82 Mbit
    begin = time.perf_counter()
    async with Relay(echo, parse_link("4mbps,60ms")) as relay, Lateness() as lateness:
        received, seconds = await through(relay, data)
        lost_s = 4 * lateness.within_s(begin, time.perf_counter())  # every byte passes four times
    assert received == data
    expected = len(data) * 8 / 4e6 + 0.060
    assert expected * 0.97 < seconds < expected * 1.5 + lost_s


async def test_stall_delays_and_loses_nothing(echo: str) -> None:
    async with Relay(echo, parse_link("1000mbps,0ms")) as relay:
        async with stalled(relay):
            going = asyncio.create_task(through(relay, b"hello"))
            await asyncio.sleep(0.3)
            assert not going.done()
        received, _ = await going
    assert received == b"hello"


async def test_flip_changes_one_bit(echo: str) -> None:
    data = bytes(100)
    async with Relay(echo, parse_link("1000mbps,0ms")) as relay:
        relay.flip()
        received, _ = await through(relay, data)
        again, _ = await through(relay, data)
    assert sum(byte.bit_count() for byte in received) == 1
    assert again == data


async def test_cut_resets_and_comes_back(echo: str) -> None:
    async with Relay(echo, parse_link("1000mbps,0ms")) as relay:
        async with refusing(relay):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await through(relay, b"hello")
        assert (await through(relay, b"hello"))[0] == b"hello"


async def test_black_hole_swallows(echo: str) -> None:
    async with Relay(echo, parse_link("1000mbps,0ms")) as relay:
        async with swallowing(relay):
            going = asyncio.create_task(through(relay, b"hello"))
            await until(lambda: bool(relay._pumps))  # it is connected
            await asyncio.sleep(0.3)
            assert not going.done()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await going
        assert (await through(relay, b"hello"))[0] == b"hello"


def test_faults_are_parsed() -> None:
    fault = parse_fault("blackhole@5s:30s")
    assert (fault.kind, fault.at_s, fault.for_s) == ("blackhole", 5, 30)
    for bad in ("cut", "cut@x", "melt@5s"):
        with pytest.raises(EmulateError):
            parse_fault(bad)


async def test_busy_port_is_refused(echo: str) -> None:
    with pytest.raises(EmulateError, match="cannot listen"):
        async with Relay(echo, parse_link("lte"), listen=echo):
            pass


async def test_both_ends_may_be_ipv6() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(5))
        writer.close()

    server = await asyncio.start_server(answer, "::1", 0)
    far = f"[::1]:{server.sockets[0].getsockname()[1]}"
    async with Relay(far, parse_link("1000mbps,0ms"), listen="[::1]:0") as relay:
        assert relay.address.startswith("[::1]:")
        assert (await through(relay, b"hello"))[0] == b"hello"
    server.close()


async def test_a_pipe_keeps_its_order_and_holds_no_more_than_it_may() -> None:
    pipe = DelayPipe(most_bytes=10)
    await pipe.put(1.0, b"12345678")
    await pipe.put(2.0, b"12345678")
    waiting = asyncio.create_task(pipe.put(3.0, b""))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    assert await pipe.get() == (1.0, b"12345678")
    await waiting
    assert [await pipe.get() for _ in range(2)] == [(2.0, b"12345678"), (3.0, b"")]


async def test_an_edge_that_does_not_read_stops_the_worker() -> None:
    """The relay holds no more for it than a link would; nothing is lost."""
    total, sent = 256 << 20, 0
    done = asyncio.Event()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while sent < total:
            writer.write(bytes(1 << 20))
            sent += 1 << 20
            await writer.drain()
        done.set()
        writer.close()

    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    far = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with Relay(far, parse_link("1000mbps,0ms")) as relay:
        reader, writer = await asyncio.open_connection(*split_address(relay.address))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(done.wait(), 0.5)
        # Its own share, and what the sockets of both connections take in.
        assert sent < delay_pipe.MOST_BYTES + (64 << 20)
        received = 0
        while data := await reader.read(1 << 20):
            received += len(data)
        assert received == total == sent
        writer.close()
    server.close()
