"""Certificates and tokens that are replaced while the agent runs count from the next connection."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from splitpoint.cloud.access.certs import make_certificates
from splitpoint.cloud.access.security import Security
from splitpoint.cloud.worker import Worker
from splitpoint.edge import Credentials
from splitpoint.edge.link.channel import WorkerChannel
from splitpoint.edge.link.connection import Connection
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.proto.limits import DESCRIBE_BYTES
from splitpoint.proto.status import UnauthenticatedError


def connection_of(worker: Worker, credentials: Credentials, bundle: Bundle) -> Connection:
    channel = WorkerChannel(worker.address, DESCRIBE_BYTES, credentials)
    return Connection(channel, "small", bundle.digest, lambda stream: None)


async def test_both_ends_get_a_new_authority(small_bundle: Bundle, tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_certificates(tmp_path / name, servers=["127.0.0.1"], devices=["gate"])
    device = tmp_path / "device"
    device.mkdir()

    def install(name: str) -> None:
        for file in ("ca.pem", "gate.pem", "gate.key"):
            shutil.copy(tmp_path / name / file, device / file)

    def worker(name: str, listen: str) -> Worker:
        folder = tmp_path / name
        security = Security(
            tls_cert=folder / "server.pem",
            tls_key=folder / "server.key",
            client_ca=folder / "ca.pem",
        )
        return Worker([small_bundle.folder], listen=listen, security=security)

    install("one")
    credentials = Credentials(
        tls_ca=device / "ca.pem", tls_cert=device / "gate.pem", tls_key=device / "gate.key"
    )
    async with worker("one", "127.0.0.1:0") as first:
        address = first.address
        connection = connection_of(first, credentials, small_bundle)
        stream = await connection.live(30)
        files = WorkerChannel(address, DESCRIBE_BYTES, credentials)
        await files.describe()
    assert stream.session.broken is not None or connection.stream is stream
    async with worker("two", address):
        with pytest.raises(UnauthenticatedError, match="no trust"):
            await files.describe()
        shutil.copy(tmp_path / "two" / "gate.pem", device)  # somebody is in the middle of it
        with pytest.raises(UnauthenticatedError, match="is not that of"):
            await files.describe()
        install("two")
        assert (await files.describe()).models
        assert (await connection.live(30)).session.welcome.credits
    await files.close()
    await connection.close()


async def test_a_token_is_read_again(small_bundle: Bundle, tmp_path: Path) -> None:
    """By a device that was turned away, too, and without a pause: there is a new thing to try."""
    token, tokens = tmp_path / "token", tmp_path / "tokens.toml"
    tokens.write_text(f'[gate]\ntoken_sha256 = "{hashlib.sha256(b"second").hexdigest()}"\n')
    token.write_text("first\n")
    security = Security(tokens=tokens)
    async with Worker([small_bundle.folder], listen="127.0.0.1:0", security=security) as worker:
        connection = connection_of(worker, Credentials(token_file=token), small_bundle)
        for _ in range(3):
            with pytest.raises(UnauthenticatedError, match="none of this worker's"):
                await connection.live(30)
        token.write_text("\n")
        with pytest.raises(UnauthenticatedError, match="is empty"):
            await connection.live(30)
        token.write_text("second\n")
        assert (await connection.live(30)).session.welcome.credits
        await connection.close()
