"""A device that boots in the past, before the worker's certificate is valid."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from splitpoint.cloud.access import security as security_module
from splitpoint.cloud.access.certs import make_certificates
from splitpoint.cloud.access.security import Security
from splitpoint.cloud.worker import Worker
from splitpoint.edge import Credentials, EdgeAgent, Outcome
from splitpoint.edge.store.known_models import recall, remember
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.proto.tls import TlsError, read_ca, read_pair

SOON_S = 4.0
EARLIER = timedelta(days=1)  # than they are made do certificates begin to be valid


@pytest.fixture
async def early(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Worker]:
    """A worker whose clock is some seconds ahead of the device's."""
    folder = tmp_path / "certs"
    now = datetime.now(timezone.utc) + EARLIER + timedelta(seconds=SOON_S)
    make_certificates(folder, servers=["127.0.0.1"], now=now)
    # There is only one clock here: the worker's would say that its certificate is good.
    monkeypatch.setattr(security_module, "read_pair", partial(read_pair, early=True))
    security = Security(tls_cert=folder / "server.pem", tls_key=folder / "server.key")
    async with Worker([small_bundle.folder], listen="127.0.0.1:0", security=security) as worker:
        yield worker


def agent_of(worker: Worker, tmp_path: Path) -> EdgeAgent:
    credentials = Credentials(tls_ca=tmp_path / "certs" / "ca.pem")
    return EdgeAgent(
        worker.address, cache=tmp_path / "cache", credentials=credentials, split="1", codec="raw"
    )


async def test_without_a_cache_it_waits_for_its_clock(
    early: Worker, pixels: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "splitpoint"):
        async with agent_of(early, tmp_path) as agent:
            assert (await agent.infer({"pixels": pixels})).outcome is Outcome.ANSWERED
    said = [line for line in caplog.messages if "not valid yet" in line]
    assert len(said) == 1
    assert "this device's clock says" in said[0]
    assert f"{datetime.now(timezone.utc):%Y-%m-%d}" in said[0]


async def test_with_a_cache_it_runs_alone_until_its_clock_is_set(
    early: Worker,
    small_bundle: Bundle,
    pixels: np.ndarray,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Worker([small_bundle.folder], listen="127.0.0.1:0") as open_to_all:
        async with EdgeAgent(open_to_all.address, cache=tmp_path / "cache") as agent:
            await agent.settled()
        known = recall(tmp_path / "cache", [open_to_all.address], "")
    assert known is not None
    remember(tmp_path / "cache", [early.address], {""}, known)
    async with agent_of(early, tmp_path) as agent:
        results = []
        for _ in range(1000):
            results.append(await agent.infer({"pixels": pixels}))
            if results[-1].outcome is Outcome.ANSWERED:
                break
            await asyncio.sleep(0.02)
    assert results[0].outcome is Outcome.LOCAL
    assert results[-1].outcome is Outcome.ANSWERED
    assert "not valid yet" in caplog.text


def test_files_that_are_not_valid_yet_are_taken_by_who_may_be_in_the_past(tmp_path: Path) -> None:
    make_certificates(
        tmp_path, servers=["127.0.0.1"], now=datetime.now(timezone.utc) + timedelta(days=30)
    )
    pair = (tmp_path / "server.pem", tmp_path / "server.key")
    assert read_pair(*pair, early=True)[0] == pair[0].read_bytes()
    assert read_ca(tmp_path / "ca.pem", early=True) == (tmp_path / "ca.pem").read_bytes()
    for read in (lambda: read_pair(*pair), lambda: read_ca(tmp_path / "ca.pem")):
        with pytest.raises(TlsError, match="clock"):
            read()
