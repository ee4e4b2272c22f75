"""What callers and their frames have written into the log: little, whatever they do."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from local_worker import local_worker
from raw_client import RawClient
from raw_http2 import RawConnection
from splitpoint.cloud.brief_log import GRPC, Brief
from splitpoint.codec import codec_named
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.compile.compile import compile_model
from splitpoint.partition.model_spec import ModelSpec
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import build_frame, encode_tensors


class Words(torch.nn.Module):
    """Knows a hundred of them, by numbers that nobody can tell from what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.known, self.head = torch.nn.Embedding(100, 8), torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.known(x * x // 100).mean(1))


async def test_frames_that_cannot_be_computed_do_not_fill_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Any client of a model of words can send one that it does not know, again and again."""
    spec = ModelSpec(source="words", module=Words(), args=(torch.randint(0, 100, (2, 12)),))
    bundle = compile_model(spec, tmp_path / "words.split", boundaries=3)
    (words,) = bundle.manifest.boundaries[0].tensors

    def frame(number: int, word: int) -> bytes:
        values = {words.name: np.full(words.shape, word, words.numpy_dtype)}
        tensors = encode_tensors(values, [words], codec_named("raw"))
        return build_frame(id=number, boundary=0, codec="raw", tensors=tensors, budget_ms=0)

    async with (
        local_worker(bundle, runtime="onnxruntime", max_batch=1) as worker,
        RawClient(worker) as client,
    ):
        await client.hello()
        for number in range(1, 60):
            reply = await client.ask(frame(number, 1000 + number))
            assert reply.status == pb.INTERNAL
        assert (await client.ask(frame(60, 7))).status == pb.OK
    assert sum("a frame failed" in record.getMessage() for record in caplog.records) < 30
    assert "onnxruntime" not in capfd.readouterr().err


async def test_what_callers_do_does_not_fill_the_log(
    small_bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    """gRPC itself writes a traceback for metadata that is no text, and for who hangs up."""
    async with local_worker(small_bundle) as worker:
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
    assert all(len(record.getMessage()) < 400 for record in told)


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
    assert len(line) < 400
    assert "ValueError" in line
    assert not any(brief.filter(said(ValueError())) for _ in range(5))
