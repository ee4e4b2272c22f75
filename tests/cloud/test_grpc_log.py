"""What gRPC itself writes into the log: little, whatever callers do."""

from __future__ import annotations

import asyncio
import logging

import pytest
from raw_http2 import RawConnection
from splitpoint.cloud.grpc_log import GRPC, Brief
from splitpoint.cloud.worker import Worker
from splitpoint.partition.bundle import Bundle


async def test_what_callers_do_does_not_fill_the_log(
    small_bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    """gRPC itself writes a traceback for metadata that is no text, and for who hangs up."""
    async with Worker([small_bundle.folder], listen="127.0.0.1:0", device="cpu") as worker:
        connection = await RawConnection.open(worker.address)
        reading = asyncio.create_task(connection.read())
        streams = range(1, 100, 2)
        try:
            for stream in streams:
                metadata = [("x-a", b"\xff\n" + 20 * b"ERROR")]
                await connection.begin(stream, "/grpc.health.v1.Health/Check", metadata)
                await connection.send(stream, b"")
            for stream in streams:
                await asyncio.wait_for(connection.ended[stream].wait(), 30)
        finally:
            connection.close()
            await reading
    told = [record for record in caplog.records if record.name == GRPC]
    assert len(told) < 25
    assert all("\n" not in record.getMessage() and not record.exc_info for record in told)
    assert all(len(record.getMessage()) < 300 for record in told)


def test_what_grpc_says_is_one_short_line() -> None:
    brief = Brief()

    def said(error: Exception) -> logging.LogRecord:
        about = (type(error), error, error.__traceback__)
        words = ("Invalid encoding on %s", (b"\xff\n" * 999,))
        return logging.LogRecord(GRPC, logging.ERROR, __file__, 1, *words, about)

    record = said(ValueError("of a caller"))
    assert brief.filter(record)
    line = logging.Formatter().format(record)
    assert "\n" not in line
    assert len(line) < 200
    assert "ValueError" in line
    assert not any(brief.filter(said(ValueError())) for _ in range(5))
